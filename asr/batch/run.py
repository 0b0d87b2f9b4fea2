"""The driver: list, look up, hash, transcribe in rounds, report.

Whatever ends it, the results that exist are complete, and the next run continues with the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from asr.align import load_aligner
from asr.audio.vad import load_classifier
from asr.batch.campaign import Campaign, split_seconds
from asr.batch.identity import fingerprint
from asr.batch.index import Index
from asr.batch.records import Records
from asr.batch.results import INTERNAL, OUTPUTS, TOKEN, Results
from asr.batch.signals import terminable
from asr.batch.store import LocalStore, open_store
from asr.batch.urls import is_url
from asr.batch.worker import engine_of
from asr.config import check
from asr.engines.base import settle
from asr.errors import AsrError, EngineUnavailable
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from asr.batch.progress import Progress
    from asr.batch.signals import Signals
    from asr.batch.sources import Source
    from asr.batch.tasks import Answer, Job, Task

LOST_TRIES: Final = 3
"""How often the executor may fail before the run ends."""


class ExecutorLost(AsrError):
    """The executor failed, not a task: a cluster was lost, or its nodes cannot start workers."""


class Executor(Protocol):
    """Runs tasks somewhere."""

    def start(self) -> None:
        """Get ready. Not called if there is nothing to do.

        Raises:
            ExecutorLost: it cannot be used.
        """
        ...

    @property
    def n_workers(self) -> int:
        """How many tasks run at once."""
        ...

    def run(self, job: Job, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Run tasks; yield their answers in any order.

        Raises:
            ExecutorLost: the rest of the tasks has no answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        n_done: paths with a transcript.
        n_failed: paths without one.
        n_pending: paths that were not reached.
        manifest: names of its files in the output folder.
        trouble: why the run ended early; empty if it did not.
        is_interrupted: by Ctrl-C or SIGTERM.
    """

    n_done: int
    n_failed: int
    n_pending: int
    manifest: tuple[str, ...]
    trouble: str = ""
    is_interrupted: bool = False


def prepare(job: Job, *, is_here: bool = True) -> Job:
    """The job with its fingerprint, after checking what would fail for every recording.

    Args:
        job: as the user asked for it.
        is_here: the workers run on this machine, so an embedded engine must work here.

    Raises:
        EngineUnavailable: the engine or the aligner cannot be used now.
        InvalidOption: the engine or the VAD does not support an option, or the output folder
            cannot be used.
    """
    if job.options.vad.kind == "silero":
        load_classifier(job.options.vad)
    if job.options.speakers is not None:
        reason = obstacle(job.settings.speaker_model)
        check(not reason, "speakers", reason)
    folder = os.getcwd()  # noqa: PTH109  # the workers of a cluster have others
    out = job.out if is_url(job.out) else os.path.join(folder, job.out)  # noqa: PTH118
    store = open_store(out)
    if isinstance(store, LocalStore):
        store.make()
    settings = replace(job.settings, work_dir=os.path.join(folder, job.settings.work_dir))  # noqa: PTH118
    job = replace(job, out=out, folder=folder, settings=settings)
    if is_here:
        load_aligner(job.settings)
    model = asyncio.run(_model(job, is_here=is_here))
    return replace(job, fingerprint=fingerprint(job.settings, job.options, model))


async def _model(job: Job, *, is_here: bool) -> str:
    """The name of the model. A server must be asked for it.

    An embedded engine is opened only to see that it can be, because a worker would try for minutes.
    """
    name = job.settings.engine_name
    is_server = name == "omni" and not job.engine
    is_tried = is_here and not job.engine and name != "omni-local"  # that one fills a GPU
    engine = engine_of(replace(job, settings=replace(job.settings, cpu_workers=1)))
    model = engine.model
    if not is_server:
        settle(engine, job.options.decode)
    if not is_server and not is_tried:
        return model
    try:
        await engine.open()
        if is_server:
            settle(engine, job.options.decode)
            model = engine.model
    finally:
        await engine.close()
    return model


