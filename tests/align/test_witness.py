"""Which timed words the witness doubts; made-up hypotheses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align.hmm.confidence import SKIPPED_CONFIDENCE, confidence
from asr.align.witness import doubts, evidence, witness
from asr.types import Audio, Hypothesis, Word

AUDIO = Audio(np.zeros(160_000, np.float32))


def hypothesis(sure, unwritten=(), timing="aligned", seconds=0.3):
    """Make a hypothesis of words with these confidences, one every `seconds`."""
    words = tuple(
        Word(f"w{n}", n * seconds, (n + 1) * seconds, confidence, timing)
        for n, confidence in enumerate(sure)
    )
    text = " ".join(word.text for word in words)
    return Hypothesis(0, text, words, unwritten=tuple(unwritten))


def test_sure_words_are_not_doubted():
    assert doubts(hypothesis([0.95] * 30)) == []


def test_single_words_may_be_mumbled():
    assert doubts(hypothesis([0.98, 0.97, 0.1, 0.98, 0.15, 0.99])) == []


def test_a_sentence_that_nobody_said_is_reported_with_its_times():
    sure = [0.97] * 6 + [SKIPPED_CONFIDENCE, 0.1, SKIPPED_CONFIDENCE, 0.5, 0.05] + [0.97] * 6
    (doubt,) = doubts(hypothesis(sure))
    assert (doubt.kind, doubt.n_words) == ("unheard", 5)
    assert (doubt.start, doubt.end) == (pytest.approx(1.8), pytest.approx(3.3))
    (says,) = witness(AUDIO, hypothesis(sure), 60.0)
    assert says == "5 words from 61.8 s to 63.3 s cannot be heard in the audio"


def test_two_stretches_are_two_doubts():
    bad = [0.05] * 4
    sure = [0.99] * 5 + bad + [0.99] * 5 + bad
    assert [(doubt.kind, doubt.n_words) for doubt in doubts(hypothesis(sure))] == [
        ("unheard", 4)
    ] * 2


def test_speech_without_words_is_reported():
    (says,) = witness(AUDIO, hypothesis([0.99] * 5, [(4.0, 6.5)]), 10.0)
    assert says == "speech from 14.0 s to 16.5 s belongs to no word"


def test_nobody_speaks_that_fast():
    kinds = {doubt.kind for doubt in doubts(hypothesis([0.99] * 20, seconds=0.08))}
    assert kinds == {"hurried"}
    assert doubts(hypothesis([0.99] * 20, seconds=0.14)) == []


def test_an_engines_own_times_are_not_judged():
    assert doubts(hypothesis([0.01] * 20, timing="engine")) == []
    assert doubts(hypothesis([None] * 20, timing="interpolated")) == []


@given(st.lists(st.none() | st.floats(0, 1), max_size=40), st.floats(0, 1e4))
def test_doubts_are_in_order_and_inside(sure, offset):
    heard = hypothesis(sure)
    found = doubts(heard)
    assert len(witness(AUDIO, heard, offset)) == len(found)
    for doubt in found:
        assert heard.words[0].start <= doubt.start <= doubt.end <= heard.words[-1].end
        mine = [word for word in heard.words if doubt.start <= word.start < doubt.end]
        if doubt.kind == "unheard":
            assert sum(map(evidence, mine)) > 0


@given(st.lists(st.floats(-20, 10), min_size=1), st.floats(0, 5))
def test_a_better_fit_never_lowers_the_confidence(scores, more):
    scores = np.array(scores)
    assert 0 <= confidence(scores) <= confidence(scores + more) <= 1
