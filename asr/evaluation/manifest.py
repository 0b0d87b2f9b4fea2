"""Manifests: JSON lines that name recordings and their reference texts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.config import check
from asr.errors import InvalidOption
from asr.evaluation.rttm import read_rttm
from asr.types import Word, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asr.output.rttm import Turn


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a manifest: a recording and its reference text.

    Attributes:
        words: the reference with times; empty if it has none. The times are not checked.
        categories: groups with a report of their own.
        duration: seconds according to the manifest. RTFx uses the decoded length instead.
        turns: who speaks when; empty if the manifest does not say.
    """

    file: Path
    text: str
    words: tuple[Word, ...] = ()
    categories: tuple[str, ...] = ()
    duration: float | None = None
    turns: tuple[Turn, ...] = ()


def read_manifest(path: Path) -> list[Utterance]:
    """Read JSON lines with ``file`` and ``text``.

    A relative ``file`` is looked up beside the manifest, or in the working directory if the
    manifest is a pipe or standard input.

    Optional fields: ``words``, each with ``text`` or ``word``, ``start`` and ``end``; ``rttm``, a
    file beside the manifest that says who speaks when; ``category``, one or several separated by
    commas; ``duration``. Other fields and blank lines are ignored.

    Raises:
        InvalidOption: the manifest cannot be read, or a line is wrong; the message names line
            and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("manifest", f"cannot read {path}: {error}") from error
    is_stream = not path.is_file() or path.parts[:2] in (("/", "dev"), ("/", "proc"))
    folder = Path() if is_stream else path.parent
    numbered = ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1))
    return [_read_utterance(line, folder, where) for where, line in numbered if line.strip()]


def _read_utterance(line: str, folder: Path, where: str) -> Utterance:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidOption("manifest", f"{where}: not JSON: {error}") from error
    check(isinstance(record, dict), "manifest", f"{where}: must be an object")
    category = _field(record, "category", (str, type(None)), where) or ""
    words = _field(record, "words", (list, type(None)), where) or []
    rttm = _field(record, "rttm", (str, type(None)), where)
    file = folder / _field(record, "file", (str,), where)
    return Utterance(
        file=file,
        text=_field(record, "text", (str,), where),
        words=_read_words(words, where),
        turns=read_rttm(folder / rttm, file.stem) if rttm else (),
        categories=tuple(part.strip() for part in category.split(",") if part.strip()),
        duration=_field(record, "duration", (int, float, type(None)), where),
    )


def _read_words(items: list[Any], where: str) -> tuple[Word, ...]:
    words: list[Word] = []
    for index, item in enumerate(items):
        place = f"{where}, words[{index}]"
        check(isinstance(item, dict), "words", f"{place}: must be an object")
        text = _field(item, "word" if "word" in item else "text", (str,), place)
        start, end = (_field(item, key, (int, float), place) for key in ("start", "end"))
        try:
            words.append(Word(text, start, end))
            ordered(words[-2:], 0.0, math.inf)
        except ValueError as error:
            raise InvalidOption("words", f"{place}: {error}") from error
    return tuple(words)


def _field(record: Mapping[str, Any], name: str, kinds: tuple[type, ...], where: str) -> Any:
    value = record.get(name)
    wanted = " or ".join(kind.__name__ for kind in kinds)
    right = type(value) in kinds  # not isinstance: True is an int in Python
    check(right, name, f"{where}: field {name!r} must be {wanted}, not {value!r}")
    return value
