"""One recording from file to transcript.

    bytes -> decode -> 16 kHz mono -> speech regions -> chunks -> engine -> stitch -> segments

`Run` does this with three tasks joined by queues. Decoding runs ahead in a child process. Only a
limited number of chunks are at the engine at once, so that one long recording does not fill the
engine's own queue. Hypotheses return in any order and are stitched in the order of the chunks.
Segments are handed out as soon as later audio cannot change them.

With ``on_error="gap"``, a chunk that fails leaves a `Gap` and the rest is transcribed. With a
checkpoint, the chunk may succeed in a later attempt. So the run goes on for some chunks, to
keep their hypotheses and to learn which of them fail too, and then ends with the error. Whoever
keeps the checkpoint decides when a chunk is given up: then `Checkpoint.get` returns `Missing`.

Where channels are kept apart, each has its own chunks and segments (`asr.pipeline.channels`); they
share the three tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asr import tracing
from asr.audio.recording import Recording, channel_path
from asr.counters import COUNTS
from asr.errors import AsrError, DamagedAudio, InvalidOption
from asr.pipeline.channels import ChannelPipeline, Merger
from asr.pipeline.missing import Missing, check_share, merged, reason_of
from asr.pipeline.speakers import SpeakerTracker
from asr.pipeline.wordless import why_wordless
from asr.types import SAMPLE_RATE, Audio, Chunk, Gap, Hypothesis, Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
    from pathlib import Path

    from asr.audio.recording import Decoded
    from asr.config import Options
    from asr.pipeline.checkpoint import Checkpoint
    from asr.pipeline.scheduler import Share
    from asr.pipeline.speakers import SpeakerMemory
    from asr.pipeline.transcriber import Transcriber

logger = logging.getLogger(__name__)

LOOK_AHEAD: Final = 16
"""Chunks that a run with a checkpoint still recognises after one has failed. If they fail too, they
are given up together; more of them would delay the next attempt at the first one."""


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


Event = Progress | Segment | Gap | Transcript


_Found = tuple[int, Chunk]
_Heard = Hypothesis | Missing | None
"""None: the chunk failed in this attempt, and a later one may recognise it."""
_Recognised = tuple[int, Chunk, "asyncio.Task[_Heard]"]


class Run:
    """The state of one transcription.

    Args:
        owner: recognises the chunks.
        target: where the decoder writes the samples of the first channel.
        reports: from the decoder.
        options: how to transcribe.
        share: the owner of the work.
        checkpoint: has the hypotheses of an earlier attempt and stores new ones.
        memory: the voices of a live session, if the recording is a turn of one.
    """

    def __init__(
        self,
        owner: Transcriber,
        target: Path,
        reports: AsyncGenerator[Decoded],
        options: Options,
        share: Share,
        checkpoint: Checkpoint | None = None,
        *,
        memory: SpeakerMemory | None = None,
    ) -> None:
        self._owner = owner
        self._reports = reports
        self._share = share
        self._checkpoint = checkpoint
        self._memory = memory
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
        self._gaps: list[Gap] = []
        self._failure: Exception | None = None  # of the first chunk that a later attempt may get
        self._is_decoded = False
        self._speakers: SpeakerTracker | None = None

    async def events(self, warnings: Sequence[str]) -> AsyncGenerator[Event]:
        """Run the stages.

        Args:
            warnings: what the engine says about the options.

        Yields:
            `Progress`, `Segment` and `Gap`, and the `Transcript` at the end.

        Raises:
            TooMuchMissing: gaps take more than half of the recording.
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
        transcript = await self._with_speakers(self._transcript())
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
                    self._open_channels(report.n_channels, report.labels)
                for chunk in self._channels[report.channel].take(report):
                    known = chunk if is_measured else replace(chunk, speech_samples=None)
                    self._chunks.put_nowait((report.channel, known))
                self._release(report.channel, [])
                self._note(report)
        self._is_decoded = True
        self._check_share()
        self._chunks.put_nowait(None)

    def _open_channels(self, n_channels: int, labels: Sequence[str]) -> None:
        paths = [channel_path(self._target, channel) for channel in range(n_channels)]
        chunk = self._options.chunk
        if chunk.preferred_seconds is None:
            chunk = replace(chunk, preferred_seconds=self._owner.engine.preferred_seconds)
        self._channels = [ChannelPipeline(chunk, Recording(path)) for path in paths]
        is_split = self._options.channels == "split"
        self._merger = Merger(n_channels, named=is_split, labels=labels)
        if self._options.speakers is not None:
            names = self._merger.labels if is_split else ()
            self._speakers = SpeakerTracker(
                self._owner.diariser, self._options.speakers, names, self._memory, self._audible
            )

    async def _audible(self, channel: int, chunk: Chunk) -> Audio:
        return await self._owner.audible(chunk, self._channels[channel].recording)

    def _note(self, report: Decoded) -> None:
        self._decoded_samples = report.n_samples
        self._warnings += report.warnings
        decoded = report.n_samples / SAMPLE_RATE
        promised = report.promised_seconds
        if report.finished:
            self._levels.append(report.level)
        if report.stopped:
            self._total = self._end_of(report)
        elif report.finished:
            self._total = decoded
        elif promised is not None and promised <= self._options.limits.max_seconds:
            self._total = max(promised, decoded)
        if report.channel == report.n_channels - 1:
            self._events.put_nowait(self._progress())

    def _end_of(self, report: Decoded) -> float:
        """Seconds of a recording that could not be decoded to its end.

        Raises:
            DamagedAudio: the end is unknown, so nobody can tell how much is missing.
        """
        promised, decoded = report.promised_seconds or 0.0, report.n_samples / SAMPLE_RATE
        if not decoded < promised <= self._options.limits.max_seconds:
            raise DamagedAudio(report.stopped, decoded)
        return promised

    def _progress(self) -> Progress:
        transcribed = min(it.transcribed for it in self._channels)
        return Progress(self._decoded_samples / SAMPLE_RATE, transcribed, self._total)

    async def _recognise_chunks(self, group: asyncio.TaskGroup) -> None:
        n_ahead = 0
        while (found := await self._chunks.get()) is not None and n_ahead <= LOOK_AHEAD:
            channel, chunk = found
            n_ahead += self._failure is not None
            await self._window.acquire()
            task = group.create_task(self._recognise(channel, chunk))
            task.add_done_callback(lambda _: self._window.release())
            self._results.put_nowait((channel, chunk, task))
        self._results.put_nowait(None)

    async def _recognise(self, channel: int, chunk: Chunk) -> _Heard:
        """Recognise a chunk, unless the checkpoint has its hypothesis."""
        kept = self._checkpoint.get(channel, chunk) if self._checkpoint else None
        if isinstance(kept, Missing):
            return kept
        if kept is not None:
            return await self._voiced(channel, chunk, kept, is_new=False)
        recording = self._channels[channel].recording
        try:
            hypothesis = await self._owner.recognise(chunk, recording, self._options, self._share)
        except Exception as error:  # noqa: BLE001  # `_miss` judges it
            # whoever judges the error looks at these
            vars(error).update(chunk_index=chunk.index, channel=channel)
            return self._miss(channel, chunk, error)
        return await self._voiced(channel, chunk, hypothesis, is_new=True)

    async def _voiced(
        self, channel: int, chunk: Chunk, hypothesis: Hypothesis, *, is_new: bool
    ) -> Hypothesis:
        """Add the voices if speakers are told apart; store what is new."""
        found = hypothesis
        if self._speakers is not None and hypothesis.voices is None:
            audio = await self._audible(channel, chunk)
            found = await self._speakers.hear(audio, hypothesis)
        if self._checkpoint and (is_new or found is not hypothesis):
            self._checkpoint.put(channel, chunk, found)
        return found

    def _miss(self, channel: int, chunk: Chunk, error: Exception) -> Missing | None:
        """Take note of a chunk that failed, or raise its error if no gap may replace it."""
        reason = reason_of(error) if self._options.on_error == "gap" else None
        if reason is None:
            raise error
        place = f"chunk {chunk.index} at {chunk.start:.1f} s"
        logger.warning("%s failed: %s", place, error, exc_info=not isinstance(error, AsrError))
        COUNTS["chunks_failed"] += 1
        if self._checkpoint is None:
            return Missing(reason)
        self._checkpoint.fail(channel, chunk, reason)
        self._failure = self._failure or error
        return None

    async def _stitch_hypotheses(self) -> None:
        is_blocked = False
        while (item := await self._results.get()) is not None:
            channel, chunk, task = item
            heard = await task
            is_blocked = is_blocked or heard is None
            if heard is None or is_blocked:
                continue
            segments = self._channels[channel].stitch(chunk, heard)
            if self._speakers is not None:
                voices = None if isinstance(heard, Missing) else heard.voices
                words = () if isinstance(heard, Missing) else heard.words
                self._speakers.add(channel, chunk, voices, words)
                await self._speakers.refresh(channel)
            self._tell_gaps(channel)
            self._release(channel, segments)
            self._check_share()
            self._events.put_nowait(self._progress())
        if self._failure is not None:
            raise self._failure
        self._tell_the_end()

    def _tell_gaps(self, channel: int) -> None:
        """Hand out the new gaps of a channel."""
        for gap in self._channels[channel].take_gaps():
            named = self._merger.named(gap, channel)
            self._gaps.append(named)
            self._events.put_nowait(named)

    def _tell_the_end(self) -> None:
        """Hand out the last gaps. If the decoder stopped, its gap is the last one."""
        for channel in range(len(self._channels)):
            self._tell_gaps(channel)
        decoded = self._decoded_samples / SAMPLE_RATE
        if self._total is not None and self._total > decoded:
            gap = Gap(decoded, self._total, "decoder_stopped")
            self._gaps.append(gap)
            self._events.put_nowait(gap)

    def _check_share(self) -> None:
        """Check that at most half is missing, as soon as the length is known."""
        if self._is_decoded:
            n_missing = sum(it.n_missing for it in self._channels)
            n_speech = sum(it.speech_samples for it in self._channels)
            decoded = self._decoded_samples / SAMPLE_RATE
            check_share(n_missing, n_speech, decoded, self._total or decoded)

    def _release(self, channel: int, segments: list[Segment]) -> None:
        """Hand out segments of a channel, and those of other channels that waited for them."""
        pipeline = self._channels[channel]
        segments = segments + pipeline.rest()
        for segment in self._merger.push(channel, segments, pipeline.settled):
            self._segments.append(segment)
            for told in self._speakers.tell(segment) if self._speakers else [segment]:
                self._events.put_nowait(told)

    async def _with_speakers(self, transcript: Transcript) -> Transcript:
        """The transcript with its final speakers, if they are told apart."""
        if self._speakers is None:
            return transcript
        segments = await self._speakers.finish(transcript.segments)
        warnings = (*transcript.warnings, *self._speakers.warnings)
        return replace(transcript, segments=segments, warnings=warnings)

    def _transcript(self) -> Transcript:
        engine, aligner = self._owner.engine, self._owner.aligner
        language = self._options.decode.language
        speech = sum(it.speech_samples for it in self._channels)
        dropped = self._decoded_samples * len(self._channels) - speech
        reasons = why_wordless(self._segments, self._levels, speech / SAMPLE_RATE)
        return Transcript(
            segments=tuple(self._segments),
            language=language or engine.language,
            duration=self._total or self._decoded_samples / SAMPLE_RATE,
            speech_seconds=speech / SAMPLE_RATE,
            dropped_seconds=dropped / SAMPLE_RATE,
            engine=engine.name,
            aligner=aligner.name if aligner and _is_aligned(self._segments) else None,
            warnings=(*self._warnings, *_gap_warnings(self._gaps), *reasons),
            gaps=merged(self._gaps),
        )


def _gap_warnings(gaps: Sequence[Gap]) -> Iterable[str]:
    if gaps:
        seconds = sum(gap.end - gap.start for gap in gaps)
        yield f"{seconds:.1f} s could not be transcribed: see gaps"


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
