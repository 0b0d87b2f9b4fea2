"""Run a task that may kill its process in a separate process.

A worker dies for many reasons: somebody kills it, its node fails, memory runs out, or the recording
makes a library crash. Only the last one is the recording's fault. Here the worker waits for a child
that does nothing but the task. If the child dies `DEATHS` times and the worker lives, then nobody
else is to blame, and the recording fails. If the worker dies too, nothing is concluded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.batch.faults import SourceError, SourceUnavailable
from asr.batch.fetch import fetched
from asr.batch.identity import row_id
from asr.batch.results import Results
from asr.batch.stall import STATUS
from asr.batch.store import open_store
from asr.batch.tasks import Answer, Job, Task
from asr.batch.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

DEATHS: Final = 2


def run_alone(job: Job, task: Task, folder: Path) -> Answer:
    """Do a task in a child process, again if the child dies.

    Args:
        job: of the run.
        task: what to do.
        folder: for copies of URLs.
    """
    status = 0
    for _ in range(DEATHS):
        line, status = _child(job, task)
        if line:
            return Answer.unpack(line)
    return _blamed(job, task, folder, f"the process that worked on it died: {_named(status)}")


def _child(job: Job, task: Task) -> tuple[str, int]:
    """The answer of a child, empty if it died, and its exit status."""
    # Its standard input stays open while we live; the child ends when it closes.
    with subprocess.Popen(  # our own code
        [sys.executable, "-P", "-m", "asr.batch.alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise SourceUnavailable("a process without pipes")
        request = json.dumps([job.pack(), task.pack()])
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return "", process.wait()
        line = process.stdout.readline().decode()
    return line, process.returncode


def _named(status: int) -> str:
    if status == STATUS:
        return "it made no progress for an hour"
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _blamed(job: Job, task: Task, folder: Path, message: str) -> Answer:
    """Store the failure under the id of the recording, whose content may not be known yet."""
    content = task.content or ""
    if not content:
        try:
            with fetched(job.located(task.path), job.options.limits, folder) as source:
                content = source.content
        except (SourceError, SourceUnavailable):
            content = ""
    row = row_id(content, job.fingerprint) if content else ""
    if row:
        Results(open_store(job.out), job.formats, job.subtitles).fail(row, message)
    return Answer(task, "failed", row, content, error=message, fault="recording")


def main() -> None:
    """The child: read a job and a task from standard input, write the answer to standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    job, task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(Job.unpack(job))
    answer = worker.handle(replace(Task.unpack(task), alone=True))
    answers.write(answer.pack() + "\n")
    answers.flush()
    worker.close()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
