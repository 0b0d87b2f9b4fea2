"""Spell numbers as lists of English words."""

from __future__ import annotations

import re

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = (
    (10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"),
    (100, "hundred"),
)  # fmt: skip
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
LARGEST = 10**15 - 1
"""The largest number that can be spelled."""


def cardinal(value: int) -> list[str]:
    """Spell a number without "and": 1234 is "one thousand two hundred thirty four".

    Raises:
        ValueError: the number is negative or larger than `LARGEST`.
    """
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{value} is outside 0 to {LARGEST}")
    for size, name in _SCALES:
        if value >= size:
            rest = value % size
            return [*cardinal(value // size), name, *(cardinal(rest) if rest else [])]
    if value < len(_ONES):
        return [_ONES[value]]
    return [_TENS[value // 10], *([_ONES[value % 10]] if value % 10 else [])]


def ordinal(value: int) -> list[str]:
    """Spell an ordinal: 21 is "twenty first".

    Raises:
        ValueError: the number is negative or larger than `LARGEST`.
    """
    return ordinal_of(cardinal(value))


def ordinal_of(words: list[str]) -> list[str]:
    """Make the ordinal of a number that is already in words."""
    last = words[-1]
    return [*words[:-1], _ORDINALS.get(last) or re.sub("y$", "ie", last) + "th"]


def digits(text: str) -> list[str]:
    """Spell digits one by one: "42" is "four two"."""
    return [_ONES[int(digit)] for digit in text]


def year(value: int) -> list[str]:
    """Spell a year of four digits: "nineteen oh five", "two thousand nine"."""
    century, rest = divmod(value, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(value)
    if rest == 0:
        return [*cardinal(century), "hundred"]
    return [*cardinal(century), *(["oh"] if rest < 10 else []), *cardinal(rest)]


def plural_of(words: list[str]) -> list[str]:
    """Put the last word into the plural: "nineties", "sixes", "hundreds"."""
    last = words[-1]
    ending = "ies" if last.endswith("y") else "es" if last.endswith("x") else "s"
    return [*words[:-1], re.sub("y$", "", last) + ending]
