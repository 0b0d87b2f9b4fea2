"""Written tokens to what people say when they read them. Pure, English.

A token becomes slots that are said one after another, each with its possible readings: "$3.50" can
be "three dollars and fifty cents", "three dollars fifty", "three fifty". The likeliest comes first,
and the aligner takes what fits the audio. What depends on the neighbours ("$2 million", "March 3",
"5 km") looks at them. Every word is lower-case ASCII; "b." is the name of a letter.

A token without any letter, digit or symbol that is read has no slots. One that cannot be read in
English (other scripts, 500 letters in a row) is `UNREADABLE`: something was said, nobody knows how.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from asr.numerals import LARGEST, cardinal, digits, ordinal, ordinal_of, plural_of, year

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

Reading = tuple[str, ...]
Slot = tuple[Reading, ...]

UNREADABLE: Final[tuple[Slot, ...]] = (((),),)
MAX_READINGS: Final = 12
"""Of a slot."""
MAX_TOKEN: Final = 200
MAX_RUN: Final = 40
"""Letters, or digits, in a row; longer ones are no words."""

_ABBREVIATIONS: Final[dict[str, str]] = {
    "mr": "mister", "mrs": "missus", "ms": "miz|miss", "dr": "doctor|drive", "st": "saint|street",
    "vs": "versus", "etc": "et cetera", "prof": "professor", "jr": "junior", "sr": "senior",
    "mt": "mount", "ave": "avenue", "blvd": "boulevard", "dept": "department", "inc": "incorporated|ink",
    "ltd": "limited", "corp": "corporation", "co": "company|koh", "gov": "governor", "gen": "general",
    "sen": "senator", "rep": "representative", "capt": "captain", "lt": "lieutenant", "col": "colonel",
    "sgt": "sergeant", "rev": "reverend", "hon": "honorable", "approx": "approximately",
    "e.g": "e. g.|for example", "i.e": "i. e.|that is", "a.m": "a. m.", "p.m": "p. m.", "no": "number|no",
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june", "jul": "july",
    "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november",
    "dec": "december", "mon": "monday", "tue": "tuesday", "wed": "wednesday", "thu": "thursday",
    "fri": "friday", "sat": "saturday|sat", "sun": "sunday|sun", "fig": "figure", "vol": "volume",
    "ch": "chapter", "pp": "pages", "ed": "edition|ed", "est": "established|e. s. t.",
}  # fmt: skip
_PLAIN: Final[dict[str, str]] = {
    "mr": "mister", "mrs": "missus", "dr": "doctor|drive", "vs": "versus|v. s.", "etc": "et cetera",
    "w/": "with", "w/o": "without", "ok": "okay", "phd": "p. h. d.", "wifi": "why fie", "gonna": "gonna",
}  # fmt: skip
_UNITS: Final[dict[str, str]] = {
    "km": "kilometers|k. m.|kilometer", "m": "meters|million|meter|m.", "cm": "centimeters|centimeter",
    "mm": "millimeters|millimeter", "kg": "kilograms|kilos|kilogram", "g": "grams|gram|g.",
    "mg": "milligrams|milligram", "lb": "pounds|pound", "lbs": "pounds", "oz": "ounces|ounce",
    "ft": "feet|foot", "in": "inches|inch|in", "yd": "yards", "mi": "miles|mile", "mph": "miles per hour|m. p. h.",
    "kph": "kilometers per hour", "km/h": "kilometers per hour|kilometers an hour", "hz": "hertz",
    "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz|gigs", "kb": "kilobytes|k. b.",
    "mb": "megabytes|megs|megabyte|m. b.", "gb": "gigabytes|gigs|gigabyte|g. b.", "tb": "terabytes|terabyte|t. b.",
    "ms": "milliseconds|millisecond", "s": "seconds|second|s.", "sec": "seconds|second", "min": "minutes|minute",
    "h": "hours|hour", "hr": "hours|hour", "hrs": "hours", "kw": "kilowatts", "kwh": "kilowatt hours",
    "w": "watts|watt", "v": "volts|volt", "l": "liters|liter", "ml": "milliliters", "k": "thousand|k.",
    "bn": "billion", "b": "billion|b.", "t": "trillion|t.", "x": "times|x.|by", "am": "a. m.", "pm": "p. m.",
    "%": "percent", "°": "degrees", "°c": "degrees celsius|degrees|degrees c.", "°f": "degrees fahrenheit|degrees|degrees f.",
    "db": "decibels|d. b.", "c": "degrees celsius|c.|celsius", "f": "degrees fahrenheit|f.|fahrenheit", "p": "p.",
    "ad": "a. d.", "bc": "b. c.", "+": "plus", "'": "feet|foot|", '"': "inches|inch|",
}  # fmt: skip
_SYMBOLS: Final[dict[str, str]] = {
    "&": "and|ampersand", "+": "plus|and", "=": "equals|is", "@": "at", "%": "percent", "°": "degrees|degree",
    "×": "times|by", "÷": "divided by", "<": "less than", ">": "greater than", "€": "euros|euro",
    "£": "pounds|pound", "$": "dollars|dollar", "#": "number|hashtag|pound|hash", "*": "|star|times",
    "/": "|slash|or|per", "-": "|minus|dash|to|hyphen", "_": "|underscore", ".": "|dot|point",
    "~": "|about|tilde", ":": "|colon|to", "\\": "|backslash", "^": "|to the", "|": "|bar", "§": "section",
    "©": "copyright|", "®": "|registered", "™": "|trademark", "√": "root", "π": "pi", "µ": "micro",
    "?": "|question mark", "\u2212": "minus|",
}  # fmt: skip
_MONEY: Final = {
    "$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", "yen"),
}  # fmt: skip
_SCALES: Final = {
    "k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion",
    "tn": "trillion", "thousand": "thousand", "million": "million", "billion": "billion",
    "trillion": "trillion",
}  # fmt: skip
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_ROMAN: Final = re.compile(r"(?=[IVX])(X{0,3})(IX|IV|V?I{0,3})")
_FRACTIONS: Final = {2: "half|halves", 3: "third|thirds", 4: "quarter|quarters|fourth|fourths"}
_LETTERS: Final = str.maketrans({
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i",
    "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "\u2018": "'", "\u2019": "'", "\u02bc": "'",
    "\u2044": "/", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-",
})  # fmt: skip


def spoken(tokens: Sequence[str], known: Container[str]) -> list[tuple[Slot, ...]]:
    """What is said for each token.

    Args:
        tokens: in the order of the text.
        known: words that can be pronounced as such, so that NASA need not be spelled.

    Returns:
        The slots of each token: none if it is not said, `UNREADABLE` if nobody can tell.
    """
    around = ["", *tokens, ""]
    return [
        _Token(before, token, after, known).slots()
        for before, token, after in zip(around, tokens, around[2:], strict=False)
    ]


def _plain(token: str) -> str:
    """The token in ASCII where it is Latin, without accents."""
    parted = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", "-", token)  # 5\u00bd is 5-1/2
    marked = unicodedata.normalize("NFKD", parted.translate(_LETTERS)).translate(_LETTERS)
    return "".join(sign for sign in marked if not unicodedata.combining(sign))


def _options(text: str) -> list[Reading]:
    """ "a b|c" is two readings."""
    return [tuple(option.split()) for option in text.split("|")]


class _Token:
    """One token with its neighbours."""

    def __init__(self, before: str, token: str, after: str, known: Container[str]) -> None:
        self._before = _plain(before[-MAX_TOKEN:])
        self._text = _plain(token[: MAX_TOKEN + 1])
        self._after = _plain(after[:MAX_TOKEN]).lower()
        self._known = known

    def slots(self) -> tuple[Slot, ...]:
        text = self._text
        if len(text) > MAX_TOKEN or re.search(rf"[^\W\d_]{{{MAX_RUN},}}|\d{{{MAX_RUN},}}", text):
            return UNREADABLE
        if any(sign.isalpha() and not sign.isascii() and sign not in _SYMBOLS for sign in text):
            return UNREADABLE
        core = re.sub(r"\A[^\w$€£¥#@&+\u2212°~.%=×<>-]+|[^\w%°+'\"&=$€£#*]+\Z", "", text)
        whole = self._whole(core.rstrip("'\"*") or core)
        if whole is not None:
            return (_limited(whole),) if any(whole) else ()
        return _fold(self._runs(core))

    def _whole(self, core: str) -> list[Reading] | None:
        """Readings of tokens that mean something as a whole; None for all others."""
        if not any(sign.isalnum() for sign in core):
            signs = [sign for sign in core or self._text if sign in _SYMBOLS]
            is_dash = signs == ["-"] and not self._after[:1].isdigit()
            return _options(_SYMBOLS[signs[0]]) if len(signs) == 1 and not is_dash else [()]
        lower = core.lower()
        dotted = self._text.rstrip(",;:!?)").endswith(".") or "." in core
        table = _ABBREVIATIONS if dotted else _PLAIN
        if (key := lower.rstrip(".")) in table and not core.isupper():
            return [*_options(table[key]), *([(key,)] if key in self._known else [])]
        if re.search(r"\d\W*\Z", self._before) and lower.rstrip(".") in _UNITS:
            return _options(_UNITS[lower.rstrip(".")])
        if core.rstrip(".").isupper() and (found := self._roman(core.rstrip("."))):
            return found
        if lower in _SCALES and re.search(r"\A[$€£¥]", self._before):
            unit = _MONEY[self._before[0]][0]
            return [(lower, unit + "s"), (lower,), (lower, unit)]
        return _number_token(core, self._before, self._after)

    def _roman(self, core: str) -> list[Reading] | None:
        if core == "I" or (found := _ROMAN.fullmatch(core)) is None:
            return None
        units = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX").index(found[2])
        value = 10 * len(found[1]) + units
        spelled = tuple(letter + "." for letter in core.lower())
        return [tuple(cardinal(value)), ("the", *ordinal(value)), spelled]

    def _runs(self, core: str) -> list[list[Reading]]:
        """Readings of the runs of letters, digits and symbols that a token is made of."""
        core = re.sub(r"\A(https?|ftp)://", "", core, flags=re.IGNORECASE)
        pattern = r"\d{2,4}'?s(?![A-Za-z])|\d+(?:[.,]\d+)*|[A-Za-z]+(?:'[A-Za-z]+)*'?|(?:(?<=[A-Za-z])\.(?=[A-Za-z]))|[^\w\s]|_"
        runs = re.findall(pattern, core)
        return [self._run(runs, place) for place in range(len(runs))]

    def _run(self, runs: list[str], place: int) -> list[Reading]:
        run = runs[place]
        before = runs[place - 1] if place else ""
        if run[0].isdigit():
            decade = re.fullmatch(r"(\d+)'?s", run)
            return _plural(decade) if decade else _number(run)
        if not run[0].isalpha():
            return self._sign(runs, place)
        if (before[:1].isdigit() or before == "°") and run.lower() in _UNITS:
            return [*_options(_UNITS[run.lower()]), *self._letters(run)]
        if re.fullmatch("st|nd|rd|th", run) and before.isdigit():
            return [()]
        return self._letters(run)

    def _sign(self, runs: list[str], place: int) -> list[Reading]:
        sign = runs[place]
        is_inner = 0 < place < len(runs) - 1
        if sign == "-" and place == 0 and len(runs) > 1 and runs[1][0].isdigit():
            return _options("minus|negative|")
        if sign == "." and is_inner and len(runs[place - 1]) == len(runs[place + 1]) == 1:
            return [()]
        if sign in "'\"" and place and runs[place - 1][0].isdigit():
            return _options(_UNITS[sign])
        if sign == "-" and is_inner and not runs[place - 1][0].isdigit():
            return _options("|dash|hyphen")
        if sign in ".?" and not is_inner:
            return [()]
        return _options(_SYMBOLS.get(sign, ""))

    def _letters(self, run: str) -> list[Reading]:
        """A word, an acronym, or one with a small letter behind it (GPUs, CEO's)."""
        word = run.lower()
        spelled = tuple(letter + "." for letter in word if letter != "'")
        if len(run) == 1:
            return [(word,), spelled] if word in "ai" else [spelled]
        found = re.fullmatch(r"([A-Z]{2,})('?s)", run)
        if found:
            letters = tuple(letter + "." for letter in found[1].lower())
            plural = (*letters[:-1], letters[-1] + found[2][-1])
            return [plural, *([(word,)] if word in self._known else [])]
        if not run.isupper():
            parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z']+", run)
            if 1 < len(parts) < 4 and word not in self._known:  # iPhone, YouTube, JavaScript
                joined = [self._letters(part)[0] for part in parts if part != run]
                return [(word,), tuple(itertools.chain.from_iterable(joined))]
            return [(word,)]
        if len(run) <= 5 and "'" not in run:
            return [(word,), spelled] if word in self._known else [spelled, (word,)]
        return [(word,)]


def _limited(readings: Iterable[Reading]) -> Slot:
    return tuple(dict.fromkeys(readings))[:MAX_READINGS]


def _fold(runs: list[list[Reading]]) -> tuple[Slot, ...]:
    """Slots in which something is always said: what may be left out joins its neighbour."""
    slots: list[list[Reading]] = []
    for run in runs:
        if slots and (() in run or () in slots[-1]):
            slots[-1] = [left + right for left in slots[-1] for right in run][: 4 * MAX_READINGS]
        else:
            slots.append(run)
    if slots and () in slots[-1]:
        slots[-1] = [reading for reading in slots[-1] if reading]
    return tuple(_limited(slot) for slot in slots if slot)


# --- numbers ------------------------------------------------------------------------------------


def _number(text: str) -> list[Reading]:
    """Readings of digits with commas or full stops between them."""
    plain = text.replace(",", "")
    whole, *parts = plain.split(".")
    if len(parts) == 1:
        said = [(*reading, "point", *tail) for reading in _integer(whole) for tail in _digits(parts[0])]
        short = [("point", *tail) for tail in _digits(parts[0])] if whole == "0" else []
        pairs = [(*cardinal(int(whole)), *cardinal(int(parts[0])))] if len(plain) < 6 else []
        return [*said[:4], *short, *map(tuple, pairs)]
    if parts:  # a version or an address
        rows = [[(*cardinal(int(part)),) if len(part) < 4 else tuple(digits(part))] for part in parts]
        joined = [tuple(word for row in rows for word in (sign, *row[0]) if word) for sign in ("point", "dot", "")]
        return [(*first, *rest) for first in _integer(whole)[:2] for rest in joined]
    return _integer(whole, is_grouped="," in text)


def _digits(text: str) -> list[Reading]:
    said = tuple(digits(text))
    return [said, *([tuple("oh" if word == "zero" else word for word in said)] if "0" in text else [])]


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
        readings = [*read[: 1 + (value % 100 > 9)], *readings] if 1100 <= value <= 2099 else [*readings, *read]
        if 2000 <= value < 2010:
            readings.append(("twenty", "oh", *cardinal(value % 100)))
    if len(text) == 3 and value % 100:
        tail = cardinal(value % 100)
        readings.append((*cardinal(value // 100), *(tail if value % 100 > 9 else ["oh", *tail])))
    if value >= 100 and said[0] == "one":
        readings.append(("a", *said[1:]))
    return [*readings, *(_digits(text) if len(text) > 1 else [])]


def _with_and(value: int) -> Reading:
    """As the British say it: "and" before the tens."""
    said, tail = cardinal(value), cardinal(value % 100)
    if value < 100 or value % 100 == 0:
        return tuple(said)
    return (*said[: len(said) - len(tail)], "and", *tail)


def _number_token(core: str, before: str, after: str) -> list[Reading] | None:
    """Readings of a token that is one number, date, time or sum; None for others."""
    for pattern, say in _NUMBER_TOKENS:
        found = pattern.fullmatch(core)
        if found is not None:
            readings = say(found)
            if pattern is _BARE and (_is_month(before.lower()) or _is_month(after)):
                day = int(found[0])
                return [*readings, tuple(ordinal(day)), ("the", *ordinal(day))] if 0 < day < 32 else readings
            return readings
    return None


def _is_month(token: str) -> bool:
    word = token.strip(".,;")
    return word in _MONTHS or _ABBREVIATIONS.get(word, "").split("|")[0] in _MONTHS


def _money(found: re.Match[str]) -> list[Reading]:
    unit, cent = _MONEY[found["unit"]]
    units = (unit if unit == "yen" else unit + "s", unit)
    plain = found["whole"].replace(",", "")
    part, scale = found["part"] or "", (found["scale"] or "").lower()
    if scale:
        number = _number(f"{plain}.{part}" if part else plain)
        return [(*said, _SCALES[scale], *end) for said in number[:3] for end in ((units[0],), (), (unit,))]
    whole = _integer(plain, is_grouped=True)
    if len(part) != 2 or int(part) == 0:
        said = _number(f"{plain}.{part}") if part.strip("0") else whole
        return [(*number, *end) for number in said for end in ((units[plain == "1"],), (), (units[0],))]
    cents = tuple(cardinal(int(part)))
    name = {"penny": "pence"}.get(cent, cent + "s") if int(part) > 1 else cent
    head = (*whole[0], units[plain == "1"])
    tails = [("and", *cents, name), (*cents, name), cents, ("and", *cents)]
    alone = [(*cents, name)] if plain == "0" else []
    return [*alone, *(head + tail for tail in tails), (*whole[0], *cents), (*whole[0], "point", *digits(part), units[0])]


def _ordinal(found: re.Match[str]) -> list[Reading]:
    value = int(found[1].replace(",", ""))
    if value > LARGEST:
        return _digits(found[1])
    said = ordinal(value)
    tail = ordinal_of(list(_with_and(value)))
    return [tuple(said), ("the", *said), tuple(tail)]


def _plural(found: re.Match[str]) -> list[Reading]:
    text = found[1]
    value = int(text)
    if len(text) > 6:
        return _digits(text)
    said = [plural_of(year(value)) if len(text) == 4 and value >= 1000 else plural_of(cardinal(value))]
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
    more = [tuple(cardinal(int(seconds))), ("and", *cardinal(int(seconds)), "seconds")] if seconds else [()]
    return [(*h, *t, *s, *half) for h in hours for t in tails for s in more]


def _date(found: re.Match[str]) -> list[Reading]:
    """3/14/2023 as month and day, as day and month, and as bare numbers."""
    first, second, last = int(found[1]), int(found[2]), found[3]
    years = [tuple(year(int(last))), tuple(cardinal(int(last)))] if len(last) == 4 else _integer(str(int(last)))[:1]
    readings = []
    for month, day in ((first, second), (second, first)):
        if 1 <= month <= 12 and 1 <= day <= 31:
            name = _MONTHS[month - 1]
            heads = [(name, *ordinal(day)), (name, *cardinal(day)), ("the", *ordinal(day), "of", name)]
            readings += [(*head, *years[0]) for head in heads]
    bare = [(*cardinal(first), *cardinal(second), *end) for end in years]
    slashed = (*cardinal(first), "slash", *cardinal(second), "slash", *years[0])
    return [*readings, *bare, slashed]


def _iso_date(found: re.Match[str]) -> list[Reading]:
    value, month, day = (int(part) for part in found.groups())
    named = []
    if 1 <= month <= 12:
        name = _MONTHS[month - 1]
        named = [(name, *ordinal(day), *year(value)), (*year(value), name, *ordinal(day)), ("the", *ordinal(day), "of", name, *year(value))]
    month_said, day_said = (["oh", *cardinal(part)] if part < 10 else cardinal(part) for part in (month, day))
    return [*named, (*year(value), *month_said, *day_said), (*year(value), *cardinal(month), *cardinal(day))]


def _fraction(found: re.Match[str]) -> list[Reading]:
    over, under = int(found[2]), int(found[3])
    whole = [(*cardinal(int(found[1])), "and")] if found[1] else [()]
    names = _FRACTIONS.get(under)
    units = [tuple(n.split()) for n in names.split("|")] if names else [tuple(plural_of(ordinal(under))), tuple(ordinal(under))]
    heads = [tuple(cardinal(over)), *([("a",)] if over == 1 else [])]
    said = [(*w, *h, *u) for w in whole for h in heads for u in units]
    bare = [] if found[1] else [(*cardinal(over), *middle, *cardinal(under)) for middle in ((), ("slash",), ("over",), ("out", "of"), ("of",))]
    return [*said[:6], *bare]


def _phone_number(found: re.Match[str]) -> list[Reading]:
    return _digits(re.sub(r"\D", "", found[0]))


_BARE = re.compile(r"\d{1,2}")
_NUMBER_TOKENS: Final = (
    (_BARE, lambda found: _integer(found[0])),
    (re.compile(r"(?P<unit>[$€£¥])(?P<whole>\d[\d,]{0,18})(?:\.(?P<part>\d{1,6}))?(?P<scale>[kmb]|bn|mn|tn|million|billion|trillion)?", re.IGNORECASE), _money),
    (re.compile(r"(\d[\d,]{0,14})(?:st|nd|rd|th)", re.IGNORECASE), _ordinal),
    (re.compile(r"'?(\d{1,4})'?s"), _plural),
    (re.compile(r"([01]?\d|2[0-4])[:.](\d\d)(?::(?P<seconds>\d\d))?(?P<half>[ap]\.?m\.?)", re.IGNORECASE), _clock),
    (re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::(?P<seconds>\d\d))?(?P<half>)"), _clock),
    (re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d\d)"), _date),
    (re.compile(r"(\d{4})-(\d\d)-(\d\d)"), _iso_date),
    (re.compile(r"(?:(\d{1,3})[- ])?(\d{1,3})/([1-9]\d{0,2})"), _fraction),
    (re.compile(r"\+?(?:\d{1,2}[-.])?\(?\d{3}\)?[-.]\d{3}[-.]\d{4}|\d{3}-\d{4}"), _phone_number),
)  # fmt: skip
