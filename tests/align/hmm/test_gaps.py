"""Which gaps between words count as speech missing from the text; synthetic tones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align.hmm.acoustics import FRAME_SAMPLES
from asr.align.hmm.gaps import MIN_FRAMES, MIN_NATS, unwritten
from asr.align.hmm.lattice import FILLER, PAUSE, Arc
from asr.align.hmm.viterbi import Step
from asr.types import Audio

WORD = 60
"""Frames of a word."""
PITCHES = (150, 320, 550, 900, 1700, 3100)


def sounds(n_frames, pitches=PITCHES, level=0.2, seed=0):
    """Make tones of a tenth of a second each, with some noise."""
    random = np.random.default_rng(seed)
    time = np.arange(10 * FRAME_SAMPLES) / 16_000
    parts = [np.sin(2 * np.pi * random.choice(pitches) * time) for _ in range(-(-n_frames // 10))]
    samples = level * np.concatenate(parts)[: n_frames * FRAME_SAMPLES]
    return samples + random.normal(0, 1e-3, len(samples))


def quiet(n_frames):
    return sounds(n_frames, level=0.0)


def step(token, start, n_frames, score=0.0, n_states=9):
    return Step(Arc(0, 0, 0, n_states, token, 0.0, 0.0), start, np.full(n_frames, score))


def chunk(gap, score, kind=PAUSE, seeds=(1, 2)):
    """Make audio and path: five words, half a second of pause, `gap`, another pause, five words."""
    n_gap = len(gap) // FRAME_SAMPLES
    before, after = (sounds(5 * WORD, seed=seed) for seed in seeds)
    parts = [before, quiet(50), gap, quiet(50), after]
    steps = [step(token, token * WORD, WORD) for token in range(5)]
    place = 5 * WORD
    for what, n_frames, fit in ((PAUSE, 50, 0.3), (kind, n_gap, score), (PAUSE, 50, 0.3)):
        steps.append(step(what, place, n_frames, fit, n_states=1))
        place += n_frames
    steps += [step(token, place + (token - 5) * WORD, WORD) for token in range(5, 10)]
    return Audio(np.concatenate(parts).astype(np.float32)), steps


PHONES = [3] * 10


@pytest.mark.parametrize("kind", [PAUSE, FILLER])
def test_sound_similar_to_the_words_is_speech(kind):
    ((start, end),) = unwritten(*chunk(sounds(100), -1.0, kind), PHONES)
    assert start == pytest.approx(5 * WORD + 50, abs=10)
    assert end == pytest.approx(5 * WORD + 150, abs=10)


def test_frames_that_fit_a_pause_are_not_speech():
    assert unwritten(*chunk(sounds(100), 0.3), PHONES) == []


def test_quiet_frames_are_not_speech():
    assert unwritten(*chunk(quiet(100), -2.0, FILLER), PHONES) == []


def test_sound_unlike_the_words_is_not_speech():
    assert unwritten(*chunk(sounds(100, pitches=(5000,)), -2.0, FILLER), PHONES) == []


def test_a_short_sound_is_not_reported():
    assert unwritten(*chunk(sounds(MIN_FRAMES - 10), -2.0, FILLER), PHONES) == []


def test_skipped_words_account_for_speech():
    audio, steps = chunk(sounds(100), -1.0)
    without = [it for it in steps if it.arc.token != 5]
    assert unwritten(audio, without, [3] * 5 + [0] + [3] * 4)
    assert unwritten(audio, steps, PHONES)
    long_word = [step(it.arc.token + (it.arc.token >= 5), it.start, len(it.scores),
                      it.scores[0], it.arc.end) for it in steps]  # fmt: skip
    assert unwritten(audio, long_word, [3] * 5 + [12] + [3] * 5) == []


@pytest.mark.parametrize(("fit", "n_spans"), [(-3.0, 1), (0.5, 0)])
def test_only_a_word_that_fits_separates_gaps(fit, n_spans):
    audio, steps = chunk(sounds(100), -1.8)
    gap = steps[6]
    middle = [
        step(PAUSE, gap.start, 30, -1.8, n_states=1),
        step(5, gap.start + 30, 40, fit),
        step(PAUSE, gap.start + 70, 30, -1.8, n_states=1),
    ]
    later = [step(it.arc.token + 1, it.start, WORD) for it in steps[8:]]
    spans = unwritten(audio, [*steps[:6], *middle, steps[7], *later], [3] * 11)
    assert len(spans) == n_spans


def test_right_words_separate_two_mistakes():
    audio, steps = chunk(sounds(100), -1.8)
    later, more = chunk(sounds(100, seed=9), -1.8, seeds=(3, 4))
    more = [
        step(
            it.arc.token + 10 * (it.arc.token >= 0),
            it.start + steps[-1].end,
            len(it.scores),
            it.scores[0],
            it.arc.end,
        )
        for it in more
    ]
    twice = Audio(np.concatenate((audio.samples, later.samples)))
    first, second = unwritten(twice, [*steps, *more], PHONES * 2)
    assert first[1] < steps[8].start
    assert second[0] > more[4].end


def test_without_words_all_loud_frames_are_speech():
    audio, steps = chunk(sounds(100), -1.0)
    alone = [step(PAUSE, 0, steps[-1].end, -1.0, n_states=1)]
    ((start, end),) = unwritten(audio, alone, [])
    assert (start, end) == (pytest.approx(0, abs=10), pytest.approx(steps[-1].end, abs=10))


def test_no_steps_give_no_speech():
    assert unwritten(Audio(np.zeros(100, np.float32)), [], [3]) == []


@given(
    st.lists(
        st.tuples(st.sampled_from([PAUSE, FILLER, 0]), st.integers(1, 80), st.floats(-3, 1)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 3),
    st.integers(0, 30),
)
def test_speech_begins_and_ends_between_words(parts, seed, n_missing):
    steps: list[Step] = []
    for kind, n_frames, score in parts:
        token = sum(it.arc.token >= 0 for it in steps) if kind == 0 else kind
        start = steps[-1].end if steps else 0
        steps.append(step(token, start, n_frames, score, 9 if kind == 0 else 1))
    n_samples = max(1, (steps[-1].end - n_missing) * FRAME_SAMPLES)
    samples = sounds(steps[-1].end, seed=seed)[:n_samples] * (seed > 0)
    spans = unwritten(Audio(samples.astype(np.float32)), steps, [3] * len(parts))
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for start, end in spans:
        inside = [it for it in steps if it.start < end and it.end > start]
        assert inside[0].arc.token < 0
        assert inside[-1].arc.token < 0
        assert end - start >= MIN_FRAMES
        between = [it for it in inside if it.arc.token < 0]
        assert sum(np.minimum(it.scores, 0).sum() for it in between) <= -MIN_NATS
