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
from asr.engines.moonshine.folder import NAME, find_folder
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.types import Audio, Chunk, Hypothesis
from asr.workers.call import KILLS, call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from typing import Any

PADDING: Final = 0.1
"""Seconds of silence on both sides of a chunk. They lower the WER from 9.2% to 7.2%
(docs/results.md)."""
RETRY_PADDING: Final = 0.3
"""The padding of a second attempt."""
PREFERRED_SECONDS: Final = 20.0
"""Longer chunks cost more time per second of audio and make as many word errors (docs/results.md,
"What the pipeline adds")."""
CPU_SECONDS_BASE: Final = 60
CPU_SECONDS_PER_SECOND: Final = 4
"""The limit on CPU time: seconds for any chunk, plus seconds for each second of its audio.
Recognition needs about 0.04 s of CPU time per second of audio."""


MEMORY_BYTES: Final = 4 << 30
"""The limit on address space. A chunk of 30 s needs 0.2 GB in addition to the model."""
_WORKER: Final = "asr.engines.moonshine.worker"


class MoonshineEngine:
    """Recognise chunks in child processes, `workers` at once.

    Args:
        workers: number of processes.
        folder: of the model; empty means the installed Moonshine tiny.
    """

    language = "en"
    preferred_seconds: float | None = PREFERRED_SECONDS
    guarded = True
    retry_note = "a second attempt with more silence around the chunk"

    def __init__(self, workers: int, folder: str = "") -> None:
        self.slots = workers
        self.model = Path(folder).name if folder else NAME
        runtime = importlib.metadata.version("onnxruntime")
        self.name = f"{self.model} on onnxruntime {runtime}"
        self._folder = folder
        self._pool: ProcessPool | None = None

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Accept English only. Prompt, keywords and temperature have no effect: warn."""
        is_english = (options.language or "en").lower().split("-")[0] in ("en", "english")
        check(is_english, "language", "Moonshine recognises English only: send en or nothing")
        given = {
            "prompt": options.prompt is not None,
            "keywords": bool(options.keywords),
            "temperature": bool(options.temperature),
        }
        return tuple(f"Moonshine ignores {name}" for name, is_set in given.items() if is_set)

    async def open(self) -> None:
        """Check the files of the model and load it."""
        await self.close()
        folder = await asyncio.to_thread(find_folder, self._folder)
        self._pool = ProcessPool([(f"{_WORKER}:load_template", str(folder))], self.slots)
        try:
            await self._pool.open()
        except WorkerDied as error:
            raise EngineUnavailable(f"Moonshine did not load {folder}: {error}") from error

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
