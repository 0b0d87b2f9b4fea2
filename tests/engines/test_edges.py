"""Sentences at the edges of an answer that a model may have written to its user."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from asr.engines.edges import (
    MAX_SENTENCES,
    first_sentences,
    last_sentences,
    may_be_the_models,
    may_have_remarks,
)

TEXT = 'Sure! Here it is: "We met. It rained." [music]\nHost: bye (end)'
PARTS = ["Sure!", "Here it is:", '"We met.', 'It rained."', "[music]", "Host:", "bye", "(end)"]


def test_signs_line_breaks_colons_and_brackets_end_a_sentence():
    assert [TEXT[start:end].strip() for start, end in first_sentences(TEXT)] == PARTS
    assert [TEXT[start:end].strip() for start, end in last_sentences(TEXT)] == PARTS[::-1]


@pytest.mark.parametrize(
    "sentence",
    ["Sure!", "Host:", "[music]", "Here is what I heard:", "The speaker sounds happy.", "Done."],
)
def test_what_a_model_may_say(sentence):
    assert may_be_the_models(sentence)
    assert may_have_remarks(f"It rained. {sentence}")
    assert may_have_remarks(f"{sentence} It rained.")


@pytest.mark.parametrize("sentence", ["It rained.", "We met at noon, and it was cold.", "Hello!"])
def test_what_no_model_says_to_its_user(sentence):
    assert not may_be_the_models(sentence)
    assert not may_have_remarks(sentence)


pieces = st.sampled_from(["It rained. ", "Sure! ", "Host: ", "[", "] ", "\n", '"', " ", "\u3002"])


@given(st.lists(pieces | st.text(max_size=4), max_size=40).map("".join))
def test_sentences_follow_each_other_and_hold_all_words_near_the_edges(text):
    first, last = first_sentences(text), last_sentences(text)[::-1]
    assert len(first) <= MAX_SENTENCES
    assert len(last) <= MAX_SENTENCES
    for some in (first, last):
        assert all(a[1] <= b[0] for a, b in pairwise(some))
        assert all(text[start:end].strip() for start, end in some)
    if len(first) < MAX_SENTENCES:
        held = "".join(text[start:end] for start, end in first)
        assert "".join(held.split()) == "".join(text.split())
        assert first == last


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["]", ") ", " ", "\n", "Sure! ", '."', "a:", "(the ", "audio "])
def test_the_time_for_a_text_grows_with_its_length_alone(piece):
    text = piece * (50_000 // len(piece))
    assert len(first_sentences(text)) <= MAX_SENTENCES
    assert may_have_remarks(text) in (True, False)
