"""Paths through a trellis as words with times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align.ctc.frames import FrameGrid
from asr.align.ctc.spelling import SpelledText
from asr.align.ctc.trellis import NO_LABEL, STAR, Target
from asr.align.ctc.word_times import place_words
from asr.types import ordered

GRID = FrameGrid(1600, 0)  # a tenth of a second


def place(texts, path, words, labels=None, confidence=0.8, duration=1.0):
    labels = np.array(words if labels is None else labels, np.intp)
    target = Target(labels, np.ones(len(words), bool))
    emission = np.log(np.full((len(path), 10), confidence))
    spelled = SpelledText(target, np.array(words, np.intp))
    return place_words(texts, spelled, np.array(path), emission, GRID, duration)


def times(words):
    return [(round(word.start, 6), round(word.end, 6)) for word in words]


def test_words_have_the_times_of_their_labels():
    words = place(["a", "b"], [-1, 0, 1, -1, 1, -1, 2, -1, -1, -1], [0, 0, 1])
    assert times(words) == [(0.1, 0.5), (0.6, 0.7)]
    assert [word.confidence for word in words] == pytest.approx([0.8, 0.8])
    assert {word.timing for word in words} == {"aligned"}


def test_words_without_labels_share_the_pause_by_their_letters():
    words = place(["-", "a", "bb", "...", "c", "!"], [-1, 0, -1, -1, -1, -1, 1, -1, -1, -1], [1, 4])
    assert times(words) == [
        (0, 0.1),
        (0.1, 0.2),
        (0.2, 0.466667),
        (0.466667, 0.6),
        (0.6, 0.7),
        (0.7, 1),
    ]
    timings = ["interpolated", "aligned", "interpolated", "interpolated", "aligned", "interpolated"]
    assert [word.timing for word in words] == timings
    assert [word.confidence is None for word in words] == [t == "interpolated" for t in timings]


def test_a_word_of_stars_has_times_but_no_confidence():
    words = place(["a", "42"], [0, -1, 1, 1, -1], [0, 1], labels=[3, STAR])
    assert times(words) == [(0, 0.1), (0.2, 0.4)]
    assert (words[1].timing, words[1].confidence) == ("interpolated", None)


def test_a_star_in_a_word_does_not_count_for_its_confidence():
    words = place(["a4"], [0, 1, 1, 1], [0, 0], labels=[3, STAR])
    assert (words[0].timing, words[0].confidence) == ("aligned", pytest.approx(0.8))


def test_no_word_ends_after_the_audio():
    words = place(["a", "-"], [0, 0, 0], [0], duration=0.25)
    assert times(words) == [(0, 0.25), (0.25, 0.25)]


@given(st.data())
def test_every_text_becomes_a_word_in_order(data):
    n_words = data.draw(st.integers(1, 8))
    spelled = sorted(data.draw(st.lists(st.integers(0, n_words - 1), min_size=1, max_size=10)))
    labels = data.draw(
        st.lists(st.sampled_from([STAR, 3]), min_size=len(spelled), max_size=len(spelled))
    )
    path = []
    for index in range(len(spelled)):
        path += [NO_LABEL] * data.draw(st.integers(0, 3)) + [index] * data.draw(st.integers(1, 3))
    duration = data.draw(st.floats(0.05, 5))
    words = place([f"w{i}" for i in range(n_words)], path, spelled, labels, duration=duration)
    assert [word.text for word in words] == [f"w{i}" for i in range(n_words)]
    ordered(words, 0, duration)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