def run_batch(
    job: Job,
    sources: Sequence[Source],
    executor: Executor,
    progress: Progress,
    *,
    retry_failed: bool = False,
    rehash: bool = False,
    longest: float | None = None,
) -> Outcome:
    """Transcribe all sources that have no transcript yet.

    Args:
        job: from `prepare`.
        sources: what to transcribe.
        executor: does the work.
        progress: is told what happens.
        retry_failed: try recordings again that an earlier run failed on.
        rehash: read every recording again instead of trusting sizes and times.
        longest: seconds from which a recording is split; by default it is chosen.

    Raises:
        BlockingIOError: another run uses the output folder.
    """
    store = open_store(job.out)
    with _locked(store), terminable() as signals:
        job = replace(job, token=uuid.uuid4().hex, retry_failed=retry_failed)
        store.write(TOKEN, job.token.encode())
        index = Index(store, is_trusted=not rehash)
        results = Results(store, job.formats, job.subtitles)
        campaign = Campaign(
            sources, results, index, job.fingerprint, progress, retry_failed=retry_failed
        )
        records = Records(store, job.token, index, campaign)
        run = _Run(job, campaign, records, executor, progress, signals)
        trouble, is_interrupted = run.run(longest)
        if is_interrupted:
            with contextlib.suppress(OSError):
                results.forget_attempts()
        campaign.count_all()
        progress.draw(last=True)
        return _outcome(campaign, len(sources), records.names, trouble, is_interrupted)


def _outcome(
    campaign: Campaign, n_paths: int, names: Sequence[str], trouble: str, is_interrupted: bool
) -> Outcome:
    n_done, n_failed = campaign.count("done"), campaign.count("failed")
    n_pending = n_paths - n_done - n_failed
    return Outcome(n_done, n_failed, n_pending, tuple(names), trouble, is_interrupted)


class _Run:
    """The loop of a run."""

    def __init__(
        self,
        job: Job,
        campaign: Campaign,
        records: Records,
        executor: Executor,
        progress: Progress,
        signals: Signals,
    ) -> None:
        self._job = job
        self._campaign = campaign
        self._records = records
        self._signals = signals
        self._executor = executor
        self._progress = progress
        self._n_lost = 0

    def run(self, longest: float | None) -> tuple[str, bool]:
        """Do everything; return why the run ended early, and whether the user ended it."""
        trouble, is_interrupted = "", False
        try:
            with self._progress.ticking():
                self._records.save()
                if self._campaign.tasks():
                    self._executor.start()
                    self.hash_copies()
                    self.rounds(longest)
        except KeyboardInterrupt:
            is_interrupted = True
        except (EngineUnavailable, ExecutorLost, OSError) as error:
            trouble = str(error)
        finally:
            trouble = self._records.save_last() or trouble
        return trouble, is_interrupted

    def hash_copies(self) -> None:
        """Hash recordings that may be copies of each other."""
        tasks = self._campaign.unhashed()
        for answer in self._answers(tasks):
            self._campaign.hashed(answer)
            self._records.save_sometimes()

    def rounds(self, longest: float | None) -> None:
        """Run rounds until nothing is left.

        Raises:
            EngineUnavailable: many tasks failed in a row, and no recording is to blame.
            ExecutorLost: the executor failed again and again.
        """
        tasks = self._campaign.tasks()
        self._progress.start(self._progress.done)
        seconds = split_seconds(self._campaign.remaining(), self._executor.n_workers, longest)
        self._job = replace(self._job, split_seconds=seconds)
        most = max(10, 3 * self._executor.n_workers)
        while tasks:
            for answer in self._answers(tasks):
                self._campaign.take(answer)
                self._draw()
                self._records.save_sometimes()
                if self._campaign.is_hopeless(most):
                    self._campaign.give_up_away()
                    n_troubles, trouble = self._campaign.n_troubles, self._campaign.trouble
                    raise EngineUnavailable(f"{n_troubles} tasks in a row failed: {trouble}")
            tasks = self._campaign.tasks()

    def _answers(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """The answers of the executor. What it does not answer comes again in the next round."""
        if not tasks:
            return
        self._signals.check()
        self._draw()
        self._n_lost += 1  # unless an answer comes
        try:
            with contextlib.closing(_generator(self._executor.run(self._job, tasks))) as answers:
                for answer in answers:
                    self._n_lost = 0
                    yield answer
                    self._signals.check()
        except ExecutorLost:
            if self._n_lost >= LOST_TRIES:
                raise
        if self._n_lost >= LOST_TRIES:
            raise ExecutorLost("the workers give no answers")

    def _draw(self) -> None:
        if self._progress.is_due:
            self._campaign.count_all()
            self._progress.draw()


def _generator(answers: Iterator[Answer]) -> Generator[Answer]:
    yield from answers


@contextlib.contextmanager
def _locked(store: object) -> Generator[None]:
    """Keep other runs away from a local folder. The lock ends with the process."""
    if not isinstance(store, LocalStore):
        yield
        return
    folder = store.root / INTERNAL
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another run uses {store.root}") from error
        store.tidy("manifest.*", f"{OUTPUTS}/*/*", f"{INTERNAL}/**/*")
        yield
    finally:
        os.close(descriptor)
