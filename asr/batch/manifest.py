"""The table of a run: one row for each path, as JSON lines and, with pyarrow, as Parquet."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.batch.store import Store

JSONL = "manifest.jsonl"
PARQUET = "manifest.parquet"


@dataclass(frozen=True, slots=True)
class Row:
    """One path of a run.

    Attributes:
        path: as the user named it.
        id: name of the result; paths with the same content share it. Empty if the content is
            unknown.
        status: "done", "failed", or "pending" if the run has not reached it.
        seconds: of audio.
        rtfx: seconds of audio per second of work of one worker.
        error: text for people.
        fault: "recording"; or "path" or "service", and then the next run tries again.
        warnings: of the transcript.
        outputs: the file of each format, relative to the output folder.
        duplicate_of: the first path with the same content.
        engine: with its model.
        content: SHA-256 of the recording.
    """

    path: str
    id: str = ""
    status: str = "pending"
    seconds: float | None = None
    rtfx: float | None = None
    error: str | None = None
    fault: str | None = None
    warnings: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    duplicate_of: str | None = None
    engine: str | None = None
    content: str = ""


def write_manifest(store: Store, rows: Sequence[Row]) -> list[str]:
    """Write the table; return the names of the files."""
    records = [_plain(row) for row in rows]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    store.write(JSONL, lines.encode())
    names = [JSONL]
    if (table := _to_parquet(records)) is not None:
        store.write(PARQUET, table)
        names.append(PARQUET)
    return names


def _plain(row: Row) -> dict[str, object]:
    """A row without surrogates, which stand for bytes of names that are not UTF-8."""
    facts = asdict(row)
    for name, value in facts.items():
        if isinstance(value, str):
            facts[name] = _printable(value)
    warnings = [_printable(text) for text in row.warnings]
    return {**facts, "warnings": warnings, "outputs": list(row.outputs)}


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _to_parquet(records: Sequence[dict[str, object]]) -> bytes | None:
    """The table as Parquet, or None without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    numbers = dict.fromkeys(("seconds", "rtfx"), pa.float64())
    lists = dict.fromkeys(("warnings", "outputs"), pa.list_(pa.string()))
    schema = pa.schema([(name, (numbers | lists).get(name, pa.string())) for name in Row.__slots__])
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records), schema=schema), target)
    return target.getvalue()
