"""Texts in wrong encodings are refused by name, and invisible signs are dropped."""
# ruff: noqa: RUF001  # the texts are in several scripts

from __future__ import annotations

import pytest

from asr.errors import InvalidOption
from asr.text.decoding import clean_text, decode_text


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("héllo wörld".encode("utf-16"), "UTF-16"),
        ("hello".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ("hello there".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xfe\xff" + "hello".encode("utf-16-be"), "UTF-16"),
        ("hello".encode("utf-32"), "UTF-32"),
        (
            "one\nA café, “naïve” at £5".encode("cp1252"),
            r"cp1252\), not UTF-8 \(byte 0xe9 in line 2",
        ),
        ("Don’t".encode("cp1252"), "cp1252"),
        (b"caf\xe9 \x81", "old Western"),
        ("你好，世界".encode("gbk"), "GBK"),
        ("こんにちは".encode("shift-jis"), "Shift-JIS"),
        ("привет мир".encode("cp1251"), "Windows-1251"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"{\\rtf1 hello}", "RTF"),
        (b"PK\x03\x04....", "Word"),
        (b"RIFF\x00\x00\x00\x01WAVE\x10", "binary data"),
        (b"cut in a character \xe4\xbd", "not UTF-8"),
    ],
)
def test_bytes_that_are_not_utf_8(data, name):
    with pytest.raises(InvalidOption, match=name) as caught:
        decode_text(data)
    assert caught.value.name == "text"


def test_a_stray_zero_is_no_reason_to_refuse_a_text():
    data = b"Good\x07 morning\x1b[31m everyone\x00 and thank you"
    assert clean_text(decode_text(data)) == "Good morning everyone and thank you"


def test_utf_8_with_and_without_a_mark():
    assert decode_text("\ufeffnaïve 你好 🙂".encode()) == "naïve 你好 🙂"
    assert decode_text(b"") == ""


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\ufeffone\ufeff two", "one two"),
        ("a\x07b\x1b[0m \x1b[1;31mc", "ab c"),
        ("a stray\x00 zero", "a stray zero"),
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h\x1ci", "a\nb\nc\nd\ne\nf\ng\nh\ni"),
        ("soft\u00adware zero\u200bwidth \u202aleft\u202c", "software zerowidth left"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("tab\tand space", "tab\tand space"),
    ],
)
def test_invisible_signs(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize(
    ("text", "message"),
    [("one\ntw\ufffd", "U\\+FFFD in line 2"), ("h\x00e\x00l\x00l\x00o\x00", "UTF-16")],
)
def test_text_that_was_decoded_wrongly(text, message):
    with pytest.raises(InvalidOption, match=message):
        clean_text(text)
