"""A known text and its recording -> a time for every word of it.

    bytes -> decode -> speech regions -> chunks -> engine -> anchors -> pieces -> aligner -> words

The engine only says roughly where the text has come (`asr.align.longform`); what it heard is
forgotten, and the words of the text are aligned piece by piece. A recording that is one chunk and
for which there is an aligner needs no engine at all.
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
"""Characters: what is read aloud in a day and more."""
MAX_RATE: Final = 100.0
"""Characters a second of audio, four times what anybody says: a text for another recording."""

T = TypeVar("T")


def tokens_of(text: str) -> list[str]:
    """The words of a text that is to be aligned.

    Raises:
        InvalidOption: it has none, or too many.
    """
    check(len(text) <= MAX_TEXT, "text", f"has {len(text)} characters; {MAX_TEXT} are allowed")
    tokens = text.split()
    check(bool(tokens), "text", "is empty; send the words that are said in the recording")
    return tokens


def align_text(
    source: str | Path,
    text: str,
    *,
    options: Options | None = None,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Transcript:
    """Give each word of a known text its time in a recording, and wait for it.

    Args:
        source: the file.
        text: what is said in it.
        options: what to do with it; channels are mixed.
        settings: which engine; read from the ``ASR_*`` variables when not given.
        on_event: called with each `Progress` as it comes.

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
        transcriber: whose engine and aligner are used; without an aligner, words have the times at
            which the engine heard them, and the others lie between.
        source: the file.
        text: what is said in it.
        options: what the request chose; channels are mixed.
        work_dir: where the decoded audio lies meanwhile.

    Yields:
        `Progress`, in which recognition is the first half of the way; at the end each `Segment`
        and the `Transcript`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed on a chunk.
        InvalidOption: the text or an option cannot be used.
    """
    tokens = tokens_of(text)
    ignored = transcriber.engine.check(options.decode)
    with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
        target = Path(folder) / "audio.pcm"
        run = _Run(transcriber, tokens, replace(options, channels="mix"), Recording(target))
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
        self._places = asyncio.Semaphore(2 * owner.engine.slots)  # pieces in memory at once

    async def events(self, source: Path, warnings: Iterable[str]) -> AsyncGenerator[Event]:
        """Run the stages one after the other."""
        self._warnings += warnings
        async with contextlib.aclosing(self._decode(source)) as progress:
            async for event in progress:
                yield event
        seconds = self._n_samples / SAMPLE_RATE
        n_letters = sum(map(len, self._tokens))
        fits = n_letters <= MAX_RATE * max(seconds, 1)
        check(fits, "text", f"has {n_letters} letters, which nobody says in {seconds:.1f} seconds")
        chunks = make_chunks(self._regions, self._options.chunk, self._recording.read)
        if self._options.vad.kind == "off":  # then nobody measured how much of them is speech
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
    """The results of works that all run at once; leaving early cancels the rest."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
