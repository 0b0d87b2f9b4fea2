"""Transcribe recordings: an engine, an aligner and the processes that decode.

`Transcriber` serves many recordings and belongs to one event loop. `transcribe` makes one for a
single call and blocks until the transcript is there. What happens to one recording is in
`asr.pipeline.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from asr import tracing
from asr.align import load_aligner
from asr.align.witness import witness
from asr.audio.recording import PRELOAD, Recording, decode_recording, scan_recording
from asr.audio.vad import load_classifier
from asr.config import Options, check
from asr.engines import load_engine
from asr.engines.base import settle
from asr.pipeline.recognition import Recogniser
from asr.pipeline.run import Run
from asr.pipeline.scheduler import NOBODY, Share
from asr.settings import Settings
from asr.speakers.diariser import Diariser
from asr.speakers.enrolment import embed_file
from asr.types import Audio, Chunk, Hypothesis, Transcript
from asr.workers.pool import ProcessPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from asr.align.base import Aligner
    from asr.audio.growing import GrowingFile
    from asr.audio.recording import Decoded
    from asr.config import DecodeOptions, KnownVoice
    from asr.engines.base import Engine
    from asr.pipeline.checkpoint import Checkpoint
    from asr.pipeline.recognition import Witness
    from asr.pipeline.run import Event
    from asr.pipeline.speakers import SpeakerMemory

T = TypeVar("T")

MAX_DECODERS: Final = 4


def transcribe(
    source: str | Path,
    *,
    options: Options | None = None,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Transcript:
    """Transcribe one recording and wait for it.

    Loads the engine for this one call; use `Transcriber` for many recordings. It also works in a
    thread that runs an event loop, such as a notebook's.

    Args:
        source: the file.
        options: how to transcribe it; the defaults suit most recordings.
        settings: choose the engine; by default they are read from the ``ASR_*`` variables.
        on_event: called with each `Progress`, `Segment` and `Gap`.

    Raises:
        AudioError: the recording cannot be used.
        EngineError: the engine failed or cannot be used.
        InvalidOption: the engine or the VAD does not support an option.
    """
    work = _transcribe_once(
        Path(source), options or Options(), settings or Settings.from_env(), on_event
    )
    return run_apart(work)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new thread with its own event loop, and wait for the result.

    If the wait is interrupted, for example by Ctrl-C, the work is cancelled and has ended when the
    exception leaves this function.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def announce() -> T:
        task = asyncio.ensure_future(work)
        begun.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, announce()).result()
        except BaseException:
            # If `begun` can still be cancelled, the work has not begun and never will.
            if not begun.cancel():
                loop, task = begun.result()
                with contextlib.suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(task.cancel)
            raise


async def _transcribe_once(
    source: Path,
    options: Options,
    settings: Settings,
    on_event: Callable[[Event], None] | None,
) -> Transcript:
    async with make_transcriber(settings) as transcriber:
        return await collect(transcriber.transcribe_file(source, options), on_event)


def make_transcriber(
    settings: Settings, make_engine: Callable[[Settings], Engine] | None = None
) -> Transcriber:
    """Make the engine, the aligner and the witness that the settings ask for, without opening them.

    Raises:
        EngineUnavailable: the engine or the aligner cannot be used with these settings.
    """
    aligner = load_aligner(settings)
    engine = (make_engine or load_engine)(settings)
    # The witness adds up confidences, so each must be the probability that the word is correct.
    # Only the confidences of sphinx are calibrated in this way.
    can_witness = settings.aligner_name == "sphinx"
    # One decoder for each active recording; the operating system shares the processors fairly.
    # With fewer decoders, a short recording would have to wait for long ones.
    n_decoders = settings.max_active_requests
    diariser = Diariser(settings.workers, settings.speaker_model)
    return Transcriber(engine, aligner, n_decoders, witness if can_witness else None, diariser)


async def collect(
    events: AsyncGenerator[Event], on_event: Callable[[Event], None] | None = None
) -> Transcript:
    """Return the transcript of a transcription; pass its other events to `on_event`."""
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Transcript):
                return event
            if on_event is not None:
                on_event(event)
    raise RuntimeError("a transcription ended without a transcript")


class Transcriber:
    """An engine and the processes that decode for it. Use it with ``async with``.

    Args:
        engine: opened and closed with this object.
        aligner: times the words of an engine that gives no times; opened and closed likewise.
        max_decoders: how many recordings are decoded at once.
        witness: compares the timed words with the audio.
        diariser: tells speakers apart; by default with the installed model. It loads its model when
            it is needed, and is closed with this object.
    """

    def __init__(
        self,
        engine: Engine,
        aligner: Aligner | None = None,
        max_decoders: int = MAX_DECODERS,
        witness: Witness | None = None,
        diariser: Diariser | None = None,
    ) -> None:
        self.engine = engine
        self.aligner = aligner
        self.diariser = diariser or Diariser(1)
        self.is_calibrated = witness is not None
        """Whether the aligner's confidences are probabilities, which the witness needs."""
        self._recogniser = Recogniser(engine, aligner, witness)
        self._decoders = ProcessPool(PRELOAD, max_decoders)

    @property
    def n_waiting(self) -> int:
        """How many chunks wait for the engine."""
        return self._recogniser.n_waiting

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Load the engine and start the processes.

        Raises:
            EngineUnavailable: the engine cannot be used now; a later call may succeed.
        """
        parts = [self._decoders.open(), self.engine.open()]
        await asyncio.gather(*parts, *([self.aligner.open()] if self.aligner else []))

    async def close(self) -> None:
        """End all processes."""
        parts = [self._decoders.close(), self.engine.close(), self.diariser.close()]
        await asyncio.gather(*parts, *([self.aligner.close()] if self.aligner else []))

    async def transcribe_file(
        self,
        source: Path | GrowingFile,
        options: Options,
        work_dir: Path | None = None,
        share: Share = NOBODY,
        checkpoint: Checkpoint | None = None,
    ) -> AsyncGenerator[Event]:
        """Transcribe one recording.

        Args:
            source: the file. A growing file is transcribed while it arrives.
            options: how to transcribe it.
            work_dir: folder for the decoded audio while this runs (115 MB per hour of audio).
            share: the owner of the work; shares take turns at the engine.
            checkpoint: has the hypotheses of an earlier attempt and stores new ones.

        Yields:
            `Progress`, `Segment` and `Gap` while it runs, and the `Transcript` at the end.

        Raises:
            AudioError: the recording cannot be used.
            EngineError: the engine failed on a chunk, and the options allow no gaps.
            TooMuchMissing: gaps take more than half of the recording.
            InvalidOption: the engine or the VAD does not support an option.
        """
        decode, warnings = settle(self.engine, options.decode)
        options = replace(options, decode=decode)
        self.check_speakers(options)
        if options.vad.kind == "silero":
            # a missing extra should fail before any work
            await asyncio.to_thread(load_classifier, options.vad)
        with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
            target = Path(folder) / "audio.pcm"
            reports = self.decode(source, target, options)
            run = Run(self, target, reports, options, share, checkpoint)
            async with contextlib.aclosing(run.events(warnings)) as events:
                async for event in events:
                    yield event

    async def transcribe_pcm(
        self,
        source: Path,
        options: Options,
        share: Share = NOBODY,
        memory: SpeakerMemory | None = None,
    ) -> AsyncGenerator[Event]:
        """Transcribe a file of raw 16 kHz mono PCM16; otherwise like `transcribe_file`.

        With the memory of a live session, speakers keep their letters from turn to turn.
        """
        decode, warnings = settle(self.engine, options.decode)
        options = replace(options, decode=decode)
        self.check_speakers(options)
        reports = scan_recording(Recording(source), options.vad)
        run = Run(self, source, reports, options, share, memory=memory)
        async with contextlib.aclosing(run.events(warnings)) as events:
            async for event in events:
                yield event

    def check_speakers(self, options: Options) -> None:
        """Check that a model is there, if speakers are to be told apart.

        Raises:
            InvalidOption: there is none. The message names the command that installs it.
        """
        if options.speakers is not None:
            reason = self.diariser.obstacle
            check(not reason, "speakers", reason)

    async def audible(self, chunk: Chunk, recording: Recording) -> Audio:
        """The samples of a chunk, with quiet speech amplified."""
        return await self._recogniser.read(chunk, recording.read)

    async def embed_voice(
        self,
        source: Path,
        name: str,
        work_dir: Path | None = None,
        length: tuple[float, float] | None = None,
    ) -> KnownVoice:
        """Make a known voice from a recording of one person.

        Args:
            source: the recording.
            name: of the person.
            work_dir: folder for the decoded audio.
            length: the shortest and longest recording in seconds; None for those of stored voices.

        Raises:
            AudioError: the recording cannot be used.
            InvalidOption: it has too little speech or is too long, or there is no speaker model.
        """
        check(not self.diariser.obstacle, "speakers", self.diariser.obstacle)
        with tempfile.TemporaryDirectory(prefix="asr-", dir=work_dir) as folder:
            target = Path(folder) / "voice.pcm"
            return await embed_file(self._decoders, self.diariser, source, target, name, length)

    async def recognise(
        self, chunk: Chunk, recording: Recording, options: Options, share: Share = NOBODY
    ) -> Hypothesis:
        """Recognise one chunk and time its words. The chunks of a recording are one job."""
        with tracing.span("chunk", index=chunk.index, start=chunk.start, seconds=chunk.duration):
            return await self._recogniser.recognise(
                chunk, recording.read, options.decode, recording, share
            )

    async def recognise_interim(
        self,
        recording: Recording,
        options: DecodeOptions,
        job: str,
        share: Share = NOBODY,
        engine: Engine | None = None,
    ) -> str | None:
        """The text of unfinished speech, or None if a guard objects to it.

        Args:
            recording: the speech so far, at most as long as a chunk.
            options: what the user tells the engine.
            job: the live session.
            share: the owner of the work.
            engine: a wrapper that measures the engine; by default the engine itself.

        Raises:
            EngineError: the engine failed.
            InvalidOption: the engine does not support an option.
        """
        options, _ = settle(self.engine, options)
        n_samples = await asyncio.to_thread(recording.count)
        chunk = Chunk(0, 0, n_samples)
        return await self._recogniser.recognise_interim(
            chunk, recording.read, options, job, share, engine
        )

    def decode(
        self, source: Path | GrowingFile, target: Path, options: Options
    ) -> AsyncGenerator[Decoded]:
        """Decode one recording in a child process."""
        split = options.channels == "split"
        return decode_recording(
            self._decoders,
            source,
            target,
            options.vad,
            options.limits,
            split=split,
            track=options.track,
            may_stop=options.on_error == "gap",
        )
