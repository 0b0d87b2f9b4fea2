"""Fit what a step of vLLM's engine costs, with and without chunks that start in it.

    export ASR_STEPS=/tmp/steps
    benchmarks/gpu/serve.sh MODEL --scheduler-cls benchmarks.gpu.step_log.Steps
    echo '{"share": 0}' > /tmp/steps/settings.json     # changes the scheduler while it runs
    python -m benchmarks.gpu.steps /tmp/steps --last 20

Each engine writes one log file, with a line `seconds running new tokens` for each step.
`settings.json` in the same folder sets the scheduler's `share` and `patience`. The output has three
costs in milliseconds, fitted by least squares: `step_ms` is a step without new chunks,
`more_with_new_ms` is the extra cost of a step with new chunks, and `each_new_ms` is the cost of
each new chunk.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAUSE = 1.0
"""A longer time between steps means that the engine was idle or compiled kernels. In seconds."""


class Step(NamedTuple):
    """When a step was planned, how many chunks ran before and started in it, and its tokens."""

    at: float
    n_running: int
    n_new: int
    n_tokens: int


def read_steps(path: Path) -> list[Step]:
    """The steps of one engine; times are seconds of its monotonic clock."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return [Step(float(at), *map(int, counts)) for at, *counts in lines]


def fit(steps: list[Step]) -> dict[str, Any]:
    """Costs by least squares.

    vLLM plans a step and launches it at once. Then it waits for the previous step to end, and only
    then plans the next one. So new chunks in a step lengthen two intervals between plans: the one
    right after the plan of this step, and the one after that. Both are fitted and added up.
    """
    at, new = (np.array([getattr(step, name) for step in steps]) for name in ("at", "n_new"))
    seconds = np.diff(at)[1:]
    now, before = new[1:-1], new[:-2]
    columns = [np.ones_like(seconds), now > 0, now, before > 0, before]
    busy = seconds < PAUSE
    shares, *_ = np.linalg.lstsq(np.stack(columns, 1)[busy].astype(float), seconds[busy])
    base, begin, each, begin_after, each_after = (1000 * shares).tolist()
    return {
        "steps": len(steps),
        "with_new": int((new > 0).sum()),
        "new_in_those": round(float(new[new > 0].mean()), 1) if new.any() else 0,
        "running": round(float(np.mean([step.n_running for step in steps]))),
        "step_ms": round(base, 1),
        "more_with_new_ms": round(begin + begin_after, 1),
        "each_new_ms": round(each + each_after, 1),
        "paused_s": round(float(seconds[~busy].sum()), 1),
    }


def main() -> None:
    """Print a line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--last", type=float, help="use only the last so many seconds of each log")
    options = parser.parse_args()
    for path in sorted(options.folder.glob("*.steps")):
        steps = read_steps(path)
        if options.last:
            steps = [step for step in steps if step.at > steps[-1].at - options.last]
        if len(steps) > 10:
            print(json.dumps({"engine": path.stem, **fit(steps)}))


if __name__ == "__main__":
    main()
