"""One recording from file to transcript.

    bytes -> decode -> 16 kHz mono -> speech regions -> chunks -> engine -> stitch -> segments

`Run` does this with three tasks joined by queues. Decoding runs ahead in a child process. Only a
limited number of chunks are at the engine at once, so that one long recording does not fill the
engine's own queue. Hypotheses return in any order and are stitched in the order of the chunks.
Segments are handed out as soon as later audio cannot change them.

Where channels are kept apart, each has its own chunks and segments (`asr.pipeline.channels`); they
share the three tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asr import tracing
from asr.audio.recording import Recording, channel_path
from asr.errors import AsrError, InvalidOption
from asr.pipeline.channels import ChannelPipeline, Merger
from asr.pipeline.wordless import why_wordless
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
    from pathlib import Path

    from asr.audio.recording import Decoded
    from asr.config import Options
    from asr.pipeline.checkpoint import Checkpoint
    from asr.pipeline.scheduler import Share
    from asr.pipeline.transcriber import Transcriber

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transcription has come, in seconds of audio.

    Attributes:
        decoded: how much has been decoded.
        transcribed: all segments before this time have been handed out.
        total: the length of the recording; while it is being decoded, the length that its header
            promises, or None.
    """

    decoded: float
    transcribed: float
    total: float | None


Event = Progress | Segment | Transcript


_Found = tuple[int, Chunk]
_Recognised = tuple[int, Chunk, "asyncio.Task[Hypothesis]"]


