"""Run tasks in this process instead of on Ray, and recordings for it."""

import os
import signal

import numpy as np

from asr.batch.campaign import Campaign
from asr.batch.index import Index
from asr.batch.progress import Progress
from asr.batch.results import Results
from asr.batch.run import prepare, run_batch
from asr.batch.sources import list_sources
from asr.batch.store import open_store
from asr.batch.tasks import Job
from asr.batch.worker import Worker
from asr.config import Options, SubtitleOptions
from asr.settings import Settings
from tests.support import makers
from tests.support.fakes import DELAY_VARIABLE, FakeEngine

ENGINE = "tests.batch.inline:telling_engine"


class TellingEngine(FakeEngine):
    """Its words tell the chunk and the samples, so a wrong piece gives a wrong transcript."""

    async def transcribe(self, chunk, audio, options):
        self._answer = lambda it: FakeEngine._speak(self, it)
        heard = await super().transcribe(chunk, audio, options)
        mark = f"s{int(np.abs(audio.samples).sum() * 1000)}"
        words = tuple(
            type(word)(f"{word.text}{mark}", word.start, word.end, 0.5) for word in heard.words
        )
        return type(heard)(heard.chunk_index, " ".join(it.text for it in words), words)


def telling_engine(settings):
    return TellingEngine(settings.workers)


class Inline:
    """An executor that does each task at once.

    Attributes:
        tasks: those that it was given.
        n_starts: how often it was started.
    """

    n_workers = 1

    def __init__(self, change=None):
        self.tasks = []
        self.n_starts = 0
        self._change = change
        self._job = self._worker = None

    def start(self):
        self.n_starts += 1

    def run(self, job, tasks):
        if job != self._job:
            self.close()
            self._job, self._worker = job, Worker(job)
        for task in tasks:
            self.tasks.append(task)
            if self._change is not None:
                self._change(task)
            yield self._worker.handle(task)

    def close(self):
        """End the worker, which serves all rounds of a run, as opening its engine takes time."""
        if self._worker is not None:
            self._worker.close()
        self._job = self._worker = None

    @property
    def kinds(self):
        return [task.kind for task in self.tasks]


def job_for(out, work, *, options=None, formats=("srt",), engine=ENGINE, **settings):
    settings = Settings(work_dir=str(work), cpu_workers=1, aligner="none", **settings)
    options = options or Options()
    job = Job(settings, options, tuple(formats), SubtitleOptions(), str(out), "", 0.0, "", engine)
    return prepare(job)


def run(job, names, executor=None, **options):
    """Run a batch without drawing."""
    executor = executor or Inline()
    sources = list_sources(map(str, names)).sources
    try:
        return run_batch(job, sources, executor, Progress(hidden=True), **options)
    finally:
        executor.close()


def talk(seconds, seed=0, pause=3.0):
    """Speech of 7 s and pauses in turn; each seed sounds different."""
    spans = [(at, min(at + 7.0, seconds)) for at in np.arange(0.5, seconds - 1, 7.0 + pause)]
    samples = makers.bursts(seconds, spans)
    return samples * (0.5 + 0.05 * (seed % 10)) + makers.noise(seconds, level=1e-4, seed=seed)


def campaign_for(job, names, **options):
    store = open_store(job.out)
    results = Results(store, job.formats, job.subtitles)
    sources = list_sources(map(str, names)).sources
    progress = Progress(hidden=True)
    return Campaign(sources, results, Index(store), job.fingerprint, progress, **options)


def slow_engine(settings):
    """A `TellingEngine` that takes ``FAKE_ENGINE_DELAY`` seconds for a chunk."""
    return TellingEngine(settings.workers, float(os.environ.get(DELAY_VARIABLE, "0.2")))


class Deadly(TellingEngine):
    """Kills its own process at a chunk that is louder than anything else."""

    async def transcribe(self, chunk, audio, options):
        if np.abs(audio.samples).max() > 0.99:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().transcribe(chunk, audio, options)


def deadly_engine(settings):
    return Deadly(settings.workers)
