"""What is kept of a recording in work, so that it goes on where it was cut off.

A record is one line of JSON. Floats are written in full: what is read back is bit for bit what was
written, and a transcript made over several attempts is the transcript of one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from asr.types import Chunk, Hypothesis, Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Place = tuple[int, Chunk]
"""The channel, and a chunk of it."""


class Checkpoint(Protocol):
    """Where the pipeline looks for the hypothesis of a chunk, and leaves it."""

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | None:
        """The hypothesis of exactly this chunk, if it was kept."""
        ...

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Keep it. Called before any segment that comes of it is handed out."""
        ...


class Records:
    """A checkpoint over records that were read before.

    Args:
        lines: records, of any engine.
        engine: whose hypotheses count, by its full name.
        keep: called with the channel, a chunk of it, and the new record.
    """

    def __init__(
        self, lines: Iterable[str], engine: str, keep: Callable[[int, Chunk, str], None]
    ) -> None:
        self._engine = engine
        self._keep = keep
        found = (unpack_chunk(line) for line in lines)
        self._known = {place: heard for place, heard, name in found if name == engine}

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | None:
        """Known only if start, end and overlap agree too: options or VAD may have changed."""
        return self._known.get((channel, chunk))

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Hand the record on."""
        self._keep(channel, chunk, pack_chunk((channel, chunk), hypothesis, self._engine))


def pack_chunk(place: Place, hypothesis: Hypothesis, engine: str) -> str:
    """One finished chunk as a record."""
    channel, chunk = place
    body = {"engine": engine, "channel": channel, "chunk": asdict(chunk)}
    return json.dumps({**body, "heard": asdict(hypothesis)})


def unpack_chunk(record: str) -> tuple[Place, Hypothesis, str]:
    """The channel and chunk, what was heard in it, and by which engine."""
    body = _read(record)
    return (body["channel"], Chunk(**body["chunk"])), Hypothesis(**body["heard"]), body["engine"]


def pack_segment(segment: Segment) -> str:
    """One segment as a record."""
    return json.dumps(asdict(segment))


def unpack_segment(record: str) -> Segment:
    """The segment again."""
    return Segment(**_read(record))


def pack_summary(transcript: Transcript) -> str:
    """All of a transcript but its segments, as a record."""
    body = asdict(transcript)
    del body["segments"]
    return json.dumps(body)


def unpack_summary(record: str, segments: tuple[Segment, ...]) -> Transcript:
    """The transcript again, with the segments that were kept apart."""
    return Transcript(segments=segments, **_read(record))


def _read(record: str) -> dict[str, Any]:
    """The fields of a record as the types of `asr.types` have them."""
    return {name: _frozen(name, value) for name, value in json.loads(record).items()}


def _frozen(name: str, value: Any) -> Any:
    """Lists as tuples, whatever they hold, and the words as words."""
    if isinstance(value, dict):
        return {key: _frozen(key, item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if name == "words":
        return tuple(Word(**word) for word in value)
    return tuple(_frozen("", item) for item in value)
