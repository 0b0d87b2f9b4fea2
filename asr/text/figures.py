"""Readings of numbers, sums of money, dates and times, in English.

The likeliest reading comes first.
"""

from __future__ import annotations

import re
from typing import Final

from asr.text.abbreviations import ABBREVIATIONS, MONEY, SCALES, Reading
from asr.text.numerals import LARGEST, cardinal, digits, ordinal, ordinal_of, plural_of, year

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_FRACTIONS: Final = {2: "half|halves", 3: "third|thirds", 4: "quarter|quarters|fourth|fourths"}


def number(text: str) -> list[Reading]:
    """List the readings of digits with commas or full stops between them."""
    plain = text.replace(",", "")
    whole, *parts = plain.split(".")
    if len(parts) == 1:
        said = [
            (*reading, "point", *tail) for reading in _integer(whole) for tail in _digits(parts[0])
        ]
        short = [("point", *tail) for tail in _digits(parts[0])] if whole == "0" else []
        pairs = [(*cardinal(int(whole)), *cardinal(int(parts[0])))] if len(plain) < 6 else []
        return [*said[:4], *short, *map(tuple, pairs)]
    if parts:  # a version or an address
        rows = [
            [(*cardinal(int(part)),) if len(part) < 4 else tuple(digits(part))] for part in parts
        ]
        joined = [
            tuple(word for row in rows for word in (sign, *row[0]) if word)
            for sign in ("point", "dot", "")
        ]
        return [(*first, *rest) for first in _integer(whole)[:2] for rest in joined]
    return _integer(whole, is_grouped="," in text)


def _digits(text: str) -> list[Reading]:
    said = tuple(digits(text))
    return [
        said,
        *([tuple("oh" if word == "zero" else word for word in said)] if "0" in text else []),
    ]


