"""Texts that differ from their recordings, judged by confidences and by what was heard."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from asr.align.letters import align_letters, letters_of, shares
from asr.align.longform import Plan
from asr.align.mismatch import (
    Mismatch,
    Span,
    compare,
    is_suspicious,
    joined,
    merged,
    without_trust,
)
from asr.types import Word

TEXT = "the old man lit a lamp on the hill above the quiet harbor every night for forty years"
OTHER = "purple elephants seldom juggle frozen tomatoes beside volcanic kitchens"


def words(text, confidence=0.98, start=0.0):
    texts = text.split()
    return [Word(t, start + i, start + i + 0.8, confidence, "aligned") for i, t in enumerate(texts)]


def test_a_text_that_was_said():
    assert compare(words(TEXT), words(TEXT), is_calibrated=True) == Mismatch()


def test_errors_of_the_recogniser_are_no_mismatch():
    heard = TEXT.replace("lamp", "lamb").replace("harbor", "harper").replace("forty", "40")
    assert compare(words(TEXT), words(heard), is_calibrated=True) == Mismatch()
    poor = TEXT.replace("old man lit", "gold mine elite")
    assert compare(words(TEXT), words(poor), is_calibrated=True) == Mismatch()


@pytest.mark.parametrize("confidence", [0.3, 0.93])
def test_inserted_words(confidence):
    left, right = words(TEXT), words(TEXT, start=30)
    wrong = words(OTHER, confidence, start=20)
    found = compare([*left, *wrong, *right], [*left, *right], is_calibrated=True)
    n = len(left)
    assert [(span.first, span.last) for span in found.unsaid] == [(n, n + len(wrong))]
    assert (found.unsaid[0].start, found.unsaid[0].end) == (20.0, 28.8)
    assert (found.unwritten, found.is_other) == ((), False)


def test_speech_that_the_text_lacks():
    left, right, more = words(TEXT), words(TEXT, start=30), words(OTHER, start=20)
    found = compare([*left, *right], [*left, *more, *right], is_calibrated=True)
    assert found == Mismatch((), ((20.0, 28.8),))


def test_other_words_in_the_place_of_those_said():
    left, right = words(TEXT), words(TEXT, start=30)
    said = words("nobody paid him anything because the council refused", start=20)
    found = compare(
        [*left, *words(OTHER, 0.9, 20), *right], [*left, *said, *right], is_calibrated=False
    )
    (span,) = found.unsaid
    assert span.first >= len(left)
    assert span.last == len(left) + len(OTHER.split())
    (missing,) = found.unwritten
    assert missing[0] < 22
    assert missing[1] > 26


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_the_text_of_another_recording(is_calibrated):
    found = compare(words(OTHER, 0.9), words(TEXT), is_calibrated=is_calibrated)
    assert found.is_other
    assert found.unsaid == (Span(0, 9, 0.0, 8.8),)
    assert found.unwritten


def test_a_short_text_that_occurs_by_chance_in_a_long_recording():
    """Each word is heard somewhere, but not near the others."""
    heard = words(
        "ten more people came then most of them left and two clubs were closed again soon"
    )
    found = compare(words("ten of clubs", 0.6), heard, is_calibrated=True)
    assert found.is_other


def test_without_a_recogniser_the_aligner_decides():
    low = [*words(TEXT), *words(OTHER, 0.1, 20)]
    assert compare(low, None, [(3.0, 4.0)], is_calibrated=True).unwritten == ((3.0, 4.0),)
    assert [span.last for span in compare(low, None, is_calibrated=True).unsaid] == [len(low)]
    assert compare(low, None, is_calibrated=False) == Mismatch()


def test_a_gap_counts_only_if_words_were_heard_in_it():
    said = words(TEXT)
    assert compare(said, said, [(3.0, 4.0)], is_calibrated=True).unwritten == ()
    heard = [*said[:4], Word("actually", 3.85, 3.95), *said[4:]]
    assert compare(said, heard, [(3.8, 4.0)], is_calibrated=True).unwritten == ((3.8, 4.0),)


def test_when_the_recogniser_is_asked():
    assert not is_suspicious(words(TEXT), is_calibrated=True)
    assert is_suspicious([*words(TEXT), *words("not said", 0.2, 20)], is_calibrated=True)
    assert not is_suspicious([*words(TEXT), *words("§", None, 20)], is_calibrated=True)
    assert is_suspicious(words("大 家 早 上 好", None), is_calibrated=True)
    mixed = [*words("good morning"), *words("大 家 早 上 好", None, 2), *words(TEXT, start=7)]
    assert is_suspicious(mixed, is_calibrated=True)
    assert not is_suspicious(words(TEXT, 0.9), is_calibrated=False)
    assert is_suspicious(words(TEXT, 0.5), is_calibrated=False)
    assert is_suspicious(words(TEXT, None), is_calibrated=False)


def test_a_text_in_a_script_that_the_aligner_cannot_read():
    heard = words("good morning everyone and thank you for coming")
    whole = compare(words("大 家 早 上 好 谢 谢 大 家", None), heard, is_calibrated=True)
    assert whole.is_other
    assert [(span.first, span.last) for span in whole.unsaid] == [(0, 9)]
    text = [*words("good morning everyone"), *words("大 家 早 上 好", None, 3)]
    part = compare([*text, *words("and thank you for coming", start=8)], heard, is_calibrated=True)
    assert not part.is_other
    assert [(span.first, span.last) for span in part.unsaid] == [(3, 8)]


def test_findings_of_the_plan_are_added_once():
    text = words(TEXT)
    plan = Plan((), {}, (), unsaid=((2, 5), (9, 10)), unwritten=((1.0, 2.0),))
    found = joined(Mismatch((Span(4, 7, 0, 0),), ((1.5, 3.0), (9.0, 9.5))), plan, text)
    assert found.unsaid == (Span(2, 7, 2.0, 6.8), Span(9, 10, 9.0, 9.8))
    assert found.unwritten == ((1.0, 3.0), (9.0, 9.5))
    marked = without_trust(text, found.unsaid)
    assert [word.confidence for word in marked[1:4]] == [0.98, 0.05, 0.05]
    assert [word.timing for word in marked[6:8]] == ["interpolated", "aligned"]
    assert [(word.start, word.text) for word in marked] == [
        (word.start, word.text) for word in text
    ]


def test_letters_are_those_read_aloud():
    assert letters_of(["Forty-two,", "42", "Café", "—", "你好"]) == [
        "fortytwo", "fortytwo", "cafe", "", "你好",
    ]  # fmt: skip
    ours, theirs = shares(
        ["we", "had", "42", "guests", "in", "crease"], words("we had forty two guests increase")
    )
    assert all(found == n for found, n in ours + theirs)


@settings(max_examples=50)
@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_letters_are_aligned_in_order(left, right):
    pairs = align_letters(left, right)
    assert all(left[i] == right[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert len(align_letters(left, left)) == len(left)


def test_spans_that_nearly_touch_are_one():
    assert merged([(5.0, 6.0), (1.0, 2.0), (2.3, 3.0)]) == [(1.0, 3.0), (5.0, 6.0)]
