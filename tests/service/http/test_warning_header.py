"""Warnings as a response header."""

from __future__ import annotations

import json

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
