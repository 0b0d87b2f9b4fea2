"""Warnings as a response header."""

from __future__ import annotations

import json

import pytest

from asr.service.http.warning_header import MAX_LENGTH, WARNINGS_HEADER, warning_header


def test_it_is_json_in_ascii():
    warnings = ["f\u00fcr \u201eX\u201c", "a\r\nSet-Cookie: b"]
    (value,) = warning_header(warnings).values()
    assert value.isascii()
    assert value.isprintable()
    assert json.loads(value) == warnings


def test_without_warnings_there_is_none():
    assert warning_header([]) == {}


def test_it_is_never_too_long():
    value = warning_header(["x" * 1_000] * 10)[WARNINGS_HEADER]
    assert len(value) <= MAX_LENGTH
    assert json.loads(value) == ["x" * 1_000] * 3 + ["7 more warnings"]
    assert json.loads(warning_header(["x" * 9_000])[WARNINGS_HEADER]) == ["1 more warnings"]


@pytest.mark.parametrize("n_characters", [1, 100, 3000, 9000])
def test_the_header_is_short_ascii_and_says_what_is_missing(n_characters):
    warnings = tuple(f"{i}{'x' * n_characters}\r\né" for i in range(9))
    line = warning_header(warnings)[WARNINGS_HEADER]
    assert len(line) <= MAX_LENGTH
    assert line.isascii()
    assert line.isprintable()
    kept = json.loads(line)
    n_left = 0 if len(kept) == 9 else 9 - len(kept) + 1
    assert tuple(kept[: 9 - n_left]) == warnings[: 9 - n_left]
    assert kept[9 - n_left :] == ([f"{n_left} more warnings"] if n_left else [])
