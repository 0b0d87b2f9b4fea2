"""Do one task of a run. A worker holds one `Transcriber` and may do several tasks at once.

Before a task begins, a mark is written; when it ends, however, the mark is removed. So a mark that
is left tells that the process died while it worked on the task. A task that hangs ends its process
too (`asr.batch.stall`). Such a task may be the reason, or it merely ran beside it. After `SUSPECT`
deaths it is refused, and the driver runs it alone (`asr.batch.alone`), where a death proves
something.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asr.audio.recording import Recording, channel_path
from asr.batch import pieces
from asr.batch.faults import (
    HopelessRecording,
    SourceAway,
    SourceError,
    SourceUnavailable,
    fault_of,
    message_of,
)
from asr.batch.fetch import fetched
from asr.batch.identity import row_id, short_hash
from asr.batch.pieces import Plan
from asr.batch.results import TOKEN, Results, work_folder
from asr.batch.scratch import Scratch
from asr.batch.stall import Beat, wait
from asr.batch.store import Lost, open_store
from asr.batch.tasks import Answer
from asr.engines import load_engine
from asr.pipeline.transcriber import collect, make_transcriber

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asr.batch.fetch import Fetched
    from asr.batch.results import Done
    from asr.batch.tasks import Job, Task
    from asr.engines.base import Engine
    from asr.pipeline.transcriber import Transcriber

T = TypeVar("T")

PLAN: Final = "plan.json"
SUSPECT: Final = 2
"""A task is refused after this many deaths beside it."""
HOPELESS: Final = 10
"""A task that runs alone is given up after this many deaths of the whole worker."""
PAUSES: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
"""Seconds before each further try after trouble of the service, while servers restart or somebody
clears a disk."""
SOURCE_TRIES: Final = 3
"""So many pauses if it is the recording's server that does not answer, and none for its hash.
Later tasks try again."""
SHORT_RATE: Final = 750
"""Bytes in a second of the most compressed speech. A smaller file is not worth a look inside."""
LONG_RATE: Final = 4000
"""The same for a usual recording, if its header states no length."""


class Worker:
    """Does tasks, several at once if called from several threads.

    Args:
        job: what all tasks have in common.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._results = Results(open_store(job.out), job.formats, job.subtitles)
        self._store = self._results.store
        self._scratch = Scratch(Path(job.settings.work_dir))
        self._folder = self._scratch.path
        self._lock = threading.Lock()
        self._transcriber: Transcriber | None = None
        self._is_shared = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def handle(self, task: Task) -> Answer:
        """Do a task, whatever it is. No error leaves this function."""
        started = time.perf_counter()
        try:
            answer = self._marked(task)
        except Exception as error:  # noqa: BLE001  # a failure is an answer
            answer = self._failed(task, error)
        return replace(answer, wall=answer.wall or time.perf_counter() - started)

    def close(self) -> None:
        """End the helper processes."""
        with self._lock:
            if self._transcriber is not None:
                self._wait(self._transcriber.close())
                self._transcriber = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._scratch.close()

    def _marked(self, task: Task) -> Answer:
        self._check_shared()
        key = short_hash(task.kind, task.path, task.content, task.number)
        left = self._results.begun(key)
        if len(left) >= SUSPECT and not task.alone:
            return Answer(task, "suspect")
        if len(left) >= HOPELESS:
            self._store.remove(left)  # so that --retry-failed tries it again
            raise HopelessRecording(f"processes died {len(left)} times while they worked on it")
        mark = self._results.begin(key)
        try:
            answer = self._tried(task)
        finally:
            self._store.remove([mark])
        self._store.remove(left)
        return answer

    def _check_shared(self) -> None:
        if self._is_shared or not self._job.token:
            return
        if (self._store.read(TOKEN) or b"").decode() != self._job.token:
            message = f"this node does not see the output folder {self._job.out}"
            raise SourceUnavailable(f"{message}: it must be shared by all nodes")
        self._is_shared = True

    def _tried(self, task: Task) -> Answer:
        """Do a task, and try again after trouble of the service."""
        work: Callable[[Task], Answer] = {
            "hash": self._hash,
            "file": self._file,
            "piece": self._piece,
            "stitch": self._piece,
        }[task.kind]
        for n_tried, pause in enumerate(PAUSES):
            try:
                return work(task)
            except Exception as error:
                n_most = 0 if task.kind == "hash" else SOURCE_TRIES
                is_over = isinstance(error, SourceAway) and n_tried == n_most
                if is_over or fault_of(error) != "service":
                    raise
                time.sleep(pause)
        return work(task)

    def _failed(self, task: Task, error: Exception) -> Answer:
        fault, message = fault_of(error), message_of(error)
        content = getattr(error, "content", None) or task.content or ""
        row = row_id(content, self._job.fingerprint) if content else ""
        if fault == "recording" and row and task.kind != "hash":
            self._results.fail(row, message)
        is_away = isinstance(error, SourceAway)
        return Answer(task, "failed", row, content, error=message, fault=fault, is_away=is_away)

    def _fetched(self, task: Task) -> contextlib.AbstractContextManager[Fetched]:
        job = self._job
        return fetched(job.located(task.path), job.options.limits, self._folder)

    def _hash(self, task: Task) -> Answer:
        with self._fetched(task) as source:
            return Answer(task, "hashed", content=source.content)

    def _file(self, task: Task) -> Answer:
        with self._fetched(task) as source:
            if task.content not in (None, source.content):
                raise SourceError("the file changed during this run; run again")
            try:
                answer = self._transcribed(task, source)
            except Exception as error:
                vars(error)["content"] = source.content  # a failure is stored by its id
                raise
        return answer

    def _transcribed(self, task: Task, source: Fetched) -> Answer:
        row = row_id(source.content, self._job.fingerprint)
        if (done := self._results.completed(row)) is not None:
            return _done(task, row, done)
        self._meet_failure(row)
        found = self._plan_of(row)
        if found is None and self._is_long(source):
            found = self._planned(source, row)
        if found is not None:
            return self._split(replace(task, content=source.content), row, *found)
        started = time.perf_counter()
        events = self._open().transcribe_file(source.path, self._job.options, self._folder)
        beat = Beat()
        transcript = self._wait(collect(events, beat), beat)
        wall = time.perf_counter() - started
        source.verify()  # a transcript of another content must not get the name of this one
        return _done(task, row, self._results.finish(transcript, row, source.content, wall))

    def _meet_failure(self, row: str) -> None:
        """See whether an earlier run failed on the same content, perhaps at another path."""
        failure = self._results.failure(row)
        if failure is not None and not self._job.retry_failed:
            raise HopelessRecording(failure)
        if failure is not None:
            self._results.forget_failure(row)

    def _is_long(self, source: Fetched) -> bool:
        """Whether a recording should be split, by the length in its header or by its size."""
        limit = self._job.split_seconds
        if source.size < limit * SHORT_RATE:
            return False
        promised = self._wait(self._promised(self._open(), source.path))
        return source.size > limit * LONG_RATE if promised is None else promised > limit

    async def _promised(self, transcriber: Transcriber, path: Path) -> float | None:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            reports = transcriber.decode(path, Path(folder) / "audio.pcm", self._job.options)
            async with contextlib.aclosing(reports):
                async for report in reports:
                    return report.promised_seconds
        return None

    def _planned(self, source: Fetched, row: str) -> tuple[Plan, float]:
        """Decode and cut a long recording, and store what its pieces need."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            target = Path(folder) / "audio.pcm"
            options, length = self._job.options, self._job.split_seconds / 2
            beat = Beat()
            work = pieces.make_plan(self._open(), source.path, target, options, length, beat)
            plan = self._wait(work, beat)
            source.verify()
            for path in pieces.local_names(plan, target):
                self._store.put(path, f"{work_folder(row)}/{path.name}")
        wall = time.perf_counter() - started
        text = json.dumps({"wall": wall}) + "\n" + plan.pack()
        self._store.write(f"{work_folder(row)}/{PLAN}", text.encode())
        return plan, wall

    def _plan_of(self, row: str) -> tuple[Plan, float] | None:
        data = self._store.read(f"{work_folder(row)}/{PLAN}")
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        return Plan.unpack(body), json.loads(head)["wall"]

    def _split(self, task: Task, row: str, plan: Plan, wall: float) -> Answer:
        if len(plan.pieces) < 2:
            return replace(self._piece(replace(task, kind="piece")), task=task)
        seconds, content = pieces.seconds_of(plan), task.content or ""
        n_pieces = len(plan.pieces)
        return Answer(task, "planned", row, content, seconds, wall=wall, pieces=n_pieces)

    def _piece(self, task: Task) -> Answer:
        """Do the task of a piece; if files of the pieces are lost, the recording begins again."""
        content = task.content or ""
        row = row_id(content, self._job.fingerprint)
        try:
            return self._pieced(task, row, content)
        except Lost:
            self._store.remove_folder(work_folder(row))
            # Perhaps another worker did the same at the same time, was faster, and cleared up.
            if (done := self._results.completed(row)) is not None:
                return _done(task, row, done)
            return Answer(task, "lost", row, content)

    def _pieced(self, task: Task, row: str, content: str) -> Answer:
        """Recognise a piece; the worker that finds all pieces recognised stitches them."""
        if (done := self._results.completed(row)) is not None:
            return _done(task, row, done)
        if (failure := self._results.failure(row)) is not None:
            raise HopelessRecording(failure)
        found = self._plan_of(row)
        if found is None:
            raise Lost("the plan of the recording is missing")
        plan, wall = found
        own = _piece_name(row, task.number)
        if task.kind == "piece" and plan.pieces and self._store.read(own) is None:
            self._recognise(plan, task.number, row)
        present = self._store.names(work_folder(row))
        if PLAN not in present:
            raise Lost("the plan of the recording was removed meanwhile")
        names = [_piece_name(row, number) for number in range(len(plan.pieces))]
        if not {name.rpartition("/")[2] for name in names} <= present:
            seconds = _seconds(plan, task.number)
            return Answer(task, "piece", row, content, seconds, pieces=len(plan.pieces))
        return _done(task, row, self._stitch(plan, wall, names, row, content))

    def _recognise(self, plan: Plan, number: int, row: str) -> None:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            recordings = {
                channel: Recording(
                    self._samples(plan, row, channel, plan.span(number, channel), Path(folder))
                )
                for channel in range(plan.n_channels)
                if plan.span(number, channel) != (0, 0)
            }
            beat = Beat()
            work = pieces.recognise_piece(
                self._open(), plan.pieces[number], recordings, self._job.options, beat
            )
            records = self._wait(work, beat)
        head = json.dumps({"wall": time.perf_counter() - started})
        self._store.write(_piece_name(row, number), "\n".join([head, *records]).encode())

    def _stitch(self, plan: Plan, wall: float, names: list[str], row: str, content: str) -> Done:
        started = time.perf_counter()
        records: list[str] = []
        for name in names:
            if (data := self._store.read(name)) is None:
                raise Lost(f"{name} is missing")
            head, *lines = data.decode().split("\n")
            wall += json.loads(head)["wall"]
            records += lines
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            target = Path(folder) / "audio.pcm"
            whole = (0, plan.n_samples)
            for channel in range(plan.n_channels):
                found = self._samples(plan, row, channel, whole, Path(folder))
                channel_path(target, channel).symlink_to(found.absolute())
            work = pieces.stitch_pieces(self._open(), plan, target, records, self._job.options)
            transcript = self._wait(work)
        wall += time.perf_counter() - started
        return self._results.finish(transcript, row, content, wall)

    def _samples(
        self, plan: Plan, row: str, channel: int, span: tuple[int, int], folder: Path
    ) -> Path:
        name = channel_path(Path("audio.pcm"), channel).name
        start, end = 2 * span[0], 2 * min(span[1], plan.n_samples)
        return self._store.span(f"{work_folder(row)}/{name}", start, end, folder)

    def _open(self) -> Transcriber:
        """The transcriber, opened when it is needed first.

        Raises:
            EngineUnavailable: the engine cannot be used now.
        """
        with self._lock:
            if self._transcriber is None:
                made = make_transcriber(self._job.settings, _maker(self._job.engine))
                try:
                    self._wait(made.open())
                except BaseException:
                    self._wait(made.close())
                    raise
                self._transcriber = made
            return self._transcriber

    def _wait(self, work: Coroutine[Any, Any, T], beat: Beat | None = None) -> T:
        return wait(asyncio.run_coroutine_threadsafe(work, self._loop), beat or Beat())


def engine_of(job: Job) -> Engine:
    """The engine of a job. It is not open yet."""
    engine: Engine = (_maker(job.engine) or load_engine)(job.settings)
    return engine


def _maker(name: str) -> Any:
    """The function ``module:function``, or None."""
    if not name:
        return None
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _piece_name(row: str, number: int) -> str:
    return f"{work_folder(row)}/piece-{number:05d}.jsonl"


def _seconds(plan: Plan, number: int) -> float:
    return sum(chunk.duration for _, chunk in plan.pieces[number]) if plan.pieces else 0.0


def _done(task: Task, row: str, done: Done) -> Answer:
    return Answer(task, "done", row, done.content, done.seconds, done.wall)
