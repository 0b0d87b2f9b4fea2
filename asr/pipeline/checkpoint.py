"""Store hypotheses and segments as lines of JSON, so that an interrupted job can continue.

Floats are written with all digits. So a record is read back exactly, and a transcript made in
several attempts equals one made in a single attempt.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.pipeline.channels import Merger
from asr.pipeline.missing import GapFinder, Missing, merged
from asr.types import Chunk, Gap, Hypothesis, Segment, Transcript, Voices, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asr.types import GapReason

Place = tuple[int, Chunk]
"""A channel and one of its chunks."""


class Checkpoint(Protocol):
    """Where the pipeline looks up and stores the hypothesis of each chunk."""

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | Missing | None:
        """The stored hypothesis of exactly this chunk, `Missing` if it was given up, or None."""
        ...

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Store a hypothesis. Called before any of its segments is handed out."""
        ...

    def fail(self, channel: int, chunk: Chunk, reason: GapReason) -> None:
        """Take note of a chunk that failed in this attempt. Called at most once for each chunk."""
        ...


class Records:
    """A checkpoint over the records of earlier attempts.

    Args:
        lines: records of any engine.
        engine: full name; hypotheses of other engines are ignored.
        keep: stores a new record; called with the channel, the chunk and the record.
        on_failure: called likewise for a chunk that failed. Its record, if it is among `lines` of a
            later attempt, gives the chunk up.
    """

    def __init__(
        self,
        lines: Iterable[str],
        engine: str,
        keep: Callable[[int, Chunk, str], None],
        on_failure: Callable[[int, Chunk, str], None] | None = None,
    ) -> None:
        self._engine = engine
        self._keep = keep
        self._on_failure = on_failure
        found = (unpack_chunk(line) for line in lines)
        self._known = {place: heard for place, heard, name in found if name == engine}

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | Missing | None:
        """The stored hypothesis of exactly this chunk, `Missing` if it was given up, or None.

        All fields of the chunk must be equal, because the options or the VAD may have changed.
        """
        return self._known.get((channel, chunk))

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:
        """Make a record and store it."""
        self._keep(channel, chunk, pack_chunk((channel, chunk), hypothesis, self._engine))

    def fail(self, channel: int, chunk: Chunk, reason: GapReason) -> None:
        """Report a chunk that failed, with the record that gives it up."""
        if self._on_failure is not None:
            record = pack_missing((channel, chunk), reason, self._engine)
            self._on_failure(channel, chunk, record)


def pack_chunk(place: Place, hypothesis: Hypothesis, engine: str) -> str:
    """One finished chunk as a record."""
    channel, chunk = place
    body = {"engine": engine, "channel": channel, "chunk": asdict(chunk)}
    return json.dumps({**body, "heard": asdict(hypothesis)})


MISSING_START: Final = '{"missing": '
"""How the record of a chunk that was given up begins."""


def pack_missing(place: Place, reason: GapReason, engine: str) -> str:
    """One chunk that was given up as a record.

    An earlier version of this service reads it as a chunk without words and with a warning.
    """
    channel, chunk = place
    warning = f"{chunk.duration:.1f} s could not be transcribed"
    heard = Hypothesis(chunk.index, "", warnings=(warning,))
    return json.dumps(
        {"missing": reason, **json.loads(pack_chunk((channel, chunk), heard, engine))}
    )


def unpack_chunk(record: str) -> tuple[Place, Hypothesis | Missing, str]:
    """The channel and chunk, its hypothesis or that it was given up, and the engine's name."""
    body = _read(record)
    place = body["channel"], Chunk(**body["chunk"])
    if "missing" in body:
        return place, Missing(body["missing"]), body["engine"]
    return place, Hypothesis(**body["heard"]), body["engine"]


def find_gaps(records: Iterable[str], max_pause: float, *, split: bool) -> tuple[Gap, ...]:
    """The gaps of the chunks that were given up.

    Args:
        records: those of all chunks so far; the others tell where a gap ends.
        max_pause: as for `GapFinder`.
        split: the channels are kept apart.
    """
    finders: dict[int, GapFinder] = {}
    for (channel, chunk), heard, _ in sorted(map(unpack_chunk, records), key=_by_place):
        finder = finders.setdefault(channel, GapFinder(max_pause))
        if isinstance(heard, Missing):
            finder.miss(chunk, heard.reason)
        else:
            finder.hear(chunk)
    merger = Merger(len(finders), named=split)
    gaps = []
    for channel, finder in finders.items():
        finder.finish()
        gaps += [merger.named(gap, channel) for gap in finder.take()]
    return merged(gaps)


def _by_place(record: tuple[Place, Hypothesis | Missing, str]) -> tuple[int, int]:
    (channel, chunk), _, _ = record
    return channel, chunk.start_sample


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
    """Turn lists into tuples at every level, and words, gaps and voices into their types."""
    if isinstance(value, dict):
        frozen = {key: _frozen(key, item) for key, item in value.items()}
        return Voices(**frozen) if name == "voices" else frozen
    if not isinstance(value, list):
        return value
    if name == "words":
        return tuple(Word(**word) for word in value)
    if name == "gaps":
        return tuple(Gap(**gap) for gap in value)
    return tuple(_frozen("", item) for item in value)
