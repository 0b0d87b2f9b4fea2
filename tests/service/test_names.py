"""The names of files that clients send and download."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.service.names import attachment, clean_name, sent_name

NAMES = [
    ('form-data; name="file"; filename="a b.wav"', "a b.wav"),
    ("attachment; filename=plain.mp3", "plain.mp3"),
    ("attachment; filename=\"x\"; filename*=UTF-8''%C3%BCber%20%E6%97%A5.wav", "über 日.wav"),
    ("attachment; filename*=iso-8859-1'de'%FC.wav", "ü.wav"),
    ("attachment; filename*=nonsense''%FC; filename=b.wav", "b.wav"),
    ('attachment; filename="über.wav"', "über.wav"),
    ('attachment; filename="../../etc/passwd"', "passwd"),
    (r'attachment; filename="C:\\Users\\me\\a.wav"', "a.wav"),
    (r'attachment; filename="a\"b.wav"', 'a"b.wav'),
    ('attachment; filename="a%22b%0D%0Ac.wav"', 'a"b  c.wav'),
    ('attachment; filename="50%25.wav"', "50%25.wav"),
    ("attachment; filename*=UTF-8''a%0D%0A%00%E2%80%AEb.wav", "ab.wav"),
    ('attachment; filename=".."', None),
    ('attachment; filename="/"', None),
    ("attachment", None),
    ("", None),
]


@pytest.mark.parametrize(("header", "name"), NAMES)
def test_names_that_clients_send(header, name):
    assert sent_name(header.encode()) == name


def test_a_name_in_latin_1_is_read():
    assert sent_name('form-data; name="file"; filename="ü.wav"'.encode("latin-1")) == "ü.wav"


def test_a_long_name_is_cut_and_keeps_its_extension():
    assert clean_name("ü" * 300 + ".wav") == "ü" * 125 + ".wav"
    assert clean_name("x" * 300) == "x" * 255


@pytest.mark.parametrize(
    ("name", "plain", "encoded"),
    [
        ("talk.mp3", "talk.srt", "talk.srt"),
        ("Dr. Müller", "Dr. M_ller.srt", "Dr.%20M%C3%BCller.srt"),
        ('a"b%.tar.gz', "a_b_.tar.srt", "a%22b%25.tar.srt"),
        (".wav", ".wav.srt", ".wav.srt"),
    ],
)
def test_names_of_downloads(name, plain, encoded):
    expected = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    assert attachment(name, "srt") == expected


@given(st.text())
def test_any_name_is_safe_in_a_header_and_comes_back(text):
    name = clean_name(text)
    if name is not None:
        assert len(name.encode()) <= 255
        assert not set(name) & {"/", "\\", "\n", "\r", "\0"}
        header = attachment(f"{name}.mp3", "mp3")
        assert header.isascii()
        assert header.isprintable()
        assert sent_name(header.encode()) == clean_name(f"{name}.mp3")
