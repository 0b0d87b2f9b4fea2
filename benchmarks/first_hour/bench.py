"""Ask every clip of an arm, many at once, and store each answer as soon as it is there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from asr.config import ChunkOptions, Options, VadOptions, check
from asr.engines import load_engine
from asr.engines.omni.http import VllmHttpEngine
from asr.errors import AsrError, EngineUnavailable
from asr.evaluation import Report
from asr.pipeline.transcriber import Transcriber, collect, make_transcriber
from benchmarks.first_hour.answers import Answer, Store
from benchmarks.first_hour.wire import CALLS, Wire
from benchmarks.joined import KeptChunks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    import httpx

    from asr.engines.base import Engine
    from asr.settings import Settings
    from asr.types import Transcript
    from benchmarks.first_hour.answers import Call
    from benchmarks.first_hour.arms import Arm
    from benchmarks.first_hour.references import Clip


@dataclass
class Bench:
    """What all measurements share.

    Attributes:
        settings: of the service, with the addresses of the servers.
        folder: gets the answers, the audio that is made, and the report.
        parallel: clips in progress at once.
        minutes: the time that everything may take.
        quiet: show no progress.
        network: replaces the network, for tests.
    """

    settings: Settings
    folder: Path
    clips: Sequence[Clip]
    parallel: int = 64
    minutes: float = 60.0
    quiet: bool = False
    network: httpx.AsyncBaseTransport | None = None
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds that each arm took in this run."""

    async def ask(self, arm: Arm, clips: Sequence[Clip]) -> dict[str, Answer]:
        """Return the answers to the clips, by id; ask only for those that are not stored.

        Raises:
            EngineUnavailable: no server answers. All answers so far are stored.
        """
        store = self.store(arm)
        missing = [clip for clip in clips if not store.has(clip)]
        start = time.perf_counter()
        if missing:
            await self._ask(arm, missing, store)
        self.spent[arm.name] = self.spent.get(arm.name, 0.0) + time.perf_counter() - start
        return {clip.id: store.answers[clip.id] for clip in clips}

    def store(self, arm: Arm) -> Store:
        """The stored answers of an arm."""
        folder = self.folder / "answers"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Store(folder / f"{arm.name}.jsonl")

    async def _ask(self, arm: Arm, clips: Sequence[Clip], store: Store) -> None:
        places = asyncio.Semaphore(self.parallel)
        total = round(sum(clip.seconds for clip in clips))
        name, form = f"{arm.name:<14}", "{desc} {n:.0f}/{total} s of audio [{elapsed}<{remaining}]"
        bar = tqdm(total=total, desc=name, bar_format=form, disable=self.quiet)
        with bar:
            async with opened(self.transcriber(arm)) as transcriber:

                async def one(clip: Clip) -> None:
                    async with places:
                        store.put(await _answer(transcriber, arm, clip, self.settings))
                        bar.update(clip.seconds)

                try:
                    async with asyncio.TaskGroup() as group:
                        for clip in clips:
                            group.create_task(one(clip))
                except* EngineUnavailable as errors:
                    raise errors.exceptions[0] from None

    def transcriber(self, arm: Arm) -> Transcriber:
        """A transcriber whose requests are recorded, and changed as the arm says."""
        settings = self.settings if arm.is_service else replace(self.settings, aligner="none")
        wire = Wire(arm.rewrite, settings.vllm_ca_file, self.network)

        def make(settings: Settings) -> Engine:
            engine = omni_engine(settings, wire)
            engine.guarded = arm.is_service
            return engine

        return make_transcriber(settings, make)


@contextlib.asynccontextmanager
async def opened(transcriber: Transcriber) -> AsyncGenerator[Transcriber]:
    """Open a transcriber, and close it even if opening fails."""
    try:
        await transcriber.open()
        yield transcriber
    finally:
        await transcriber.close()


def omni_engine(
    settings: Settings, transport: httpx.AsyncBaseTransport | None = None
) -> VllmHttpEngine:
    """The engine that the settings name, with another transport."""
    engine = load_engine(settings)
    check(isinstance(engine, VllmHttpEngine), "engine", "must be omni")
    assert isinstance(engine, VllmHttpEngine)  # for mypy
    return VllmHttpEngine(engine._options, transport)


async def _answer(transcriber: Transcriber, arm: Arm, clip: Clip, settings: Settings) -> Answer:
    calls: list[Call] = []
    CALLS.set(calls)  # each clip is a task with a context of its own
    kept, start = KeptChunks(), time.perf_counter()
    made: Transcript | None = None
    error = None
    try:
        events = transcriber.transcribe_file(
            clip.utterance.file, options_of(arm, clip, settings), checkpoint=kept
        )
        made = await collect(events)
    except EngineUnavailable:
        raise  # the server's trouble, not the clip's
    except (AsrError, OSError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    told: dict[str, Any] = {"clip": clip.id, "wall": time.perf_counter() - start, "error": error}
    if made is not None:
        segments = (segment.warnings for segment in made.segments)
        told |= {"text": made.text, "words": made.words, "duration": made.duration}
        told["warnings"] = tuple(chain(made.warnings, *segments))
    lengths = tuple(chunk.duration for chunk, _ in kept.chunks.values())
    return Answer(**told, calls=tuple(calls), chunks=lengths)


def options_of(arm: Arm, clip: Clip, settings: Settings) -> Options:
    """The options of the pipeline for a clip of an arm."""
    has_vad = arm.is_service or arm.has_vad
    return Options(
        vad=VadOptions(kind=settings.vad if has_vad else "off"),
        chunk=ChunkOptions(max_seconds=arm.chunk_seconds),
        decode=arm.options(clip),
        limits=settings.limits,
    )


def report_of(answers: dict[str, Answer], clips: Sequence[Clip]) -> Report:
    """The scores of the clips' answers."""
    return Report(tuple(answers[clip.id].result(clip) for clip in clips))
