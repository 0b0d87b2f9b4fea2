"""The search for the best path, with an artificial model for which the best path is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from asr.align.hmm.acoustics import STATES, Phones, Scores
from asr.align.hmm.lattice import FILLER, PAUSE, STRICT
from asr.align.hmm.lattice_builder import LatticeBuilder, Prices
from asr.align.hmm.pronounce import Lexicon
from asr.align.hmm.viterbi import background_scores, best_path
from asr.align.hmm.word_times import found_tokens

NAMES = ("SIL", "+NSN+", "+SPN+", "AH", "B", "K", "T")
WORDS = {"a": "AH", "bat": "B AH T", "cat": "K AH T", "tack": "T AH K"}
GOOD, BAD = 0.0, -6.0
STRICT_PRICES = Prices(STRICT, 0.0, STRICT, 0.0)
LENIENT = Prices(skip=20.0, skip_phone=5.0, filler=20.0, filler_frame=1.0)


@pytest.fixture(scope="module")
def phones():
    """Make phones without triphones: phone n has the senones 3n to 3n + 2."""
    half = np.full((len(NAMES), STATES), np.log(0.5), np.float32)
    sequences = np.arange(STATES * len(NAMES)).reshape(-1, STATES)
    owners = np.repeat(np.arange(len(NAMES)), STATES)
    no_triphones = np.full((4, *3 * (len(NAMES),)), -1)
    return Phones(NAMES, half, half, owners, np.arange(len(NAMES)), no_triphones, sequences)


@pytest.fixture(scope="module")
def builder(phones, tmp_path_factory):
    file = Path(tmp_path_factory.mktemp("lexicon"), "words.dict")
    file.write_text("\n".join(f"{word} {said}" for word, said in WORDS.items()), encoding="utf-8")
    return LatticeBuilder(phones, Lexicon(file))


def heard(sounds):
    """Score audio in which each phone of `sounds` lasts the given number of frames."""
    rows = []
    for name, n_frames in sounds:
        first = STATES * NAMES.index(name)
        for frame in range(n_frames):
            row = np.full(STATES * len(NAMES), BAD, np.float32)
            row[first + frame * STATES // n_frames] = GOOD
            rows.append(row)
    return Scores(np.arange(STATES * len(NAMES)), np.array(rows))


def say(word, n_frames=4):
    return [(name, n_frames) for name in WORDS[word].split()]


def search(builder, phones, words, sounds, prices=STRICT_PRICES, **options):
    spoken = [(((word,),),) for word in words]
    costs = heard(sounds)
    lattice = builder.build(spoken, prices)
    steps = best_path(lattice, costs, background_scores(phones, costs), **options)
    assert steps[0].start == 0
    assert [step.end for step in steps[:-1]] == [step.start for step in steps[1:]]
    assert steps[-1].end == len(costs)
    return steps


def places(steps, n_tokens):
    return [token and (token.start, token.end) for token in found_tokens(steps, n_tokens)]


def test_words_and_pauses_are_found_at_their_frames(builder, phones):
    sounds = [("SIL", 7), *say("bat"), *say("a", 5), ("SIL", 9), *say("tack", 6), ("SIL", 3)]
    steps = search(builder, phones, ["bat", "a", "tack"], sounds)
    assert places(steps, 3) == [(7, 19), (19, 24), (33, 51)]
    assert [step.arc.token for step in steps] == [PAUSE, 0, 1, PAUSE, 2, PAUSE]
    assert all(step.scores.mean() > -1 for step in steps)


def test_the_reading_that_fits_is_taken(builder, phones):
    spoken = [((("bat",), ("cat", "tack")),)]
    for words in (("bat",), ("cat", "tack")):
        costs = heard([sound for word in words for sound in say(word)])
        steps = best_path(
            builder.build(spoken, STRICT_PRICES), costs, background_scores(phones, costs)
        )
        assert len([step for step in steps if step.arc.token == 0]) == len(words)
        assert places(steps, 1) == [(0, len(costs))]


def test_a_word_that_was_not_said_is_skipped(builder, phones):
    sounds = [*say("bat"), *say("tack")]
    steps = search(builder, phones, ["bat", "cat", "tack"], sounds, LENIENT)
    assert places(steps, 3) == [(0, 12), None, (12, 24)]


def test_strict_prices_skip_only_words_without_enough_frames(builder, phones):
    sounds = [*say("bat", 6), *say("tack", 6)]
    steps = search(builder, phones, ["bat", "cat", "tack"], sounds)
    assert None not in places(steps, 3)
    short = [("B", 3), ("AH", 3), ("T", 4)]  # room for one word of three phones
    steps = search(builder, phones, ["bat", "cat", "tack"], short)
    assert [place is not None for place in places(steps, 3)].count(True) == 1


def test_speech_that_the_text_lacks_becomes_a_filler(builder, phones):
    sounds = [*say("bat"), *say("cat", 12), *say("tack")]
    steps = search(builder, phones, ["bat", "tack"], sounds, LENIENT)
    assert places(steps, 2) == [(0, 12), (48, 60)]
    fillers = [step for step in steps if step.arc.token == FILLER]
    assert (fillers[0].start, fillers[-1].end) == (12, 48)


def test_a_text_that_continues_after_the_audio(builder, phones):
    words = ["bat", "tack", "cat", "bat"]
    sounds = [*say("bat"), *say("tack")]
    steps = search(builder, phones, words, sounds, LENIENT, whole=False)
    assert places(steps, 4) == [(0, 12), (12, 24), None, None]


def test_no_frames(builder, phones):
    lattice = builder.build([(((("bat",),)),)], LENIENT)
    n_senones = STATES * len(NAMES)
    nothing = Scores(np.arange(n_senones), np.zeros((0, n_senones), np.float32))
    assert best_path(lattice, nothing, background_scores(phones, nothing)) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(WORDS)), st.integers(3, 9), st.integers(0, 8)),
             min_size=1, max_size=8)
)  # fmt: skip
def test_any_words_are_found_to_the_frame(builder, phones, plan):
    sounds, truth, frame = [], [], 0
    for word, n_frames, pause in plan:
        sounds += [*say(word, n_frames), *([("SIL", pause)] if pause else [])]
        length = n_frames * len(WORDS[word].split())
        truth.append((frame, frame + length))
        frame += length + pause
    steps = search(builder, phones, [word for word, _, _ in plan], sounds)
    assert places(steps, len(plan)) == truth
