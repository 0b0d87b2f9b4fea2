"""Read a list of recordings: plain lines, JSON lines, CSV, or names that end with a zero byte."""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final

from asr.config import check
from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS: Final = (".txt", ".list", ".jsonl", ".csv", ".tsv")
FIELDS: Final = ("path", "file", "url", "audio_filepath")
"""Fields of a line of JSON, or columns of CSV, that name the recording; the first one counts."""
TOLD: Final = f"{', '.join(FIELDS[:-1])} or {FIELDS[-1]}"


def entries(data: bytes, where: str) -> Iterator[str]:
    """The paths and URLs of a list.

    Args:
        data: of the file.
        where: its name, which decides how it is read.

    Raises:
        InvalidOption: a line cannot be read.
    """
    text = _decoded(data)
    name = where.partition("?")[0].lower()
    if "\0" in text:  # find -print0
        yield from filter(None, text.split("\0"))
    elif name.endswith((".csv", ".tsv")):
        yield from _table(text, where)
    else:
        yield from _lines(text, where, is_json=name.endswith(".jsonl"))


def _decoded(data: bytes) -> str:
    """The text of a list. Names of files may have bytes that are not UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _lines(text: str, where: str, *, is_json: bool) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip("\r")
        if not entry.strip() or entry.startswith("#"):
            continue
        if is_json:
            yield _field(_record(entry), f"{where}, line {number}")
        else:
            yield _plain(entry)


def _plain(line: str) -> str:
    """A line of a list that is no JSON by its name, as on standard input."""
    record = _record(line) if line.lstrip().startswith("{") else None
    found = _found(record) if isinstance(record, dict) else ""
    return found or line


def _record(line: str) -> Any:
    """The value of a line of JSON, or the error."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return error


def _field(record: Any, where: str) -> str:
    reason = f"not JSON: {record}" if isinstance(record, Exception) else "not a JSON object"
    check(isinstance(record, dict), "source", f"{where}: {reason}")
    found = _found(record)
    check(bool(found), "source", f"{where}: no field {TOLD} with a text")
    return found


def _found(record: dict[str, Any]) -> str:
    texts = (record.get(name) for name in FIELDS)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _table(text: str, where: str) -> Iterator[str]:
    """The column that names the recordings. The first line names the columns."""
    lines = [line for line in io.StringIO(text, newline="") if not line.startswith("#")]
    # Strict, because a quote that nothing closes would swallow the lines behind it.
    rows = csv.reader(lines, delimiter=_delimiter(lines[0] if lines else ""), strict=True)
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        column = next((names.index(name) for name in FIELDS if name in names), -1)
        check(column >= 0, "source", f"{where}: the first line must name a column {TOLD}")
        for row in rows:
            entry = row[column] if column < len(row) else ""
            is_blank = not any(cell.strip() for cell in row)
            told = f"{where}, line {rows.line_num}: no {names[column]}"
            check(is_blank or bool(entry.strip()), "source", told)
            if entry.strip():
                yield entry
    except csv.Error as error:
        told = f"{where}, line {rows.line_num}: {error}"
        raise InvalidOption("source", told) from error


def _delimiter(header: str) -> str:
    """The character between the columns: comma, semicolon or tab."""
    return max(",;\t", key=header.count)
