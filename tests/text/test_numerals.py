"""Numbers as English words: examples."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.text.numerals import LARGEST, cardinal, ordinal, plural_of, year


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (1_234, "one thousand two hundred thirty four"),
        (2_000_006, "two million six"),
        (999_000_000_000_005, "nine hundred ninety nine trillion five"),
    ],
)
def test_cardinals(value, words):
    assert " ".join(cardinal(value)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "first"),
        (12, "twelfth"),
        (20, "twentieth"),
        (83, "eighty third"),
        (100, "one hundredth"),
    ],
)
def test_ordinals(value, words):
    assert " ".join(ordinal(value)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1905, "nineteen oh five"),
        (1900, "nineteen hundred"),
        (2000, "two thousand"),
        (2009, "two thousand nine"),
        (2010, "twenty ten"),
        (1066, "ten sixty six"),
    ],
)
def test_years(value, words):
    assert " ".join(year(value)) == words


def test_plurals():
    assert plural_of(["nineteen", "eighty"]) == ["nineteen", "eighties"]
    assert plural_of(["six"]) == ["sixes"]
    assert plural_of(["two", "hundred"]) == ["two", "hundreds"]


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_out_of_range(value):
    with pytest.raises(ValueError, match=str(value)):
        cardinal(value)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_different_numbers_sound_different(one, other):
    assert (cardinal(one) == cardinal(other)) == (one == other)
