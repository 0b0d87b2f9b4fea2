"""The CTC search: against every possible path, on planted paths, and on mismatched texts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from asr.align.ctc.trellis import NO_LABEL, STAR, STAR_PRICE, Symbols, Target, best_paths

BLANK, DELIMITER = 0, 1
SYMBOLS = Symbols(BLANK, DELIMITER)
N_COLUMNS = 6


def target(*words):
    """Make a target of words, given as tuples of labels."""
    labels = [label for word in words for label in word]
    opens = [place == 0 for word in words for place in range(len(word))]
    return Target(np.array(labels, np.intp), np.array(opens, bool))


def emission(columns, loud=0.9):
    """Give one column of each frame the probability `loud`; the others share the rest."""
    probabilities = np.full((len(columns), N_COLUMNS), (1 - loud) / (N_COLUMNS - 1))
    probabilities[np.arange(len(columns)), columns] = loud
    return np.log(probabilities)


def align(scores, goal, symbols=SYMBOLS):
    [path] = best_paths([scores], [goal], symbols)
    return None if path is None else path.tolist()


# --- against every path there is ------------------------------------------------------------------


def every_path(n_frames, labels):
    """List all paths that CTC allows, as the label index of each frame or NO_LABEL."""
    for path in itertools.product(range(NO_LABEL, len(labels)), repeat=n_frames):
        said = [index for index, _ in itertools.groupby(path)]
        spoken = [index for index in said if index != NO_LABEL]
        if spoken != list(range(len(labels))):
            continue
        pairs = itertools.pairwise(said)
        if all(NO_LABEL in pair or labels[pair[0]] != labels[pair[1]] for pair in pairs):
            yield path


def price(path, scores, goal, symbols):
    """Score a path directly by the rules."""
    total, passed = 0.0, 0
    for frame, index in enumerate(path):
        row = scores[frame] - scores[frame].max()
        if index != NO_LABEL:
            passed = index + 1
            total += -STAR_PRICE if goal.labels[index] == STAR else row[goal.labels[index]]
            continue
        beside = goal.labels[max(0, passed - 1) : passed + 1]
        is_edge = passed == len(goal.labels) or goal.opens_word[passed]
        if is_edge and STAR not in beside:
            between = [] if symbols.delimiter is None else [row[symbols.delimiter]]
            total += max(row[symbols.blank], -STAR_PRICE, *between)
        else:
            total += row[symbols.blank]
    return total


words = st.lists(st.sampled_from([STAR, 2, 3]), min_size=1, max_size=3).map(tuple)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(words, min_size=1, max_size=2).map(lambda some: target(*some)),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([DELIMITER, None]),
)
def test_no_path_is_better(goal, n_frames, seed, delimiter):
    symbols = Symbols(BLANK, delimiter)
    scores = np.random.default_rng(seed).normal(size=(n_frames, N_COLUMNS)) * 2
    paths = list(every_path(n_frames, goal.labels.tolist()))
    found = align(scores, goal, symbols)
    assert (found is None) == (not paths) == (goal.min_frames > n_frames)
    if paths:
        best = max(price(path, scores, goal, symbols) for path in paths)
        assert tuple(found) in paths
        assert price(found, scores, goal, symbols) == pytest.approx(best, abs=1e-4)


# --- planted paths --------------------------------------------------------------------------------


def planted(rng, n_labels, n_frames):
    """Make a random target and a random path through it."""
    labels = rng.integers(2, N_COLUMNS, n_labels)
    opens = rng.random(n_labels) < 0.3
    opens[0] = True
    runs, last = [], None
    for index, label in enumerate(labels):
        pause = rng.integers(1 if label == last else 0, 4)
        runs += [NO_LABEL] * int(pause) + [index] * int(rng.integers(1, 4))
        last = label
    runs += [NO_LABEL] * max(0, n_frames - len(runs))
    return Target(labels.astype(np.intp), opens), np.array(runs)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_planted_paths_are_found_exactly_in_batches_of_any_lengths(seed, sizes):
    rng = np.random.default_rng(seed)
    cases = [planted(rng, size, int(rng.integers(1, 300))) for size in sizes]
    scores = []
    for goal, path in cases:
        columns = np.where(path == NO_LABEL, BLANK, goal.labels[path])
        scores.append(emission(columns) + rng.normal(0, 0.3, (len(path), N_COLUMNS)))
    found = best_paths(scores, [goal for goal, _ in cases], SYMBOLS)
    for (_, path), row in zip(cases, found, strict=True):
        assert row.tolist() == path.tolist()


def test_a_long_chunk_crosses_blocks_and_bytes():
    goal, path = planted(np.random.default_rng(1), 500, 1500)
    columns = np.where(path == NO_LABEL, BLANK, goal.labels[path])
    assert align(emission(columns), goal) == path.tolist()


def test_equal_labels_need_blank_between():
    goal = target((2, 2))
    assert align(emission([2, 0, 2]), goal) == [0, NO_LABEL, 1]
    assert align(emission([2, 2, 2]), goal) == [0, NO_LABEL, 1]
    assert align(emission([2, 2]), goal) is None


def test_too_few_frames_affect_no_other_row():
    long, short = target((2, 3, 4)), target((2,))
    found = best_paths([emission([2, 3]), emission([0, 2])], [long, short], SYMBOLS)
    assert found[0] is None
    assert found[1].tolist() == [NO_LABEL, 0]
    assert best_paths([emission([2, 3])], [long], SYMBOLS) == [None]
    assert best_paths([], [], SYMBOLS) == []


def test_the_delimiter_occurs_only_in_gaps():
    columns = [2, 1, 1, 3]
    assert align(emission(columns), target((2,), (3,))) == [0, NO_LABEL, NO_LABEL, 1]
    assert align(emission(columns), target((2, 3))) != [0, NO_LABEL, NO_LABEL, 1]


# --- speech that the text lacks, and words that cannot be spelled ---------------------------------

MISSING = [4, 4, 0, 5, 4, 0, 5, 5]
PAUSE = [0, 0]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_speech_that_the_text_lacks_moves_no_word(place):
    spoken = [[2, 2, 0, 3], [3, 0, 2], [2, 3, 3]]
    goal = target((2, 3), (3, 2), (2, 3))
    expected = [[0, 0, -1, 1], [2, -1, 3], [4, 5, 5]]
    parts = [*spoken[:place], MISSING, *spoken[place:]]
    paths = [*expected[:place], [NO_LABEL] * len(MISSING), *expected[place:]]
    columns = [column for part in parts for column in [*PAUSE, *part]]
    path = [index for part in paths for index in [NO_LABEL] * len(PAUSE) + part]
    assert align(emission(columns), goal) == path


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_word_that_cannot_be_spelled_takes_its_sound(place):
    goal_words, spoken = [(2, 3), (3, 2)], [[2, 3], [3, 2]]
    goal = target(*goal_words[:place], (STAR,), *goal_words[place:])
    parts = [*spoken[:place], MISSING, *spoken[place:]]
    columns = [column for part in parts for column in [*PAUSE, *part]] + PAUSE
    begin = columns.index(4)
    star = [
        frame for frame, index in enumerate(align(emission(columns), goal)) if index == 2 * place
    ]
    assert star == list(range(begin, begin + len(MISSING)))


def test_a_star_inside_a_word():
    goal = target((2, STAR, 3))
    assert align(emission([0, 2, 5, 5, 3, 0]), goal) == [NO_LABEL, 0, 1, 1, 2, NO_LABEL]


def test_words_that_were_not_said_get_frames_too():
    path = align(emission([0, 2, 3, 0, 0, 0, 3, 2, 0]), target((2, 3), (4, 5), (3, 2)))
    assert sorted(set(path)) == [NO_LABEL, 0, 1, 2, 3, 4, 5]
    assert path[1:3] == [0, 1]
    assert path[6:8] == [4, 5]


def test_labels_of_probability_0_still_give_a_path():
    scores = np.full((4, N_COLUMNS), -np.inf)
    scores[:, BLANK] = 0.0
    assert align(scores, target((2, 3))) is not None
