"""Store hypotheses and segments as lines of JSON, so that an interrupted job can continue.

Floats are written with all digits. So a record is read back exactly, and a transcript made in
several attempts equals one made in a single attempt.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from asr.types import Chunk, Hypothesis, Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Place = tuple[int, Chunk]
"""A channel and one of its chunks."""


class Checkpoint(Protocol):
    """Where the pipeline looks up and stores the hypothesis of each chunk."""

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | None:
        """The stored hypothesis of exactly this chunk, or None."""
        ...

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Store a hypothesis. Called before any of its segments is handed out."""
        ...


class Records:
    """A checkpoint over the records of earlier attempts.

    Args:
        lines: records of any engine.
        engine: full name; hypotheses of other engines are ignored.
        keep: stores a new record; called with the channel, the chunk and the record.
    """

    def __init__(
        self, lines: Iterable[str], engine: str, keep: Callable[[int, Chunk, str], None]
    ) -> None:
        self._engine = engine
        self._keep = keep
        found = (unpack_chunk(line) for line in lines)
        self._known = {place: heard for place, heard, name in found if name == engine}

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | None:
        """The stored hypothesis of exactly this chunk, or None.

        All fields of the chunk must be equal, because the options or the VAD may have changed.
        """
        return self._known.get((channel, chunk))

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Make a record and store it."""
        self._keep(channel, chunk, pack_chunk((channel, chunk), hypothesis, self._engine))


def pack_chunk(place: Place, hypothesis: Hypothesis, engine: str) -> str:
    """One finished chunk as a record."""
    channel, chunk = place
    body = {"engine": engine, "channel": channel, "chunk": asdict(chunk)}
    return json.dumps({**body, "heard": asdict(hypothesis)})


def unpack_chunk(record: str) -> tuple[Place, Hypothesis, str]:
    """The channel and chunk, its hypothesis, and the name of the engine."""
    body = _read(record)
    return (body["channel"], Chunk(**body["chunk"])), Hypothesis(**body["heard"]), body["engine"]


def pack_segment(segment: Segment) -> str:
    """One segment as a record."""
    return json.dumps(asdict(segment))


def unpack_segment(record: str) -> Segment:
    """The segment of a record."""
    return Segment(**_read(record))


def pack_summary(transcript: Transcript) -> str:
    """A transcript without its segments as a record."""
    body = asdict(transcript)
    del body["segments"]
    return json.dumps(body)


def unpack_summary(record: str, segments: tuple[Segment, ...]) -> Transcript:
    """The transcript of a record and its separately stored segments."""
    return Transcript(segments=segments, **_read(record))


def _read(record: str) -> dict[str, Any]:
    """The fields of a record, with the types that `asr.types` expects."""
    return {name: _frozen(name, value) for name, value in json.loads(record).items()}


def _frozen(name: str, value: Any) -> Any:
    """Turn lists into tuples at every level, and the items of ``words`` into `Word`."""
    if isinstance(value, dict):
        return {key: _frozen(key, item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if name == "words":
        return tuple(Word(**word) for word in value)
    return tuple(_frozen("", item) for item in value)
