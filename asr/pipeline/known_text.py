"""Find the time of every word of a known text in its recording.

    bytes -> decode -> speech regions -> chunks -> engine -> anchors -> pieces -> aligner -> words

The engine only tells roughly where each part of the text is (`asr.align.longform`). Its own words
are then discarded, and the words of the text are aligned piece by piece. With an aligner, a
recording of a single chunk needs no engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.align.interpolate import Interpolator
from asr.align.longform import Piece, Plan, make_plan, place
from asr.audio.recording import Recording
from asr.config import Options, check
from asr.engines.base import settle
from asr.pipeline.chunking import make_chunks
from asr.pipeline.run import Progress
from asr.pipeline.stitch import Stitcher, stitch
from asr.pipeline.transcriber import Transcriber, collect, make_transcriber, run_apart
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, SpeechRegion, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from asr.align.base import Aligner
    from asr.pipeline.run import Event

MAX_TEXT: Final = 2_000_000
"""Characters; reading so many aloud takes more than a day."""
MAX_RATE: Final = 100.0
"""Characters per second of audio, four times as fast as anybody speaks. A text that would have to
be spoken faster belongs to another recording."""

T = TypeVar("T")


def tokens_of(text: str) -> list[str]:
    """The words of a text to align.

    Raises:
        InvalidOption: the text is empty or too long.
    """
    check(len(text) <= MAX_TEXT, "text", f"has {len(text)} characters; the limit is {MAX_TEXT}")
    tokens = text.split()
    check(bool(tokens), "text", "is empty; send the words of the recording")
    return tokens


def align_text(
    source: str | Path,
    text: str,
    *,
    options: Options | None = None,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Transcript:
    """Find the time of each word of a known text in a recording, and wait for it.

    Args:
        source: the file.
        text: the words of the recording.
        options: how to read the recording; its channels are always mixed.
        settings: choose the engine; by default they are read from the ``ASR_*`` variables.
        on_event: called with each `Progress`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed or cannot be used.
        InvalidOption: the text is empty, or far too long for the recording.
    """
    chosen, known = options or Options(), settings or Settings.from_env()

    async def work() -> Transcript:
        async with make_transcriber(known) as transcriber:
            return await collect(align_file(transcriber, Path(source), text, chosen), on_event)

    return run_apart(work())


async def align_file(
    transcriber: Transcriber,
    source: Path,
    text: str,
    options: Options,
    work_dir: Path | None = None,
) -> AsyncGenerator[Event]:
    """Align one recording.

    Args:
        transcriber: gives the engine and the aligner. Without an aligner, words that the engine
            heard too have the engine's times, and the other words are interpolated.
        source: the file.
        text: the words of the recording.
        options: how to read the recording; its channels are always mixed.
        work_dir: folder for the decoded audio while this runs.

    Yields:
        `Progress`: its first half is recognition, its second half alignment. At the end each
        `Segment` and the `Transcript`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed on a chunk.
        InvalidOption: the text or an option cannot be used.
    """
    tokens = tokens_of(text)
    decode, ignored = settle(transcriber.engine, options.decode)
    with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
        target = Path(folder) / "audio.pcm"
        run = _Run(
            transcriber, tokens, replace(options, decode=decode, channels="mix"), Recording(target)
        )
        async with contextlib.aclosing(run.events(source, ignored)) as events:
            async for event in events:
                yield event


class _Run:
    """The state of one alignment."""

    def __init__(
        self, owner: Transcriber, tokens: Sequence[str], options: Options, recording: Recording
    ) -> None:
        self._owner = owner
        self._aligner: Aligner = owner.aligner or Interpolator()
        self._tokens = tokens
        self._options = options
        self._recording = recording
        self._regions: list[SpeechRegion] = []
        self._warnings: list[str] = []
        self._n_samples = 0
        self._places = asyncio.Semaphore(2 * owner.engine.slots)  # limits the pieces in memory

    async def events(self, source: Path, warnings: Iterable[str]) -> AsyncGenerator[Event]:
        """Run the stages one after the other."""
        self._warnings += warnings
        async with contextlib.aclosing(self._decode(source)) as progress:
            async for event in progress:
                yield event
        seconds = self._n_samples / SAMPLE_RATE
        n_letters = sum(map(len, self._tokens))
        fits = n_letters <= MAX_RATE * max(seconds, 1)
        check(fits, "text", f"has {n_letters} letters, too many for {seconds:.1f} seconds of audio")
        chunks = make_chunks(self._regions, self._options.chunk, self._recording.read)
        if self._options.vad.kind == "off":  # without a VAD the amount of speech is unknown
            chunks = [replace(chunk, speech_samples=None) for chunk in chunks]
        hypotheses: list[Hypothesis] = []
        if len(chunks) > 1 or self._owner.aligner is None:
            async for chunk, hypothesis in _in_order(self._recognise(chunk) for chunk in chunks):
                hypotheses.append(hypothesis)
                yield self._progress(chunk.end / 2)
        plan = await asyncio.to_thread(self._plan, chunks, hypotheses)
        aligned: list[tuple[Word, ...]] = []
        async for piece, words in _in_order(self._align(piece) for piece in plan.pieces):
            aligned.append(words)
            yield self._progress((seconds + piece.end) / 2)
        transcript = self._transcript(chunks, place(self._tokens, plan, aligned), plan)
        for segment in transcript.segments:
            yield segment
        yield self._progress(seconds)
        yield transcript if hypotheses else replace(transcript, engine="given text")

    async def _decode(self, source: Path) -> AsyncGenerator[Event]:
        reports = self._owner.decode(source, self._recording.path, self._options)
        async with contextlib.aclosing(reports):
            async for report in reports:
                self._regions += report.closed
                self._warnings += report.warnings
                self._n_samples = report.n_samples
                yield self._progress(0.0)

    def _progress(self, done: float) -> Progress:
        seconds = self._n_samples / SAMPLE_RATE
        return Progress(seconds, min(done, seconds), seconds)

    async def _recognise(self, chunk: Chunk) -> tuple[Chunk, Hypothesis]:
        return chunk, await self._owner.recognise(chunk, self._recording, self._options)

    def _plan(self, chunks: Sequence[Chunk], hypotheses: Sequence[Hypothesis]) -> Plan:
        if not self._regions:
            return Plan((), {}, ("no speech was found",))
        if not hypotheses:
            piece = Piece(self._regions[0].start, self._regions[-1].end, 0, len(self._tokens))
            return Plan((piece,), {}, ())
        heard = [word for segment in stitch(chunks, hypotheses) for word in segment.words]
        return make_plan(self._tokens, heard, self._regions)

    async def _align(self, piece: Piece) -> tuple[Piece, tuple[Word, ...]]:
        text = " ".join(self._tokens[piece.first : piece.last])
        async with self._places:
            audio = await asyncio.to_thread(
                self._recording.read, piece.start_sample, piece.end_sample
            )
            hypothesis = await self._aligner.align(audio, Hypothesis(0, text))
        return piece, hypothesis.words

    def _transcript(self, chunks: Sequence[Chunk], words: Sequence[Word], plan: Plan) -> Transcript:
        engine = self._owner.engine
        whole = Chunk(0, 0, self._n_samples)
        stitcher = Stitcher()
        segments = stitcher.push(whole, Hypothesis(0, " ".join(self._tokens), tuple(words)))
        n_heard = sum(chunk.end_sample - chunk.start_sample - chunk.overlap for chunk in chunks)
        return Transcript(
            segments=tuple(segments + stitcher.finish()),
            language=self._options.decode.language or engine.language,
            duration=whole.duration,
            speech_seconds=n_heard / SAMPLE_RATE,
            dropped_seconds=(self._n_samples - n_heard) / SAMPLE_RATE,
            engine=f"given text, found with {engine.name}",
            aligner=self._aligner.name,
            warnings=(*self._warnings, *plan.warnings),
        )


async def _in_order(works: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[T]:
    """Run all coroutines at once and yield their results in order; closing it cancels the rest."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
