"""Split a long recording into pieces for several workers, and stitch what they recognised.

The transcript equals that of a single process, because every step is the pipeline's own:

1. Plan: the pipeline decodes the recording and cuts it into chunks. A checkpoint answers each chunk
   at once, so no engine is needed. The samples, the reports of the decoder and the chunks are kept.
2. Each piece, a run of chunks, is recognised on its own. A chunk does not depend on other chunks.
3. Stitch: the pipeline runs again on the kept reports, with a checkpoint that knows every chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asr.audio.recording import Decoded, Recording, channel_path
from asr.engines.base import settle
from asr.pipeline.checkpoint import Records, pack_chunk, pack_missing
from asr.pipeline.missing import Missing, reason_of
from asr.pipeline.run import Run
from asr.pipeline.scheduler import NOBODY
from asr.pipeline.speakers import SpeakerTracker
from asr.pipeline.transcriber import collect
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, SpeechRegion

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from pathlib import Path

    from asr.config import Options
    from asr.pipeline.checkpoint import Checkpoint, Place
    from asr.pipeline.transcriber import Transcriber
    from asr.types import Transcript

LATEST: Final = 1.5
"""A piece is cut within speech only if no silence came until this multiple of its length."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A long recording that was decoded and cut.

    Attributes:
        reports: of the decoder.
        pieces: the chunks of each piece, with their channels.
    """

    reports: tuple[Decoded, ...]
    pieces: tuple[tuple[Place, ...], ...]

    @property
    def n_channels(self) -> int:
        """How many channels are kept apart."""
        return self.reports[0].n_channels

    @property
    def n_samples(self) -> int:
        """Samples of each channel."""
        return self.reports[-1].n_samples

    def span(self, number: int, channel: int) -> tuple[int, int]:
        """The samples of one channel that a piece needs; (0, 0) if none."""
        chunks = [chunk for own, chunk in self.pieces[number] if own == channel]
        if not chunks:
            return 0, 0
        return min(it.start_sample for it in chunks), max(it.end_sample for it in chunks)

    def pack(self) -> str:
        """As JSON."""
        pieces = [[(channel, asdict(it)) for channel, it in piece] for piece in self.pieces]
        return json.dumps({"reports": [asdict(it) for it in self.reports], "pieces": pieces})

    @classmethod
    def unpack(cls, text: str | bytes) -> Plan:
        """The plan of a JSON text."""
        facts = json.loads(text)
        pieces = tuple(
            tuple((channel, Chunk(**it)) for channel, it in piece) for piece in facts["pieces"]
        )
        return cls(tuple(map(_report, facts["reports"])), pieces)


def _report(facts: dict[str, Any]) -> Decoded:
    region = facts["open_region"]
    regions = {
        "closed": tuple(SpeechRegion(**it) for it in facts["closed"]),
        "open_region": region and SpeechRegion(**region),
    }
    lists = {name: tuple(facts[name]) for name in ("warnings", "labels")}
    return Decoded(**{**facts, **regions, **lists})


class _Collector:
    """A checkpoint that notes each chunk and answers it with no words."""

    def __init__(self) -> None:
        self.places: list[Place] = []

    def get(self, channel: int, chunk: Chunk) -> Hypothesis | Missing | None:
        self.places.append((channel, chunk))
        return Hypothesis(chunk.index, "")

    def put(self, *_: object) -> None:
        raise AssertionError("every chunk was answered")

    def fail(self, *_: object) -> None:
        raise AssertionError("every chunk was answered")


async def make_plan(
    transcriber: Transcriber,
    source: Path,
    target: Path,
    options: Options,
    piece_seconds: float,
    on_step: Callable[[], None] = lambda: None,
) -> Plan:
    """Decode a recording and cut it into pieces.

    Args:
        transcriber: decodes the recording. Its engine is not used.
        source: the recording.
        target: for the samples of channel 0; those of others go to their `channel_path`.
        options: how to transcribe.
        piece_seconds: about how long a piece is.
        on_step: called for each report of the decoder.

    Raises:
        AudioError: the recording cannot be used.
    """
    options, _ = _settled(transcriber, replace(options, speakers=None))
    reports: list[Decoded] = []

    async def kept() -> AsyncGenerator[Decoded]:
        async with contextlib.aclosing(transcriber.decode(source, target, options)) as found:
            async for report in found:
                reports.append(report)
                on_step()
                yield report

    collector = _Collector()
    await _run(transcriber, target, kept(), options, collector)
    return Plan(tuple(reports), cut(collector.places, piece_seconds))


def cut(places: Sequence[Place], piece_seconds: float) -> tuple[tuple[Place, ...], ...]:
    """Group chunks into pieces that end in silence if possible."""
    pieces: list[tuple[Place, ...]] = []
    piece: list[Place] = []
    for place in sorted(places, key=lambda it: (it[1].start_sample, it[0])):
        chunk = place[1]
        length = chunk.start - piece[0][1].start if piece else 0.0
        is_silent = chunk.overlap == 0
        if length >= piece_seconds * (1.0 if is_silent else LATEST):
            pieces.append(tuple(piece))
            piece = []
        piece.append(place)
    return (*pieces, tuple(piece)) if piece else tuple(pieces)


async def recognise_piece(
    transcriber: Transcriber,
    places: Sequence[Place],
    recordings: Mapping[int, Recording],
    options: Options,
    on_step: Callable[[], None] = lambda: None,
) -> list[str]:
    """Recognise the chunks of a piece; return a record for each.

    Args:
        transcriber: with the engine.
        places: the chunks of the piece.
        recordings: the samples of each channel.
        options: how to transcribe.
        on_step: called for each chunk.

    Raises:
        EngineError: the engine failed on a chunk, and the options allow no gaps.
    """
    options, _ = _settled(transcriber, options)
    speakers = None
    if options.speakers is not None:
        speakers = SpeakerTracker(transcriber.diariser, options.speakers, ())
    window = asyncio.Semaphore(2 * transcriber.engine.slots)

    async def record(place: Place) -> str:
        channel, chunk = place
        async with window:
            try:
                heard = await transcriber.recognise(chunk, recordings[channel], options, NOBODY)
                if speakers is not None:
                    audio = await transcriber.audible(chunk, recordings[channel])
                    heard = await speakers.hear(audio, heard)
            except Exception as error:
                reason = reason_of(error) if options.on_error == "gap" else None
                if reason is None:
                    raise
                return pack_missing(place, reason, transcriber.engine.name)
        on_step()
        return pack_chunk(place, heard, transcriber.engine.name)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(record(place)) for place in places]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def stitch_pieces(
    transcriber: Transcriber, plan: Plan, target: Path, records: Sequence[str], options: Options
) -> Transcript:
    """The transcript of a recording from the records of all its chunks.

    Args:
        transcriber: names the engine; it recognises only chunks that lack a record.
        plan: of the recording.
        target: samples of channel 0, see `make_plan`.
        records: of all pieces.
        options: how to transcribe.

    Raises:
        TooMuchMissing: gaps take more than half of the recording.
    """
    options, warnings = _settled(transcriber, options)

    async def replayed() -> AsyncGenerator[Decoded]:
        for report in plan.reports:
            yield report

    known = Records(records, transcriber.engine.name, keep=lambda *_: None)
    return await _run(transcriber, target, replayed(), options, known, warnings)


async def _run(
    transcriber: Transcriber,
    target: Path,
    reports: AsyncGenerator[Decoded],
    options: Options,
    checkpoint: Checkpoint,
    warnings: tuple[str, ...] = (),
) -> Transcript:
    run = Run(transcriber, target, reports, options, NOBODY, checkpoint)
    return await collect(run.events(warnings))


def _settled(transcriber: Transcriber, options: Options) -> tuple[Options, tuple[str, ...]]:
    """The options that fit the engine, and what it says about them, as `transcribe_file` does."""
    decode, warnings = settle(transcriber.engine, options.decode)
    return replace(options, decode=decode), warnings


def seconds_of(plan: Plan) -> float:
    """Seconds of audio."""
    return plan.n_samples / SAMPLE_RATE


def local_names(plan: Plan, target: Path) -> list[Path]:
    """The files of samples of a plan that was made here."""
    return [channel_path(target, channel) for channel in range(plan.n_channels)]
