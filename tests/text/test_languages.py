"""Languages in the spellings of clients."""

import pytest

from asr.text.languages import LANGUAGE_NAMES, Language, read_language


@pytest.mark.parametrize(
    ("text", "code", "rest"),
    [
        ("en", "en", ""),
        ("EN", "en", ""),
        (" en ", "en", ""),
        ("eng", "en", ""),
        ("English", "en", ""),
        ("ENGLISH", "en", ""),
        ("English (United States)", "en", ""),
        ("en-US", "en", "US"),
        ("en_US", "en", "US"),
        ("en_US.UTF-8", "en", "US"),
        ("de_DE@euro", "de", "DE"),
        ("ger", "de", ""),
        ("deu", "de", ""),
        ("zh-Hans", "zh", "Hans"),
        ("zh-Hans-CN", "zh", "Hans-CN"),
        ("cmn", "zh", ""),
        ("yue", "yue", ""),
        ("nb-NO", "no", "NO"),
        ("iw", "he", ""),
        ("fil", "tl", ""),
        ("Haitian Creole", "ht", ""),
        ("castilian", "es", ""),
        ("xx", "xx", ""),
        ("tlh", "tlh", ""),
        *((text, None, "") for text in ("", " ", "auto", "AUTO", "detect", "multi", "und", "null")),
    ],
)
def test_a_language_in_any_spelling(text, code, rest):
    assert read_language(text) == Language(code, rest)


@pytest.mark.parametrize("text", ["klingonish", "e", "en us", "7", "en;de", "<en>", "x" * 5000])
def test_what_is_no_language_is_refused(text):
    with pytest.raises(ValueError, match="is no language"):
        read_language(text)


def test_every_name_is_read_as_its_code():
    assert {read_language(name).code for name in LANGUAGE_NAMES.values()} == set(LANGUAGE_NAMES)
    assert len(set(LANGUAGE_NAMES.values())) == len(LANGUAGE_NAMES) > 99
    assert LANGUAGE_NAMES["es"] == "spanish"
