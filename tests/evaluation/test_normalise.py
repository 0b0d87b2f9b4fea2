"""Normalising text to the tokens that are scored; examples and property tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from asr.evaluation import (
    normalise,
)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello, World!", "hello world"),
        ("O’Neil's dogs' 'tis", "o'neil's dogs tis"),  # noqa: RUF001
        ("cold-hearted man — well", "cold hearted man well"),
        ("data\u00adbase \u0915\u094d\u200d\u0937 a\u200bb", "database \u0915\u094d\u0937 a b"),
        ("Mr. & Mrs. Smith vs Dr. X, etc.", "mister and missus smith versus doctor x et cetera"),
        ("the U.S., at 5 p.m., AT&T", "the us at five pm at and t"),
        ("ﬁne Straße", "fine strasse"),
        ("0 7 13 20 42", "zero seven thirteen twenty forty two"),
        ("100 105 1,234", "one hundred one hundred five one thousand two hundred thirty four"),
        ("10000 1,000,000", "ten thousand one million"),
        ("2,000,000,001", "two billion one"),
        ("3.14 0.05 -3.5", "three point one four zero point zero five minus three point five"),
        ("1st 2nd 3rd 4th", "first second third fourth"),
        ("12th 20th 21st 100th", "twelfth twentieth twenty first one hundredth"),
        ("50% 2.5%", "fifty percent two point five percent"),
        ("$1 $3.50 $2.5", "one dollar three dollars fifty cents two point five dollars"),
        ("1984 1905 1900", "nineteen eighty four nineteen oh five nineteen hundred"),
        ("2005 2024", "two thousand five twenty twenty four"),
        ("007 5551234", "zero zero seven five five five one two three four"),
        ("1,000,000,000,000", "one" + 12 * " zero"),
        ("5-6 10:30", "five six ten thirty"),
        ("mp3 4k 1980s", "mp3 4k 1980s"),
        ("... — !", ""),
    ],
)  # fmt: skip
def test_normalise(written, spoken):
    assert normalise(written) == spoken.split()


@given(st.text() | st.from_regex(r"[-$]?[0-9,.]{1,20}(st|th|%)?", fullmatch=True))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(" ".join(once)) == once


def test_a_number_of_any_length_has_words():
    assert len(normalise("9" * 10_000)) == 10_000


@settings(max_examples=200)
@given(st.integers(0, 10**12 - 1))
def test_spoken_numbers_can_be_read_back(value):
    def meaning(words: list[str]) -> int:
        total = part = 0
        scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
        for word in words:
            if word in scales:
                total, part = total + part * scales[word], 0
            elif word == "hundred":
                part *= 100
            else:
                part += ones[word]
        return total + part

    teens = {" ".join(normalise(str(n))): n for n in range(20)}
    ones = teens | {normalise(str(n))[0]: n for n in range(20, 100, 10)}
    assert meaning(normalise(f"{value:,}")) == value
