"""Reading manifests, and the messages for errors in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asr.errors import InvalidOption
from asr.evaluation import (
    Utterance,
    read_manifest,
)
from asr.types import Word

if TYPE_CHECKING:
    from pathlib import Path


def manifest(folder: Path, *lines: object) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in lines),
        "utf-8",
    )
    return path


def test_manifest(tmp_path):
    words = [{"word": "a", "start": 0, "end": 0.5}, {"text": "b", "start": 0.5, "end": 1.5}]
    path = manifest(
        tmp_path,
        {"file": "x.wav", "text": "a b", "category": "read, 8k", "words": words, "duration": 2},
        "",
        {"file": "sub/y.wav", "text": "line\u2028two", "words": None, "licence": "CC0"},
    )
    assert read_manifest(path) == [
        Utterance(
            tmp_path / "x.wav",
            "a b",
            (Word("a", 0, 0.5), Word("b", 0.5, 1.5)),
            ("read", "8k"),
            2,
        ),
        Utterance(tmp_path / "sub/y.wav", "line\u2028two"),
    ]


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("{", "manifest", "not JSON"),
        ("[]", "manifest", "object"),
        ({"text": "a"}, "file", "'file' must be str, not None"),
        ({"file": "x"}, "text", "'text' must be str"),
        ({"file": "x", "text": 3}, "text", "not 3"),
        ({"file": "x", "text": "a", "category": 1}, "category", "'category'"),
        ({"file": "x", "text": "a", "duration": True}, "duration", "not True"),
        ({"file": "x", "text": "a", "words": "a"}, "words", "'words' must be list"),
        ({"file": "x", "text": "a", "words": ["a"]}, "words", "words[0]: must be an object"),
        ({"file": "x", "text": "a", "words": [{"text": "a", "start": 0}]}, "end", "words[0]: fie"),
        ({"file": "x", "text": "a", "words": [{"start": 0, "end": 1}]}, "text", "words[0]: field"),
        (
            {"file": "x", "text": "a", "words": [{"text": "a", "start": 2, "end": 1}]},
            "words",
            "words[0]: word times [2, 1] are out of order",
        ),
        (
            {"file": "", "text": "", "words": [{"word": "", "start": s, "end": 3} for s in (2, 1)]},
            "words",
            "words[1]: word at [1, 3] is out of order",
        ),
    ],
)  # fmt: skip
def test_manifest_errors_name_line_and_field(tmp_path, line, name, said):
    path = manifest(tmp_path, {"file": "good.wav", "text": "a"}, "", line)
    with pytest.raises(InvalidOption) as caught:
        read_manifest(path)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{path}, line 3")
    assert said in str(caught.value)


def test_unreadable_manifest(tmp_path):
    with pytest.raises(InvalidOption, match="cannot read") as caught:
        read_manifest(tmp_path / "none.jsonl")
    assert caught.value.name == "manifest"
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(InvalidOption, match="cannot read"):
        read_manifest(tmp_path / "latin.jsonl")
