"""The hash and the length of each path, so that a later run need not read the recordings again.

An entry counts only if size and stamp are unchanged (`asr.batch.sources.Source.stamp`). A worker
that transcribes a recording hashes it in any case, so a wrong entry cannot give it a wrong name.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asr.batch.results import INTERNAL
from asr.batch.urls import is_url

if TYPE_CHECKING:
    from asr.batch.sources import Source
    from asr.batch.store import Store

NAME: Final = f"{INTERNAL}/index.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """What an earlier look at a path found.

    Attributes:
        content: SHA-256.
        seconds: of audio, or None if nobody decoded it.
    """

    size: int
    stamp: str
    content: str
    seconds: float | None = None


class Index:
    """Entries by path.

    Args:
        store: where the entries are kept.
        is_trusted: use the entries of earlier runs.
    """

    def __init__(self, store: Store, *, is_trusted: bool = True) -> None:
        self._store = store
        lines = (
            (store.read(NAME) or b"").decode(errors="replace").splitlines() if is_trusted else []
        )
        self._entries = dict(filter(None, map(_read, lines)))

    def get(self, source: Source) -> Entry | None:
        """The entry of a path that did not change since."""
        found = self._entries.get(_key(source.path))
        if found is None or (found.size, found.stamp) != (source.size, source.stamp):
            return None
        return found

    def add(self, source: Source, content: str, seconds: float | None) -> None:
        """Take note of a path. Without size and stamp a change could not be noticed."""
        if source.size is None or not source.stamp:
            return
        before = self.get(source)
        if seconds is None and before is not None and before.content == content:
            return
        entry = Entry(source.size, source.stamp, content, seconds)
        self._entries[_key(source.path)] = entry

    def save(self) -> None:
        """Write all entries."""
        lines = [
            json.dumps([path, it.size, it.stamp, it.content, it.seconds])
            for path, it in self._entries.items()
        ]
        self._store.write(NAME, "\n".join(lines).encode())


def _key(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100  # keeps links


def _read(line: str) -> tuple[str, Entry] | None:
    """An entry, or None if the line is damaged."""
    try:
        path, *facts = json.loads(line)
        entry: Any = Entry(*facts)
    except (ValueError, TypeError):
        return None
    return (path, entry) if isinstance(path, str) else None
