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


class Checkpoint(Protocol):
    """Where the pipeline looks for the hypothesis of a chunk, and leaves it."""

    def get(self, chunk: Chunk) -> Hypothesis | None:
        """The hypothesis of exactly this chunk, if it was kept."""
        ...

    def put(self, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Keep it. Called before any segment that comes of it is handed out."""
        ...


class Records:
    """A checkpoint over records that were read before.

    Args:
        lines: records, of any engine.
        engine: whose hypotheses count, by its full name.
        keep: called with a chunk and its new record.
    """

    def __init__(
        self, lines: Iterable[str], engine: str, keep: Callable[[Chunk, str], None]
    ) -> None:
        self._engine = engine
        self._keep = keep
        found = (unpack_chunk(line) for line in lines)
        self._known = {chunk: heard for chunk, heard, name in found if name == engine}

    def get(self, chunk: Chunk) -> Hypothesis | None:
        """Known only if start, end and overlap agree too: options or VAD may have changed."""
        return self._known.get(chunk)

    def put(self, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Hand the record on."""
        self._keep(chunk, pack_chunk(chunk, hypothesis, self._engine))


def pack_chunk(chunk: Chunk, hypothesis: Hypothesis, engine: str) -> str:
    """One finished chunk as a record."""
    return json.dumps({"engine": engine, "chunk": asdict(chunk), "heard": asdict(hypothesis)})


def unpack_chunk(record: str) -> tuple[Chunk, Hypothesis, str]:
    """The chunk, what was heard in it, and by which engine."""
    body = json.loads(record)
    heard = body["heard"]
    hypothesis = Hypothesis(**{**heard, "words": _words(heard), "warnings": _warnings(heard)})
    return Chunk(**body["chunk"]), hypothesis, body["engine"]


def pack_segment(segment: Segment) -> str:
    """One segment as a record."""
    return json.dumps(asdict(segment))


def unpack_segment(record: str) -> Segment:
    """The segment again."""
    body = json.loads(record)
    return Segment(**{**body, "words": _words(body), "warnings": _warnings(body)})


def pack_summary(transcript: Transcript) -> str:
    """All of a transcript but its segments, as a record."""
    body = asdict(transcript)
    del body["segments"]
    return json.dumps(body)


def unpack_summary(record: str, segments: tuple[Segment, ...]) -> Transcript:
    """The transcript again, with the segments that were kept apart."""
    body = json.loads(record)
    return Transcript(**{**body, "segments": segments, "warnings": _warnings(body)})


def _words(body: dict[str, Any]) -> tuple[Word, ...]:
    return tuple(Word(**word) for word in body["words"])


def _warnings(body: dict[str, Any]) -> tuple[str, ...]:
    return tuple(body["warnings"])
