"""The engine: each chunk is recognised in a child process.

The children are forked from a template process that has loaded the model. So a child starts within
milliseconds, shares the model's memory, and can be killed alone. Each has one thread, because two
processes with one thread are faster than one process with two.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asr.config import DecodeOptions, check
from asr.engines.base import Capabilities, ignored
from asr.engines.moonshine.folder import CORRECT, NAME, find_folder
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.types import Audio, Chunk, Hypothesis
from asr.workers.call import KILLS, call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from typing import Any

PADDING: Final = 0.1
"""Seconds of silence that are added on both sides of a chunk. Moonshine makes fewer errors if the
speech does not begin or end at the edge of the audio: 44 instead of 47 in 867 words of the
development clips and the samples."""
RETRY_PADDING: Final = 0.3
"""Seconds, in a second attempt."""
PREFERRED_SECONDS: Final = 20.0
"""Chunks of 30 s cost more time per second of audio, and have as many word errors (docs/results.md,
"What the pipeline adds")."""
CPU_SECONDS_BASE: Final = 60
CPU_SECONDS_PER_SECOND: Final = 4
"""The limit on CPU time: seconds for any chunk, plus seconds for each second of its audio.
Recognition needs much less than 1 s of CPU time per second of audio, so only a hung child reaches
this limit."""
MEMORY_BYTES: Final = 4 << 30
"""The limit on address space. A chunk of 30 s needs 0.2 GB in addition to the model."""
_WORKER: Final = "asr.engines.moonshine.worker"


class MoonshineEngine:
    """Recognise chunks in child processes, `workers` at once.

    Args:
        workers: number of processes.
        folder: path of the model's folder; empty means the installed Moonshine tiny.
    """

    language = "en"
    preferred_seconds: float | None = PREFERRED_SECONDS
    guarded = True
    retry_note = "a second attempt with more silence around the chunk"
    capabilities = Capabilities(languages=("en",))

    def __init__(self, workers: int, folder: str = "") -> None:
        self.slots = workers
        self.model = Path(folder).name if folder else NAME
        runtime = importlib.metadata.version("onnxruntime")
        self.name = f"{self.model} on onnxruntime {runtime}"
        self._folder = folder
        self._pool: ProcessPool | None = None

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Refuse other languages than English. Warn about options that have no effect."""
        is_english = (options.language or "en").lower().split("-")[0] in ("en", "english")
        check(is_english, "language", "Moonshine recognises English only: send en or nothing")
        return ignored("Moonshine", options)

    async def open(self) -> None:
        """Check the hashes of the model's files, then load the model."""
        await self.close()
        folder = await asyncio.to_thread(find_folder, self._folder)
        self._pool = ProcessPool([(f"{_WORKER}:load_template", str(folder))], self.slots)
        try:
            await self._pool.open()
            async with self._pool.job(f"{_WORKER}:check_job", {}) as job:
                await job.result()
        except (WorkerDied, EngineUnavailable) as error:
            await self._pool.close()  # so that the next call loads again
            fix = f": {CORRECT}" if self._folder else ""
            raise EngineUnavailable(f"Moonshine did not load {folder}: {error}{fix}") from error

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Recognise one chunk."""
        return await self._recognise(chunk, audio, PADDING)

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Recognise one chunk with more padding. A higher temperature would change nothing."""
        return await self._recognise(chunk, audio, RETRY_PADDING)

    async def _recognise(self, chunk: Chunk, audio: Audio, padding: float) -> Hypothesis:
        if self._pool is None:
            raise EngineUnavailable("Moonshine is not loaded")
        seconds = CPU_SECONDS_BASE + CPU_SECONDS_PER_SECOND * chunk.duration
        limits = ProcessLimits(round(seconds), MEMORY_BYTES)
        request = {"padding": padding}
        function = f"{_WORKER}:recognise_job"
        try:
            answer = await call(self._pool, function, request, audio.pcm16(), limits)
        except WorkerDied as error:
            message = f"Moonshine failed on the chunk at {chunk.start:.1f} s: {error}"
            if error.signal == signal.SIGXCPU:
                raise EngineTimeout(message) from error
            if error.errno is not None or error.signal in KILLS:
                died = WorkerDied(message, error.signal, error.errno)
                died.chunk_index = chunk.index
                raise died from error
            raise EngineFailed(message, chunk.index) from error
        return _hypothesis(chunk, answer)

    async def close(self) -> None:
        """End the template process and its children."""
        if self._pool is not None:
            await self._pool.close()


def _hypothesis(chunk: Chunk, answer: dict[str, Any]) -> Hypothesis:
    n_words = answer["n_left_out"]
    words = "1 word" if n_words == 1 else f"{n_words} words"
    note = f"{words} from {chunk.start:.1f} s on left out, because Moonshine is too unsure of them"
    return Hypothesis(
        chunk.index,
        answer["text"],
        avg_logprob=answer["avg_logprob"],
        warnings=(note,) if n_words else (),
        word_confidences=tuple(answer["confidences"]),
        is_calibrated=True,
        is_cut=answer["is_cut"],
    )
