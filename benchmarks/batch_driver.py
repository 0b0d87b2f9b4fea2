"""CPU time and memory of the driver of ``asr batch`` for many recordings, without Ray.

    python -m benchmarks.batch_driver --recordings 100000

The recordings do not exist; every task is answered as done at once. Reading the results of finished
recordings, one small file each, is replaced too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from asr.batch.campaign import Campaign
from asr.batch.index import Index
from asr.batch.manifest import write_manifest
from asr.batch.progress import Progress
from asr.batch.results import Done, Results
from asr.batch.sources import Source
from asr.batch.store import LocalStore
from asr.batch.tasks import Answer
from asr.config import SubtitleOptions

if TYPE_CHECKING:
    from collections.abc import Iterator


class Finished(Results):
    """Results in which everything that is asked for is done."""

    def done(self, row: str) -> Done:
        """Made up."""
        return Done(f"content of {row}", 3600.0, 10.0, "engine", (), {})


def steps(folder: Path, count: int) -> Iterator[str]:
    """Do the driver's steps; yield the name of each when it is done."""
    store = LocalStore(folder)
    results = Finished(store, ("srt",), SubtitleOptions())
    sources = [Source(f"/a/{n}.mp3", 28_000_000 + n, f"stamp {n}") for n in range(count)]
    index = Index(store)
    yield "list"
    campaign = Campaign(sources, results, index, "settings", Progress(hidden=True))
    campaign.unhashed()
    tasks = campaign.tasks()
    yield "plan a round"
    for task in tasks:
        campaign.take(Answer(task, "done", task.path, f"content of {task.path}", 3600.0, 10.0))
    yield "take the answers"
    campaign.count_all()
    index.save()
    yield "save the index"
    write_manifest(store, campaign.rows())
    yield "write the manifest"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recordings", type=int, default=100_000)
    options = parser.parse_args()
    print("| step | CPU s |\n|---|--:|")
    with tempfile.TemporaryDirectory() as folder:
        before = start = time.process_time()
        for name in steps(Path(folder), options.recordings):
            now = time.process_time()
            print(f"| {name} | {now - before:.2f} |")
            before = now
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"| all, {peak} MB | {before - start:.2f} |")


if __name__ == "__main__":
    main()