def _integer(text: str, *, is_grouped: bool = False) -> list[Reading]:
    value = int(text)
    if (text[0] == "0" and len(text) > 1) or value > LARGEST:
        return _digits(text)
    said = cardinal(value)
    readings = [tuple(said)]
    if value >= 100 and (value % 100 or value % 1000):
        readings.append(_with_and(value))
    if is_grouped:
        return readings
    if len(text) == 4:
        read = [tuple(year(value)), (*cardinal(value // 100), *cardinal(value % 100))]
        readings = (
            [*read[: 1 + (value % 100 > 9)], *readings]
            if 1100 <= value <= 2099
            else [*readings, *read]
        )
        if 2000 <= value < 2010:
            readings.append(("twenty", "oh", *cardinal(value % 100)))
    if len(text) == 3 and value % 100:
        tail = cardinal(value % 100)
        readings.append((*cardinal(value // 100), *(tail if value % 100 > 9 else ["oh", *tail])))
    if value >= 100 and said[0] == "one":
        readings.append(("a", *said[1:]))
    return [*readings, *(_digits(text) if len(text) > 1 else [])]


def _with_and(value: int) -> Reading:
    """Read a number as in British English, with "and" before the tens."""
    said, tail = cardinal(value), cardinal(value % 100)
    if value < 100 or value % 100 == 0:
        return tuple(said)
    return (*said[: len(said) - len(tail)], "and", *tail)


def figure(core: str, before: str, after: str) -> list[Reading] | None:
    """List the readings of a number, date, time or sum of money.

    Args:
        core: the token without punctuation around it.
        before: the token before it.
        after: the token after it; a number next to a month is read as a day.

    Returns:
        None for a token of another kind.
    """
    for pattern, say in _FIGURES:
        found = pattern.fullmatch(core)
        if found is not None:
            readings = say(found)
            if pattern is _BARE and (_is_month(before.lower()) or _is_month(after)):
                day = int(found[0])
                readings += [tuple(ordinal(day)), ("the", *ordinal(day))]
            return readings
    return None


def _is_month(token: str) -> bool:
    word = token.strip(".,;")
    return word in _MONTHS or ABBREVIATIONS.get(word, "").split("|")[0] in _MONTHS


def _money(found: re.Match[str]) -> list[Reading]:
    unit, cent = MONEY[found["unit"]]
    units = (unit if unit == "yen" else unit + "s", unit)
    plain = found["whole"].replace(",", "")
    part, scale = found["part"] or "", (found["scale"] or "").lower()
    if scale:
        some = number(f"{plain}.{part}" if part else plain)[:3]
        ends = ((units[0],), (), (unit,))
        return [(*said, SCALES[scale], *end) for said in some for end in ends]
    whole = _integer(plain, is_grouped=True)
    if len(part) != 2 or int(part) == 0:
        said = number(f"{plain}.{part}") if part.strip("0") else whole
        ends = ((units[plain == "1"],), (), (units[0],))
        return [(*words, *end) for words in said for end in ends]
    cents = tuple(cardinal(int(part)))
    name = {"penny": "pence"}.get(cent, cent + "s") if int(part) > 1 else cent
    head = (*whole[0], units[plain == "1"])
    tails = [("and", *cents, name), (*cents, name), cents, ("and", *cents)]
    alone = [(*cents, name)] if plain == "0" else []
    return [
        *alone,
        *(head + tail for tail in tails),
        (*whole[0], *cents),
        (*whole[0], "point", *digits(part), units[0]),
    ]


def _ordinal(found: re.Match[str]) -> list[Reading]:
    value = int(found[1].replace(",", ""))
    if value > LARGEST:
        return _digits(found[1])
    said = ordinal(value)
    tail = ordinal_of(list(_with_and(value)))
    return [tuple(said), ("the", *said), tuple(tail)]


def plural(found: re.Match[str]) -> list[Reading]:
    """List the readings of a plural number, such as a decade; group 1 matched its digits."""
    text = found[1]
    value = int(text)
    if len(text) > 6:
        return _digits(text)
    said = [
        plural_of(year(value)) if len(text) == 4 and value >= 1000 else plural_of(cardinal(value))
    ]
    if text == "00":
        said = [["two", "thousands"], ["aughts"]]
    return [*map(tuple, said), tuple(plural_of(cardinal(value)))]


def _clock(found: re.Match[str]) -> list[Reading]:
    hour, minute = int(found[1]), int(found[2])
    half = tuple(f"{letter}." for letter in (found["half"] or "").lower() if letter.isalpha())
    hours = [tuple(cardinal(hour)), *([tuple(cardinal(hour - 12))] if hour > 12 else [])]
    if minute == 0:
        tails = [("o'clock",), (), ("hundred",), ("hundred", "hours")]
    elif minute < 10:
        tails = [("oh", *cardinal(minute)), ("zero", *cardinal(minute))]
    else:
        tails = [tuple(cardinal(minute))]
    if minute == 0 and half:
        tails = [(), ("o'clock",)]
    seconds = found["seconds"]
    more = (
        [tuple(cardinal(int(seconds))), ("and", *cardinal(int(seconds)), "seconds")]
        if seconds
        else [()]
    )
    return [(*h, *t, *s, *half) for h in hours for t in tails for s in more]


def _date(found: re.Match[str]) -> list[Reading]:
    """Read 3/14/2023 as month and day, as day and month, and as plain numbers."""
    first, second, last = int(found[1]), int(found[2]), found[3]
    years = (
        [tuple(year(int(last))), tuple(cardinal(int(last)))]
        if len(last) == 4
        else _integer(str(int(last)))[:1]
    )
    readings = []
    for month, day in ((first, second), (second, first)):
        if 1 <= month <= 12 and 1 <= day <= 31:
            name = _MONTHS[month - 1]
            heads = [
                (name, *ordinal(day)),
                (name, *cardinal(day)),
                ("the", *ordinal(day), "of", name),
            ]
            readings += [(*head, *years[0]) for head in heads]
    bare = [(*cardinal(first), *cardinal(second), *end) for end in years]
    slashed = (*cardinal(first), "slash", *cardinal(second), "slash", *years[0])
    return [*readings, *bare, slashed]


def _iso_date(found: re.Match[str]) -> list[Reading]:
    value, month, day = (int(part) for part in found.groups())
    named = []
    if 1 <= month <= 12:
        name = _MONTHS[month - 1]
        named = [
            (name, *ordinal(day), *year(value)),
            (*year(value), name, *ordinal(day)),
            ("the", *ordinal(day), "of", name, *year(value)),
        ]
    month_said, day_said = (
        ["oh", *cardinal(part)] if part < 10 else cardinal(part) for part in (month, day)
    )
    return [
        *named,
        (*year(value), *month_said, *day_said),
        (*year(value), *cardinal(month), *cardinal(day)),
    ]


def _fraction(found: re.Match[str]) -> list[Reading]:
    over, under = int(found[2]), int(found[3])
    whole = [(*cardinal(int(found[1])), "and")] if found[1] else [()]
    names = _FRACTIONS.get(under)
    units = (
        [tuple(n.split()) for n in names.split("|")]
        if names
        else [tuple(plural_of(ordinal(under))), tuple(ordinal(under))]
    )
    heads = [tuple(cardinal(over)), *([("a",)] if over == 1 else [])]
    said = [(*w, *h, *u) for w in whole for h in heads for u in units]
    bare = (
        []
        if found[1]
        else [
            (*cardinal(over), *middle, *cardinal(under))
            for middle in ((), ("slash",), ("over",), ("out", "of"), ("of",))
        ]
    )
    return [*said[:6], *bare]


def _phone_number(found: re.Match[str]) -> list[Reading]:
    return _digits(re.sub(r"\D", "", found[0]))


_BARE: Final = re.compile(r"\d{1,2}")
_SUM: Final = re.compile(
    r"(?P<unit>[$€£¥])(?P<whole>\d[\d,]{0,18})(?:\.(?P<part>\d{1,6}))?"
    r"(?P<scale>[kmb]|bn|mn|tn|million|billion|trillion)?",
    re.IGNORECASE,
)
_TIME: Final = re.compile(
    r"([01]?\d|2[0-4])[:.](\d\d)(?::(?P<seconds>\d\d))?(?P<half>[ap]\.?m\.?)", re.IGNORECASE
)
_FIGURES: Final = (
    (_BARE, lambda found: _integer(found[0])),
    (_SUM, _money),
    (re.compile(r"(\d[\d,]{0,14})(?:st|nd|rd|th)", re.IGNORECASE), _ordinal),
    (re.compile(r"'?(\d{1,4})'?s"), plural),
    (_TIME, _clock),
    (re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::(?P<seconds>\d\d))?(?P<half>)"), _clock),
    (re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d\d)"), _date),
    (re.compile(r"(\d{4})-(\d\d)-(\d\d)"), _iso_date),
    (re.compile(r"(?:(\d{1,3})[- ])?(\d{1,3})/([1-9]\d{0,2})"), _fraction),
    (re.compile(r"\+?(?:\d{1,2}[-.])?\(?\d{3}\)?[-.]\d{3}[-.]\d{4}|\d{3}-\d{4}"), _phone_number),
)  # fmt: skip
