"""Word times interpolated from loudness: property test and examples, without a model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align.interpolate import interpolate
from asr.types import SAMPLE_RATE, Audio, Hypothesis
from tests.support import makers

HOP = 0.01

texts = st.lists(st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=12))


@st.composite
def audios(draw):
    """Generate noise of any length and loudness, with silent stretches."""
    n_samples = draw(st.integers(0, 3 * SAMPLE_RATE))
    level = draw(st.sampled_from([0.0, 1e-9, 1e-4, 0.3]))
    samples = makers.noise(n_samples / SAMPLE_RATE, level=level)
    for start, size in draw(st.lists(st.tuples(st.integers(0, 48_000), st.integers(0, 20_000)))):
        samples[start : start + size] = 0
    return Audio(samples)


@given(audios(), texts)
def test_every_text_becomes_a_word_in_order_inside_the_audio(audio, words):
    hypothesis = Hypothesis(3, "  ".join(words), avg_logprob=-0.5, warnings=("w",))
    timed = interpolate(audio, hypothesis)
    assert [word.text for word in timed.words] == words
    starts, ends = [w.start for w in timed.words], [w.end for w in timed.words]
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    assert all(0 <= w.start <= w.end <= audio.duration for w in timed.words)
    assert all(w.timing == "interpolated" and w.confidence is None for w in timed.words)
    assert (timed.chunk_index, timed.text) == (3, hypothesis.text)
    assert (timed.avg_logprob, timed.warnings) == (-0.5, ("w",))


def test_words_lie_where_it_is_loud():
    audio = Audio(makers.bursts(10, [(2, 3), (6, 7)]) + makers.noise(10, level=1e-3))
    timed = interpolate(audio, Hypothesis(0, "one two six ten"))
    starts = [word.start for word in timed.words]
    assert starts == pytest.approx([2, 2.5, 6, 6.5], abs=0.1)
    assert timed.words[1].end <= 3.02
    assert timed.words[3].end <= 7.02


def test_longer_words_get_more_time():
    timed = interpolate(Audio(makers.noise(6)), Hypothesis(0, "a four, sevenly -"))
    lengths = [word.end - word.start for word in timed.words]
    share = 6 / (1 + 4 + 7 + 1)  # letters; only a lone punctuation mark takes time
    assert lengths == pytest.approx([share, 4 * share, 7 * share, share], abs=4 * HOP)


def test_silence_is_filled_evenly():
    timed = interpolate(Audio(makers.silence(4)), Hypothesis(0, "aa bb cc dd"))
    assert [word.start for word in timed.words] == pytest.approx([0, 1, 2, 3], abs=HOP)


def test_no_words_no_times():
    hypothesis = Hypothesis(0, " \n ")
    assert interpolate(Audio(makers.noise(1)), hypothesis) is hypothesis


def test_the_confidences_of_the_engine_are_carried_over():
    hypothesis = Hypothesis(0, "one two", word_confidences=(0.25, 0.75), is_cut=True)
    timed = interpolate(Audio(makers.noise(1)), hypothesis)
    assert [word.confidence for word in timed.words] == [0.25, 0.75]
    assert timed.is_cut


def test_more_words_than_hops():
    audio = Audio(np.full(3 * SAMPLE_RATE // 100, 0.1, np.float32))
    timed = interpolate(audio, Hypothesis(0, "x " * 50))
    assert len(timed.words) == 50
    assert timed.words[-1].end == pytest.approx(audio.duration)
