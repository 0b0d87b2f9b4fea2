"""Run a model in child processes: forks on the CPU, one long-lived child on a GPU.

On the CPU, a template process loads the model once and forks a child for each chunk. A child has
one thread and a limit on CPU time. If it crashes or is killed, other chunks are not affected. All
children share the memory of the weights.

A CUDA context cannot be used after a fork. So on a GPU, one child loads the model and answers
batches. If it dies or exceeds its time, it is killed, the chunks of its batch fail, and another
child is started.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import signal
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.engines.onnx.model import Facts, ModelOptions
from asr.engines.onnx.words import Answer
from asr.errors import AsrError, EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.types import SAMPLE_RATE
from asr.workers.call import KILLS, call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from asr.workers.pool import Job

logger = logging.getLogger(__name__)

SECONDS_BASE: Final = 300
SECONDS_PER_SECOND: Final = 20
"""The limit on CPU time: seconds for any chunk, plus seconds for each second of its audio. Whisper
takes the same time for a short chunk as for 30 s, and its largest models may need minutes on one
core."""
WALL_FACTOR: Final = 10
"""The deadline is this multiple of the limit on CPU time. It ends a child that waits forever, which
a limit on CPU time does not. It must be generous, because other processes may use the cores."""
BATCH: Final = 8
"""Largest number of chunks in one batch on a GPU."""
BYTES_PER_SECOND: Final = 2 * SAMPLE_RATE
_MODULE: Final = "asr.engines.onnx.model"


class Runner(Protocol):
    """Runs a model in other processes."""

    async def open(self) -> Facts:
        """Load the model if it is not loaded.

        Raises:
            EngineUnavailable: it cannot be loaded.
        """
        ...

    async def recognise(self, pcm: bytes, language: str) -> Answer:
        """Recognise 16-bit PCM.

        Raises:
            EngineError: recognition failed.
        """
        ...

    async def close(self) -> None:
        """End the processes."""
        ...


class ForkedModel:
    """A child for each chunk, at most `workers` at once. For the CPU."""

    def __init__(self, options: ModelOptions, workers: int) -> None:
        load = (f"{_MODULE}:load_template", json.dumps(dataclasses.asdict(options)))
        self._pool = ProcessPool([load], workers)

    async def open(self) -> Facts:
        """Load the model if it is not loaded."""
        limits = ProcessLimits(cpu_seconds=_cpu_seconds(1))
        try:
            await self._pool.open()
            async with self._pool.job(f"{_MODULE}:facts_job", {}, limits=limits) as job:
                return _facts(await _answer(job, WALL_FACTOR * _cpu_seconds(1)))
        except AsrError as error:
            await self._pool.close()  # so that the next call loads again
            raise _unavailable(error) from error

    async def recognise(self, pcm: bytes, language: str) -> Answer:
        """Recognise one chunk in a child."""
        seconds = _cpu_seconds(len(pcm) / BYTES_PER_SECOND)
        function, request = f"{_MODULE}:recognise_job", {"language": language}
        limits, deadline = ProcessLimits(cpu_seconds=seconds), WALL_FACTOR * seconds
        try:
            return Answer.of(await call(self._pool, function, request, pcm, limits, deadline))
        except TimeoutError as error:
            raise EngineTimeout(f"no answer within {deadline:.0f} s") from error
        except WorkerDied as error:
            if error.signal == signal.SIGXCPU:
                raise EngineTimeout(f"more than {seconds} s of CPU time: {error}") from error
            if error.errno is not None or error.signal in KILLS:
                raise
            raise EngineFailed(str(error)) from error

    async def close(self) -> None:
        """End the template process and its children."""
        await self._pool.close()


@dataclass(frozen=True, slots=True)
class _Waiting:
    pcm: bytes
    language: str
    answer: asyncio.Future[Answer] = field(default_factory=asyncio.Future)


class ServedModel:
    """One child that loads the model and answers batches. For a GPU."""

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._pool = ProcessPool([_MODULE], 1)
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._loaded: asyncio.Future[Facts] | None = None
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> Facts:
        """Start the child if it does not run, and wait until it has loaded the model."""
        if self._loaded is None or self._serving is None or self._serving.done():
            self._loaded = asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(self._loaded))
        return await asyncio.shield(self._loaded)

    async def recognise(self, pcm: bytes, language: str) -> Answer:
        """Recognise one chunk. Chunks that wait at the same time form a batch."""
        await self.open()
        item = _Waiting(pcm, language)
        self._waiting.append(item)
        self._more.set()
        return await item.answer

    async def close(self) -> None:
        """End the child."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        await self._pool.close()

    async def _serve(self, loaded: asyncio.Future[Facts]) -> None:
        """Run one child after another. If one cannot load the model, all waiting chunks fail."""
        reason: AsrError = EngineUnavailable("the engine was closed")
        try:
            await self._pool.open()
            while True:
                await self._run_child(loaded)
        except AsrError as error:
            reason = _unavailable(error)
        finally:
            if not loaded.done():
                loaded.set_exception(reason)
                loaded.exception()  # marks it as retrieved, in case nobody waits
            while self._waiting:
                _settle(self._waiting.popleft(), reason)

    async def _run_child(self, loaded: asyncio.Future[Facts]) -> None:
        """Load the model in a child, and let it answer batches until one fails."""
        request = dataclasses.asdict(self._options)
        async with self._pool.job(f"{_MODULE}:serve_job", request, patient=True) as job:
            facts = _facts(await job.result())
            if not loaded.done():
                loaded.set_result(facts)
            try:
                while True:
                    await self._answer_batch(job)
            except AsrError as error:
                logger.warning("the process of the model failed and is started again: %s", error)

    async def _answer_batch(self, job: Job) -> None:
        """Wait until there are chunks, send a batch to the child, and deliver its answers."""
        while not self._waiting:
            self._more.clear()
            await self._more.wait()
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        batch = [item for item in batch if not item.answer.done()]  # the others were cancelled
        reason: AsrError = EngineUnavailable("the engine was closed")
        try:
            for item, answer in await self._ask(job, batch):
                _settle(item, answer)
        except AsrError as error:
            again = EngineUnavailable(f"the model's process ended and is started again: {error}")
            reason = error if isinstance(error, EngineTimeout) else again
            raise
        finally:
            for item in batch:
                _settle(item, reason)

    async def _ask(
        self, job: Job, batch: list[_Waiting]
    ) -> list[tuple[_Waiting, Answer | AsrError]]:
        if not batch:
            return []
        pcm = b"".join(item.pcm for item in batch)
        chunks = [{"language": item.language, "n_bytes": len(item.pcm)} for item in batch]
        seconds = _cpu_seconds(len(pcm) / BYTES_PER_SECOND)
        await job.send({"chunks": chunks}, pcm)
        answers = (await _answer(job, seconds))["answers"]
        return [(item, _read(answer)) for item, answer in zip(batch, answers, strict=True)]


def _settle(item: _Waiting, answer: Answer | AsrError) -> None:
    if item.answer.done():  # nobody waits for it any more
        return
    if isinstance(answer, AsrError):
        item.answer.set_exception(answer)
    else:
        item.answer.set_result(answer)


def _read(answer: dict[str, Any]) -> Answer | AsrError:
    return EngineFailed(answer["failed"]) if "failed" in answer else Answer.of(answer)


async def _answer(job: Job, seconds: float) -> dict[str, Any]:
    """Wait for a message of the child.

    Raises:
        EngineTimeout: none came in time.
    """
    try:
        async with asyncio.timeout(seconds):
            return await job.result()
    except TimeoutError as error:
        raise EngineTimeout(f"no answer within {seconds:.0f} s") from error


def _cpu_seconds(duration: float) -> int:
    return round(SECONDS_BASE + SECONDS_PER_SECOND * duration)


def _facts(message: dict[str, Any]) -> Facts:
    return Facts(message["is_timed"], tuple(message["languages"]))


def _unavailable(error: AsrError) -> EngineUnavailable:
    if isinstance(error, EngineUnavailable):
        return error
    return EngineUnavailable(f"the model did not load: {error}")