class Run:
    """The state of one transcription.

    Args:
        owner: recognises the chunks.
        target: where the decoder writes the samples of the first channel.
        reports: from the decoder.
        options: how to transcribe.
        share: the owner of the work.
        checkpoint: has the hypotheses of an earlier attempt and stores new ones.
    """

    def __init__(
        self,
        owner: Transcriber,
        target: Path,
        reports: AsyncGenerator[Decoded],
        options: Options,
        share: Share,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._owner = owner
        self._reports = reports
        self._share = share
        self._checkpoint = checkpoint
        self._options = options
        self._target = target
        self._channels: list[ChannelPipeline] = []
        self._merger = Merger(0, named=False)
        self._window = asyncio.Semaphore(2 * owner.engine.slots)
        self._chunks: asyncio.Queue[_Found | None] = asyncio.Queue()
        self._results: asyncio.Queue[_Recognised | None] = asyncio.Queue()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._decoded_samples = 0
        self._total: float | None = None
        self._warnings: list[str] = []
        self._levels: list[float | None] = []  # of the channels, when they are finished
        self._segments: list[Segment] = []

    async def events(self, warnings: Sequence[str]) -> AsyncGenerator[Event]:
        """Run the stages.

        Args:
            warnings: what the engine says about the options.

        Yields:
            `Progress` and `Segment`, and the `Transcript` at the end.
        """
        self._warnings += warnings
        started = time.perf_counter()
        stages = asyncio.create_task(self._stages())
        stages.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await stages
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            stages.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await stages
        transcript = self._transcript()
        logger.info(
            "transcribed %.1f s of audio, %.1f s of speech, in %.2f s with %s",
            transcript.duration,
            transcript.speech_seconds,
            time.perf_counter() - started,
            transcript.engine,
        )
        yield transcript

    async def _stages(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_traced("decode", self._find_chunks()))
            group.create_task(self._recognise_chunks(group))
            group.create_task(_traced("stitch", self._stitch_hypotheses()))

    async def _find_chunks(self) -> None:
        is_measured = self._options.vad.kind != "off"  # without a VAD all audio counts as speech
        async with contextlib.aclosing(self._reports):
            async for report in self._reports:
                if not self._channels:
                    self._open_channels(report.n_channels)
                for chunk in self._channels[report.channel].take(report):
                    known = chunk if is_measured else replace(chunk, speech_samples=None)
                    self._chunks.put_nowait((report.channel, known))
                self._release(report.channel, [])
                self._note(report)
        self._chunks.put_nowait(None)

    def _open_channels(self, n_channels: int) -> None:
        paths = [channel_path(self._target, channel) for channel in range(n_channels)]
        chunk = self._options.chunk
        if chunk.preferred_seconds is None:
            chunk = replace(chunk, preferred_seconds=self._owner.engine.preferred_seconds)
        self._channels = [ChannelPipeline(chunk, Recording(path)) for path in paths]
        self._merger = Merger(n_channels, named=self._options.channels == "split")

    def _note(self, report: Decoded) -> None:
        self._decoded_samples = report.n_samples
        self._warnings += report.warnings
        decoded = report.n_samples / SAMPLE_RATE
        promised = report.promised_seconds
        if report.finished:
            self._total = decoded
            self._levels.append(report.level)
        elif promised is not None and promised <= self._options.limits.max_seconds:
            self._total = max(promised, decoded)
        if report.channel == report.n_channels - 1:
            self._events.put_nowait(self._progress())

    def _progress(self) -> Progress:
        transcribed = min(it.transcribed for it in self._channels)
        return Progress(self._decoded_samples / SAMPLE_RATE, transcribed, self._total)

    async def _recognise_chunks(self, group: asyncio.TaskGroup) -> None:
        while (found := await self._chunks.get()) is not None:
            channel, chunk = found
            await self._window.acquire()
            task = group.create_task(self._recognise(channel, chunk))
            task.add_done_callback(lambda _: self._window.release())
            self._results.put_nowait((channel, chunk, task))
        self._results.put_nowait(None)

    async def _recognise(self, channel: int, chunk: Chunk) -> Hypothesis:
        """Recognise a chunk, unless the checkpoint has its hypothesis."""
        kept = self._checkpoint.get(channel, chunk) if self._checkpoint else None
        if kept is not None:
            return kept
        recording = self._channels[channel].recording
        try:
            hypothesis = await self._owner.recognise(chunk, recording, self._options, self._share)
        except Exception as error:
            vars(error)["chunk_index"] = chunk.index  # whoever judges the error looks at it
            raise
        if self._checkpoint:
            self._checkpoint.put(channel, chunk, hypothesis)
        return hypothesis

    async def _stitch_hypotheses(self) -> None:
        while (item := await self._results.get()) is not None:
            channel, chunk, task = item
            self._release(channel, self._channels[channel].stitch(chunk, await task))
            self._events.put_nowait(self._progress())

    def _release(self, channel: int, segments: list[Segment]) -> None:
        """Hand out segments of a channel, and those of other channels that waited for them."""
        pipeline = self._channels[channel]
        segments = segments + pipeline.rest()
        for segment in self._merger.push(channel, segments, pipeline.settled):
            self._segments.append(segment)
            self._events.put_nowait(segment)

    def _transcript(self) -> Transcript:
        engine, aligner = self._owner.engine, self._owner.aligner
        language = self._options.decode.language
        speech = sum(it.speech_samples for it in self._channels)
        dropped = self._decoded_samples * len(self._channels) - speech
        reasons = why_wordless(self._segments, self._levels, speech / SAMPLE_RATE)
        return Transcript(
            segments=tuple(self._segments),
            language=language or engine.language,
            duration=self._decoded_samples / SAMPLE_RATE,
            speech_seconds=speech / SAMPLE_RATE,
            dropped_seconds=dropped / SAMPLE_RATE,
            engine=engine.name,
            aligner=aligner.name if aligner and _is_aligned(self._segments) else None,
            warnings=(*self._warnings, *reasons),
        )


async def _traced(name: str, stage: Coroutine[Any, Any, None]) -> None:
    with tracing.span(name):
        await stage


def _is_aligned(segments: Iterable[Segment]) -> bool:
    """Whether the aligner timed any word; it does not change times from the engine."""
    return any(word.timing != "engine" for segment in segments for word in segment.words)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report: the user's mistake, else one of `asr.errors`, else any other."""
    flat = list(_flatten(group))
    for kind in (InvalidOption, AsrError, Exception):
        for error in flat:
            if isinstance(error, kind):
                return error
    return flat[0]


def _flatten(group: BaseExceptionGroup[BaseException]) -> Sequence[BaseException]:
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat += _flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return flat
