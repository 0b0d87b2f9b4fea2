"""Run tasks on Ray Data: on this machine, or on a cluster.

Ray Data repeats the task of a dead actor on another one, without limit (`max_restarts` and
`max_task_retries` are -1 for its actors). So a task may run more than once, and the names of
results make that harmless. A task returns errors as answers, so none of them reaches Ray.

Blocks hold one row each unless there are very many, because Ray repeats whole blocks.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Otherwise each pool of actors prints an error about its arguments, although they cannot be lost.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data
from ray.exceptions import RayError

from asr.batch.alone import run_alone
from asr.batch.run import ExecutorLost
from asr.batch.signals import unchanged
from asr.batch.tasks import Answer, Job, Task
from asr.batch.worker import Worker
from asr.config import check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.settings import Settings

MAX_BLOCKS: Final = 5000
OBJECT_STORE_BYTES: Final = 200 << 20
"""Rows are short texts, so the object store of a local cluster may be small."""
CONNECT_SECONDS: Final = 10.0
START_TRIES: Final = 3
SLOTS: Final = 64
"""Chunks in flight at each of Omni's servers, as in `Settings.engine_slots`."""
DEATHS: Final = 1000
"""Actors in a row that may die while they start, before Ray gives the round up."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many actors there are, and how large.

    Attributes:
        actors: how many; 0 means as many as the cluster holds.
        cpus: processors of each; also the number of its helper processes for each purpose.
        gpus: of each.
        at_once: recordings, or pieces, that each works on at once.
    """

    actors: int
    cpus: int
    gpus: int
    at_once: int


def size_for(job: Job, actors: int, cpus: int, at_once: int) -> Size:
    """The size of the actors for an engine; 0 means the usual.

    The embedded engine gets one actor for each core. An actor for Omni's servers mostly waits for
    them, and spends its processors on decoding and alignment.
    """
    kind = job.settings.engine_name
    is_embedded = kind in ("moonshine", "onnx")
    cpus = cpus or (1 if is_embedded else 4)
    at_once = at_once or (1 if is_embedded else 2 * cpus)
    return Size(actors, cpus, 1 if kind == "omni-local" else 0, at_once)


class _Actor:
    """A worker in an actor."""

    def __init__(self, job: str) -> None:
        self._job = Job.unpack(job)
        self._worker = Worker(self._job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task = Task.unpack(row["task"])
        if task.alone:
            answer = run_alone(self._job, task, Path(self._job.settings.work_dir))
        else:
            answer = self._worker.handle(task)
        return {"answer": answer.pack()}

    def __del__(self) -> None:
        """Ray Data deletes this object before it ends the process."""
        if (worker := getattr(self, "_worker", None)) is not None:
            worker.close()


def check_address(address: str) -> None:
    """Check that something answers at the address of a cluster. Ray itself tries for minutes.

    Raises:
        ExecutorLost: nothing answers.
        InvalidOption: it is no address.
    """
    if address == "auto":
        return
    told = "must be HOST:PORT or auto; run asr batch on a node of the cluster"
    host, _, port = address.rpartition(":")
    check("://" not in address and bool(host) and port.isdigit(), "address", told)
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ExecutorLost(f"no Ray cluster answers at {address}: {error}") from error


class RayExecutor:
    """Runs tasks on a Ray cluster. Use it with ``with``.

    Args:
        address: of a cluster; None starts one on this machine.
        size: of the actors.
    """

    def __init__(self, address: str | None, size: Size) -> None:
        self._address = address
        self._size = size

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Connect to the cluster, or start one.

        Raises:
            ExecutorLost: it cannot be used.
            InvalidOption: the address is none.
        """
        if self._address:
            check_address(self._address)
        logging.getLogger("ray").setLevel(logging.ERROR)
        local: dict[str, Any] = {
            # More actors than cores are sensible if they wait for servers.
            "num_cpus": max(
                len(os.sched_getaffinity(0)), self._size.cpus * max(1, self._size.actors)
            ),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
        with unchanged():
            self._connect({} if self._address else local)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = DEATHS
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def _connect(self, local: dict[str, Any]) -> None:
        """Connect. A busy machine is tried several times.

        Ray gives its own processes 30 s to start, and ends with a bare Exception.
        """
        problem = ""
        for _ in range(1 if self._address else START_TRIES):
            try:
                ray.init(
                    address=self._address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **local,
                )
            except Exception as error:  # noqa: BLE001  # see above
                problem = _short(error)
                ray.shutdown()
            else:
                return
        where = f"at {self._address}" if self._address else "on this machine"
        raise ExecutorLost(f"cannot use Ray {where}: {problem}")

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    @property
    def n_actors(self) -> int:
        """How many actors the cluster holds now."""
        total = ray.cluster_resources()
        n_fit = int(total.get("CPU", 0) // self._size.cpus)
        if self._size.gpus:
            n_fit = min(n_fit, int(total.get("GPU", 0) // self._size.gpus))
        return max(1, min(self._size.actors or n_fit, n_fit))

    @property
    def n_workers(self) -> int:
        """How many tasks run at once."""
        return self.n_actors * self._size.at_once

    def run(self, job: Job, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Run tasks; yield their answers in any order.

        Raises:
            ExecutorLost: Ray failed.
        """
        size = self._size
        at_once = 1 if any(task.alone for task in tasks) else size.at_once
        n_actors = min(self.n_actors, math.ceil(len(tasks) / at_once))
        job = replace(job, settings=_of_one_actor(job.settings, size, n_actors))
        rows = [{"task": task.pack()} for task in tasks]
        try:
            answers = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
                _Actor,
                fn_constructor_args=(job.pack(),),
                num_cpus=size.cpus,
                num_gpus=size.gpus or None,
                compute=ray.data.ActorPoolStrategy(
                    size=n_actors,
                    max_tasks_in_flight_per_actor=at_once + 1,
                    max_concurrent_calls_per_actor=at_once,
                    enable_true_multi_threading=True,
                ),
            )
            for row in answers.iter_rows():
                yield Answer.unpack(row["answer"])
        except (RayError, ConnectionError, RuntimeError) as error:
            raise ExecutorLost(f"Ray failed: {_short(error)}") from error


def _of_one_actor(settings: Settings, size: Size, n_actors: int) -> Settings:
    """The settings of each actor. The slots of Omni's servers are divided among the actors."""
    slots = settings.engine_slots
    if settings.engine_name == "omni":
        slots = max(1, (slots or SLOTS * len(settings.vllm_urls)) // n_actors)
    return replace(
        settings,
        cpu_workers=settings.cpu_workers or size.cpus,
        max_active_requests=size.at_once,
        engine_slots=slots,
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
