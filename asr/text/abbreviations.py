"""Spoken names of abbreviations, units and symbols. "a b|c" is two readings: "a b", and "c".

The likeliest reading comes first.
"""

from __future__ import annotations

from typing import Final

Reading = tuple[str, ...]
"""Words that are said one after another, as one way to read a token."""

ABBREVIATIONS: Final[dict[str, str]] = {
    "mr": "mister", "mrs": "missus", "ms": "miz|miss", "dr": "doctor|drive", "st": "saint|street",
    "vs": "versus", "etc": "et cetera", "prof": "professor", "jr": "junior", "sr": "senior",
    "mt": "mount", "ave": "avenue", "blvd": "boulevard", "dept": "department",
    "inc": "incorporated|ink", "ltd": "limited", "corp": "corporation", "co": "company|koh",
    "gov": "governor", "gen": "general", "sen": "senator", "rep": "representative",
    "capt": "captain", "lt": "lieutenant", "col": "colonel", "sgt": "sergeant", "rev": "reverend",
    "hon": "honorable", "approx": "approximately", "e.g": "e. g.|for example",
    "i.e": "i. e.|that is", "a.m": "a. m.", "p.m": "p. m.", "no": "number|no", "jan": "january",
    "feb": "february", "mar": "march", "apr": "april", "jun": "june", "jul": "july",
    "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november",
    "dec": "december", "mon": "monday", "tue": "tuesday", "wed": "wednesday", "thu": "thursday",
    "fri": "friday", "sat": "saturday|sat", "sun": "sunday|sun", "fig": "figure", "vol": "volume",
    "ch": "chapter", "pp": "pages", "ed": "edition|ed", "est": "established|e. s. t.",
}  # fmt: skip
"""Abbreviations that have a full stop after or inside them."""
UNDOTTED: Final[dict[str, str]] = {
    "mr": "mister", "mrs": "missus", "dr": "doctor|drive", "vs": "versus|v. s.", "etc": "et cetera",
    "w/": "with", "w/o": "without", "ok": "okay", "phd": "p. h. d.", "wifi": "why fie",
    "gonna": "gonna",
}  # fmt: skip
"""Abbreviations without a full stop."""
UNITS: Final[dict[str, str]] = {
    "km": "kilometers|k. m.|kilometer", "m": "meters|million|meter|m.",
    "cm": "centimeters|centimeter", "mm": "millimeters|millimeter",
    "kg": "kilograms|kilos|kilogram", "g": "grams|gram|g.", "mg": "milligrams|milligram",
    "lb": "pounds|pound", "lbs": "pounds", "oz": "ounces|ounce", "ft": "feet|foot",
    "in": "inches|inch|in", "yd": "yards", "mi": "miles|mile", "mph": "miles per hour|m. p. h.",
    "kph": "kilometers per hour", "km/h": "kilometers per hour|kilometers an hour", "hz": "hertz",
    "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz|gigs", "kb": "kilobytes|k. b.",
    "mb": "megabytes|megs|megabyte|m. b.", "gb": "gigabytes|gigs|gigabyte|g. b.",
    "tb": "terabytes|terabyte|t. b.", "ms": "milliseconds|millisecond", "s": "seconds|second|s.",
    "sec": "seconds|second", "min": "minutes|minute", "h": "hours|hour", "hr": "hours|hour",
    "hrs": "hours", "kw": "kilowatts", "kwh": "kilowatt hours", "w": "watts|watt",
    "v": "volts|volt", "l": "liters|liter", "ml": "milliliters", "k": "thousand|k.",
    "bn": "billion", "b": "billion|b.", "t": "trillion|t.", "x": "times|x.|by", "am": "a. m.",
    "pm": "p. m.", "%": "percent", "\xb0": "degrees", "\xb0c": "degrees celsius|degrees|degrees c.",
    "\xb0f": "degrees fahrenheit|degrees|degrees f.", "db": "decibels|d. b.",
    "c": "degrees celsius|c.|celsius", "f": "degrees fahrenheit|f.|fahrenheit", "p": "p.",
    "ad": "a. d.", "bc": "b. c.", "+": "plus", "'": "feet|foot|", '"': "inches|inch|",
}  # fmt: skip
"""Units, only after a number."""
SYMBOLS: Final[dict[str, str]] = {
    "&": "and|ampersand", "+": "plus|and", "=": "equals|is", "@": "at", "%": "percent",
    "\xb0": "degrees|degree", "\xd7": "times|by", "\xf7": "divided by", "<": "less than",
    ">": "greater than", "\u20ac": "euros|euro", "\xa3": "pounds|pound", "$": "dollars|dollar",
    "#": "number|hashtag|pound|hash", "*": "|star|times", "/": "|slash|or|per",
    "-": "|minus|dash|to|hyphen", "_": "|underscore", ".": "|dot|point", "~": "|about|tilde",
    ":": "|colon|to", "\\": "|backslash", "^": "|to the", "|": "|bar", "\xa7": "section",
    "\xa9": "copyright|", "\xae": "|registered", "\u2122": "|trademark", "\u221a": "root",
    "\u03c0": "pi", "\xb5": "micro", "?": "|question mark", "\u2212": "minus|",
}  # fmt: skip
"""Symbols, alone or between letters and digits. An empty reading means that it may be silent."""
MONEY: Final[dict[str, tuple[str, str]]] = {
    "$": ("dollar", "cent"), "\u20ac": ("euro", "cent"), "\xa3": ("pound", "penny"),
    "\xa5": ("yen", "yen"),
}  # fmt: skip
"""Names of the currency unit and of its hundredth."""
SCALES: Final[dict[str, str]] = {
    "k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion",
    "t": "trillion", "tn": "trillion", "thousand": "thousand", "million": "million",
    "billion": "billion", "trillion": "trillion",
}  # fmt: skip
"""Multipliers after a sum of money."""


def options(text: str) -> list[Reading]:
    """Split an entry of these tables into its readings."""
    return [tuple(option.split()) for option in text.split("|")]
