"""From tokens with times to words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.engines.onnx.words import Answer, hypothesis, token_of_each_letter
from asr.types import ordered


def test_words_begin_with_their_first_token_and_end_before_a_pause():
    tokens = [" Good", " day", "s", ",", " ", "we", " say"]
    starts = [0.0, 0.4, 0.5, 0.5, 2.0, 2.0, 2.1]
    logprobs = [float(np.log(it)) for it in (0.9, 0.4, 0.1, 0.001, 1, 0.5, 1)]
    answer = Answer("Good days, we say", tokens, starts, logprobs)
    words = hypothesis(3, answer, 5.0).words
    assert [(word.text, word.start, word.end) for word in words] == [
        ("Good", 0.0, 0.3),
        ("days,", 0.4, 0.8),
        ("we", 2.0, 2.1),
        ("say", 2.1, pytest.approx(2.4)),
    ]
    # A comma says nothing about the word before it.
    assert [word.confidence for word in words] == [0.9, 0.2, 0.5, 1.0]
    assert {word.timing for word in words} == {"engine"}


def test_words_of_one_frame_share_the_time_until_the_next():
    answer = Answer("a b c", [" a", " b", " c"], [1.0, 1.0, 1.08])
    words = hypothesis(0, answer, 2.0).words
    assert [(word.start, word.end) for word in words] == [
        (1.0, pytest.approx(1.04)),
        (pytest.approx(1.04), 1.08),
        (1.08, pytest.approx(1.38)),
    ]
    assert [word.confidence for word in words] == [None] * 3


def test_tokens_that_differ_from_the_text_time_nothing():
    assert token_of_each_letter("ab c", ["a", "b ", " c"]) == [[0, 1], [2]]
    assert token_of_each_letter("ab d", ["a", "b ", " c"]) is None
    answer = Answer("hello", ["<unk>"], [0.5], [-0.5])
    assert hypothesis(0, answer, 1.0).words == ()
    assert hypothesis(0, answer, 1.0).text == "hello"


@pytest.mark.parametrize("logprobs", [[0.5, 3.0], [float("nan"), -1], [float("-inf"), -1]])
def test_scores_that_are_no_probabilities_are_not_reported(logprobs):
    answer = Answer("a b", ["a", " b"], [0, 1], logprobs)
    found = hypothesis(0, answer, 2.0)
    assert found.avg_logprob is None
    assert [word.confidence for word in found.words] == [None, None]


TOKENS = st.lists(st.tuples(st.sampled_from(["a", " b", " ", "c,", "d e"]), st.floats(0, 4)))


@given(TOKENS, st.floats(0.1, 3), st.booleans())
def test_words_are_in_order_inside_the_chunk(found, duration, is_sorted):
    tokens = [token for token, _ in found]
    starts = [start for _, start in found]
    starts = sorted(starts) if is_sorted else starts
    answer = Answer("".join(tokens), tokens, starts, [-1.0] * len(tokens))
    words = hypothesis(0, answer, duration).words
    ordered(words, 0.0, duration)
    assert [word.text for word in words] == "".join(tokens).split()
    assert all(before.end <= after.start for before, after in pairwise(words))
