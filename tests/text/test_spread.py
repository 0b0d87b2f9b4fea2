"""Estimated times for words without times: examples and a property test."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from asr.text.spread import divide, fill_missing, n_letters, spread_words
from asr.types import Word, ordered


@given(
    st.floats(0, 1e5), st.floats(0, 1e5), st.lists(st.integers(1, 10**6), min_size=1, max_size=50)
)
def test_parts_follow_each_other_from_start_to_end(start, length, weights):
    parts = divide(start, start + length, weights)
    assert len(parts) == len(weights)
    assert parts[0][0] == start
    assert parts[-1][1] == pytest.approx(start + length)
    assert parts[-1][1] <= start + length
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert all(begin <= end for begin, end in parts)


def test_parts_are_proportional_to_the_weights():
    assert divide(1.0, 5.0, [1, 2, 1]) == [(1.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    assert divide(1.0, 5.0, []) == []


@pytest.mark.parametrize(("text", "count"), [("it's", 3), ("5km,", 3), ("-", 1), ("日本", 2)])
def test_letters_and_digits_count(text, count):
    assert n_letters(text) == count


def test_longer_words_get_more_time():
    words = spread_words(["a", "four,"], 0.0, 5.0, 0.25)
    assert [(word.start, word.end) for word in words] == [(0.0, 1.0), (1.0, 5.0)]
    assert {(word.confidence, word.timing) for word in words} == {(0.25, "interpolated")}


def test_words_without_a_time_lie_between_their_neighbours():
    timed = Word("b", 2.0, 3.0, 0.9, "aligned")
    words = fill_missing(["a", "b", "c", "dd"], [None, timed, None, None], 1.0, 6.0)
    assert words[1] is timed
    spans = [(word.start, word.end) for word in words]
    assert spans == [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 6.0)]


def test_an_end_before_the_last_word_leaves_no_time():
    timed = Word("a", 2.0, 3.0)
    words = fill_missing(["a", "b"], [timed, None], 0.0, 0.0)
    ordered(words, 0.0, 3.0)
    assert (words[1].start, words[1].end) == (3.0, 3.0)
