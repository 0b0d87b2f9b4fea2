"""Find the time of every word of a known text in its recording.

    bytes -> decode -> speech regions -> chunks -> engine -> anchors -> pieces -> aligner -> words

The engine tells roughly where each part of the text is (`asr.align.longform`). The words of the
text are then aligned piece by piece. With an aligner, a recording of a single chunk is first
aligned without the engine, which is asked only if the aligner has doubts.

At the end the text is compared with what the engine heard (`asr.align.mismatch`). Words that were
not said get a low confidence, and warnings name them and the speech that the text lacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.align.interpolate import Interpolator
from asr.align.longform import Piece, Plan, make_plan, place
from asr.align.mismatch import compare, is_suspicious, joined, without_trust
from asr.audio.recording import Recording
from asr.config import Options, check
from asr.engines.base import settle
from asr.errors import EngineError, without_places
from asr.pipeline.chunking import make_chunks
from asr.pipeline.recognition import speaks
from asr.pipeline.run import Progress
from asr.pipeline.script_segments import script_segments
from asr.pipeline.script_speakers import with_speakers
from asr.pipeline.stitch import stitch
from asr.pipeline.text_warnings import text_warnings
from asr.pipeline.transcriber import Transcriber, collect, make_transcriber, run_apart
from asr.settings import Settings
from asr.spacing import tokens_in
from asr.text.script import MAX_TEXT, read_script
from asr.text.spread import spread_words
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, SpeechRegion, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from asr.align.base import Aligner
    from asr.pipeline.run import Event
    from asr.text.script import Script

logger = logging.getLogger(__name__)

MAX_RATE: Final = 100.0
"""Characters per second of audio, four times as fast as anybody speaks. A text that would have to
be spoken faster belongs to another recording."""

__all__ = ["MAX_TEXT", "align_file", "align_text", "tokens_of"]

T = TypeVar("T")


def tokens_of(text: str) -> list[str]:
    """The words of a text to align.

    Raises:
        InvalidOption: the text cannot be used; see `read_script`.
    """
    return read_script(text).tokens


def align_text(
    source: str | Path,
    text: str,
    *,
    options: Options | None = None,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    keep_lines: bool | None = None,
) -> Transcript:
    """Find the time of each word of a known text in a recording, and wait for it.

    Args:
        source: the file.
        text: the words of the recording: plain text, SRT, WebVTT or LRC.
        options: how to read the recording; its channels are always mixed.
        settings: choose the engine; by default they are read from the ``ASR_*`` variables.
        on_event: called with each `Progress`.
        keep_lines: see `align_file`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed or cannot be used.
        InvalidOption: the text is empty, or far too long for the recording.
    """
    chosen, known = options or Options(), settings or Settings.from_env()

    async def work() -> Transcript:
        async with make_transcriber(known) as transcriber:
            events = align_file(transcriber, Path(source), text, chosen, keep_lines=keep_lines)
            return await collect(events, on_event)

    return run_apart(work())


async def align_file(
    transcriber: Transcriber,
    source: Path,
    text: str,
    options: Options,
    work_dir: Path | None = None,
    *,
    keep_lines: bool | None = None,
) -> AsyncGenerator[Event]:
    """Align one recording.

    Args:
        transcriber: gives the engine and the aligner. Without an aligner, words that the engine
            heard too have the engine's times, and the other words are interpolated.
        source: the file.
        text: the words of the recording: plain text, SRT, WebVTT or LRC.
        options: how to read the recording; its channels are always mixed.
        work_dir: folder for the decoded audio while this runs.
        keep_lines: make each line of the text one segment and one cue. By default this is done for
            SRT, WebVTT and LRC.

    Yields:
        `Progress`: its first half is recognition, its second half alignment. At the end each
        `Segment` and the `Transcript`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed on a chunk.
        InvalidOption: the text or an option cannot be used.
    """
    transcriber.check_speakers(options)
    script = await asyncio.to_thread(read_script, text)
    keeps = script.is_timed if keep_lines is None else keep_lines
    decode, ignored = settle(transcriber.engine, options.decode)
    with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
        target = Path(folder) / "audio.pcm"
        mixed = replace(options, decode=decode, channels="mix")
        run = _Run(transcriber, script, mixed, Recording(target), keep_lines=keeps)
        async with contextlib.aclosing(run.events(source, ignored)) as events:
            async for event in events:
                yield event


class _Run:
    """The state of one alignment."""

    def __init__(
        self,
        owner: Transcriber,
        script: Script,
        options: Options,
        recording: Recording,
        *,
        keep_lines: bool,
    ) -> None:
        self._owner = owner
        self._aligner: Aligner = owner.aligner or Interpolator()
        self._script = script
        self._tokens = script.said
        self._options = options
        self._recording = recording
        self._keep_lines = keep_lines
        self._regions: list[SpeechRegion] = []
        self._warnings: list[str] = []
        self._found: list[Hypothesis] = []  # for each piece
        self._heard: list[Word] | None = None  # None if the engine was not asked
        self._n_samples = 0
        self._places = asyncio.Semaphore(2 * owner.engine.slots)  # limits the pieces in memory
        language = options.decode.language or owner.engine.language
        self._is_calibrated = owner.is_calibrated and speaks(self._aligner, language)

    async def events(self, source: Path, warnings: Iterable[str]) -> AsyncGenerator[Event]:
        """Run the stages one after the other."""
        self._warnings += warnings
        async with contextlib.aclosing(self._decode(source)) as progress:
            async for event in progress:
                yield event
        seconds = self._n_samples / SAMPLE_RATE
        self._check_length(seconds)
        chunks = self._chunks()
        first: Plan | None = None
        if len(chunks) == 1 and self._owner.aligner is not None:
            first = self._whole()
            self._found = [(await self._align(first.pieces[0]))[1]]
        if first is None or self._is_doubted():
            async with contextlib.aclosing(self._hear(chunks, may_fail=first is not None)) as heard:
                async for event in heard:
                    yield event
        plan = await asyncio.to_thread(self._plan)
        if first is None or plan.pieces != first.pieces:
            self._found = []
            async for piece, found in _in_order(self._align(piece) for piece in plan.pieces):
                self._found.append(found)
                yield self._progress((seconds + piece.end) / 2)
        transcript = await self._spoken(
            await asyncio.to_thread(self._transcript, chunks, plan), plan
        )
        for segment in transcript.segments:
            yield segment
        yield self._progress(seconds)
        yield transcript

    def _check_length(self, seconds: float) -> None:
        n_letters = sum(map(len, self._tokens))
        fits = n_letters <= MAX_RATE * max(seconds, 1)
        check(fits, "text", f"has {n_letters} letters, too many for {seconds:.1f} seconds of audio")

    def _chunks(self) -> list[Chunk]:
        chunks = make_chunks(self._regions, self._options.chunk, self._recording.read)
        if self._options.vad.kind != "off":
            return chunks
        # Without a VAD the amount of speech is unknown.
        return [replace(chunk, speech_samples=None) for chunk in chunks]

    async def _hear(self, chunks: Sequence[Chunk], *, may_fail: bool) -> AsyncGenerator[Event]:
        """Recognise all chunks. If the engine may fail, a warning says that it did."""
        hypotheses: list[Hypothesis] = []
        recognised = _in_order(self._recognise(chunk) for chunk in chunks)
        try:
            async with contextlib.aclosing(recognised):
                async for chunk, hypothesis in recognised:
                    hypotheses.append(hypothesis)
                    yield self._progress(chunk.end / 2)
        except EngineError as error:
            if not may_fail:
                raise
            logger.warning("the engine could not check the text: %s", error)
            reason = without_places(str(error))
            self._warnings.append(f"the engine could not check the text: {reason}")
            return
        self._heard = await asyncio.to_thread(_words, chunks, hypotheses)

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

    def _whole(self) -> Plan:
        """The plan for a recording of a single chunk, which is not cut."""
        piece = Piece(self._regions[0].start, self._regions[-1].end, 0, len(self._tokens))
        return Plan((piece,), {}, ())

    def _is_doubted(self) -> bool:
        """Whether the aligner found a reason to ask the engine about the only piece."""
        found = self._found[0]
        doubts = is_suspicious(found.words, is_calibrated=self._is_calibrated)
        return bool(found.unwritten) or doubts

    def _plan(self) -> Plan:
        if not self._regions:
            return Plan((), {}, ())
        if self._heard is None:
            return self._whole()
        return make_plan(self._tokens, self._heard, self._regions)

    async def _align(self, piece: Piece) -> tuple[Piece, Hypothesis]:
        text = " ".join(self._tokens[piece.first : piece.last])
        async with self._places:
            audio = await asyncio.to_thread(
                self._recording.read, piece.start_sample, piece.end_sample
            )
            return piece, await self._aligner.align(audio, Hypothesis(0, text))

    async def _spoken(self, transcript: Transcript, plan: Plan) -> Transcript:
        """The transcript with speakers, if they are told apart."""
        if self._options.speakers is None:
            return transcript
        pieces = zip(plan.pieces, self._found, strict=True)
        return await with_speakers(
            transcript, self._owner.diariser, self._options.speakers, self._recording, pieces
        )

    def _transcript(self, chunks: Sequence[Chunk], plan: Plan) -> Transcript:
        engine = self._owner.engine
        was_asked = self._heard is not None and bool(chunks)
        n_heard = sum(chunk.end_sample - chunk.start_sample - chunk.overlap for chunk in chunks)
        return Transcript(
            segments=script_segments(
                self._script, self._words(plan), self._n_samples, keep_lines=self._keep_lines
            ),
            language=self._options.decode.language or engine.language,
            duration=self._n_samples / SAMPLE_RATE,
            speech_seconds=n_heard / SAMPLE_RATE,
            dropped_seconds=(self._n_samples - n_heard) / SAMPLE_RATE,
            engine=f"given text, found with {engine.name}" if was_asked else "given text",
            aligner=self._aligner.name,
            warnings=tuple(dict.fromkeys(self._warnings)),
        )

    def _words(self, plan: Plan) -> list[Word]:
        """The words with their times. Adds a warning for each mismatch."""
        words = place(self._tokens, plan, [hypothesis.words for hypothesis in self._found])
        for hypothesis in self._found:
            self._warnings += hypothesis.warnings
        if not self._regions:
            self._warnings.append("no speech was found")
            return words
        gaps = [
            (piece.start + start, piece.start + end)
            for piece, hypothesis in zip(plan.pieces, self._found, strict=True)
            for start, end in hypothesis.unwritten
        ]
        found = compare(words, self._heard, gaps, is_calibrated=self._is_calibrated)
        mismatch = joined(found, plan, words)
        self._warnings += text_warnings(self._script, mismatch)
        return without_trust(words, mismatch.unsaid)


def _words(chunks: Sequence[Chunk], hypotheses: Sequence[Hypothesis]) -> list[Word]:
    """The recognised words. Those of scripts without spaces are split like the text."""
    words: list[Word] = []
    for segment in stitch(chunks, hypotheses):
        for word in segment.words:
            parts = tokens_in(word.text)
            if len(parts) < 2:
                words.append(word)
                continue
            spread = spread_words(parts, word.start, word.end, word.confidence)
            words += [replace(part, timing=word.timing) for part in spread]
    return words


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
