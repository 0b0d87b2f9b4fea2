"""Word errors, compared with jiwer, and word-time errors; property tests and examples."""

from __future__ import annotations

import jiwer
from hypothesis import given, strategies as st

from asr.evaluation import (
    TimeScore,
    WordScore,
    score_times,
    score_words,
)
from asr.types import Word

texts = st.lists(st.sampled_from(["a", "b", "c", "d", "e"])).map(" ".join)
counts = st.integers(0, 1000)
word_scores = st.builds(WordScore, counts, counts, counts, counts)
seconds = st.floats(-5, 5)
time_scores = st.lists(st.tuples(seconds, seconds)).map(
    lambda pairs: TimeScore(len(pairs) + 1, tuple(s for s, _ in pairs), tuple(e for _, e in pairs))
)


def timed(text: str, start: float = 0.0, shift: float = 0.0) -> tuple[Word, ...]:
    """One word per half second, each 0.4 s long."""
    times = [start + shift + 0.5 * index for index in range(len(text.split()))]
    return tuple(Word(t, s, s + 0.4) for t, s in zip(text.split(), times, strict=True))


@given(texts)
def test_a_text_has_no_errors_against_itself(text):
    score = score_words(text, text)
    assert score == WordScore(hits=len(text.split()))
    assert score.wer == (0 if text else None)


@given(texts, texts)
def test_counts_agree_with_jiwer(reference, hypothesis):
    score, expected = score_words(reference, hypothesis), jiwer.process_words(reference, hypothesis)
    assert score == WordScore(
        expected.hits, expected.substitutions, expected.insertions, expected.deletions
    )
    if reference:
        assert score.wer == expected.wer >= 0
    else:
        assert score.wer is None
        assert score.insertions == len(hypothesis.split())


@given(word_scores, word_scores, word_scores)
def test_pooling_words_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).n_reference == a.n_reference + b.n_reference
    assert a + WordScore() == a


def test_empty_sides():
    assert score_words("", "") == WordScore()
    assert score_words("one two", "") == WordScore(deletions=2)
    assert score_words("one two", "").wer == 1
    assert score_words("...", "one two") == WordScore(insertions=2)
    assert (score_words("", "a b") + score_words("c d", "c d")).wer == 1


def test_spelling_of_numbers_and_case_is_no_error():
    assert score_words("TWENTY FIVE percent, Mr. O'Hara", "25% mister o’hara").wer == 0  # noqa: RUF001


@given(st.integers(-900, 900), st.integers(1, 20))
def test_planted_shifts_are_recovered(shift_ms, n):
    text = " ".join(f"w{index}" for index in range(n))
    shift = shift_ms / 1000
    score = score_times(timed(text, 1), timed(text, 1, shift))
    assert score == TimeScore(n, (shift,) * n, (shift,) * n)
    assert score.start_median == score.start_p95 == score.end_median == abs(shift)
    assert score.within(abs(shift)) == (1, 1)
    assert score.within(abs(shift) - 0.001) == (0, 0)


def test_starts_and_ends_are_counted_apart():
    reference = [Word("a", 1.0, 1.4), Word("b", 2.0, 2.4)]
    score = score_times(reference, [Word("a", 1.1, 1.9), Word("B.", 1.7, 2.4)])
    assert score.start_errors == (0.1, -0.3)
    assert score.end_errors == (0.5, 0.0)
    assert score.within(0.2) == (0.5, 0.5)
    assert (score.start_median, score.start_p95, score.end_median) == (0.1, 0.3, 0.0)


@given(st.sets(st.integers(0, 9), max_size=10))
def test_lost_words_lower_the_matched_share(lost):
    words = timed(" ".join(f"w{index}" for index in range(10)))
    heard = [Word("x", w.start, w.end) if i in lost else w for i, w in enumerate(words)]
    for hypothesis in (heard, [word for i, word in enumerate(words) if i not in lost]):
        score = score_times(words, hypothesis)
        assert score.n_reference == 10
        assert score.matched_share == (10 - len(lost)) / 10
        assert score.start_median == (None if len(lost) == 10 else 0)


def test_a_written_word_of_several_tokens():
    two = [Word("twenty", 1.0, 1.4), Word("five", 1.4, 1.8)]
    one = [Word("25,", 1.1, 2.0)]
    assert score_times([Word("25", 1.0, 1.8)], two) == TimeScore(1, (0.0,), (0.0,))
    assert score_times([Word("twenty-five", 1.0, 1.8)], one) == TimeScore(1, (0.1,), (0.2,))
    assert score_times(two, one) == TimeScore(2)
    assert score_times([Word("25", 1.0, 1.8)], two[:1]) == TimeScore(1)
    assert score_times(timed("105"), timed("one hundred five")).matched == 1
    assert score_times(timed("105"), timed("one thousand five")).matched == 0


def test_words_without_tokens_are_no_words():
    dash = Word("—", 0.1, 0.2)
    assert score_times([dash, *timed("a b", 1)], [dash, *timed("a b", 1)]).n_reference == 2
    assert score_times([], timed("a b")) == TimeScore()
    assert TimeScore().matched_share is None
    assert TimeScore().within() == (None, None)


@given(time_scores, time_scores, time_scores)
def test_pooling_times_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).matched == a.matched + b.matched
