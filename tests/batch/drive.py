"""A driver as a program, which tests can kill.

python -m tests.batch.drive OUT WORK IN [--address HOST:PORT] [--engine NAME] [--longest SECONDS]
"""

import argparse
import signal
import sys
from pathlib import Path

from asr.batch.cluster import RayExecutor, size_for
from asr.batch.progress import Progress
from asr.batch.run import run_batch
from asr.batch.sources import list_sources
from tests.batch.inline import job_for


def main():
    # The shell ignores it for programs in the background, and so would the run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("archive")
    parser.add_argument("--address")
    parser.add_argument("--engine", default="telling_engine")
    parser.add_argument("--longest", type=float)
    parser.add_argument("--at-once", type=int, default=0)
    options = parser.parse_args()
    engine = f"tests.batch.inline:{options.engine}"
    job = job_for(options.out, options.work, engine=engine)
    with RayExecutor(options.address, size_for(job, 0, 1, options.at_once)) as executor:
        sources = list_sources([options.archive]).sources
        outcome = run_batch(job, sources, executor, Progress(hidden=False), longest=options.longest)
    print(outcome, flush=True)
    return 130 if outcome.is_interrupted else 1 if outcome.n_failed or outcome.n_pending else 0


if __name__ == "__main__":
    sys.exit(main())
