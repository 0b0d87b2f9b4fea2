"""Our scheduler for vLLM with a log of its steps and of the time of each GPU kernel.

    export ASR_STEPS=/tmp/steps
    benchmarks/gpu/serve.sh MODEL --scheduler-cls benchmarks.gpu.kernels.Kernels
    echo 60 > /tmp/steps/profile          # profile the next 60 steps
    python -m benchmarks.gpu.kernels /tmp/steps

    echo '{"off": ["graphs"]}' > /tmp/steps/settings.json    # switch parts of our plugin off

The profiler records kernels alone, because recording the operations of torch slows the launching
down.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import plugin
from benchmarks.gpu.step_log import Steps

GROUPS: Final = {
    "MoE": r"fused_moe|moe_|topk|grouped_topk",
    "Mamba-2": r"chunk_scan|chunk_state|state_passing|bmm_chunk|selective|causal_conv1d|cumsum",
    "attention of the language model": r"flash|unified_attention|reshape_and_cache|fmha",
    "copies": r"[Mm]emcpy|[Mm]emset|copy_",
    "products": r"gemm|cutlass|nvjet|splitK|cublas|scaled_mm|wgmma",
}
"""Patterns of kernel names; the first match counts."""


class Kernels(Steps):
    """Logs the steps, and profiles when the file `profile` asks for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._profiler: Any = None
        self._n_left = 0
        self._began = 0.0
        self._off: list[str] = []

    def change(self, settings: dict[str, Any]) -> None:
        """Also switch all parts of the plugin on, except those in `off`."""
        super().change(settings)
        off = settings.get("off", [])
        if off != self._off:
            self._off = off
            for part, all_changes in plugin.changes.items():
                for change in all_changes:
                    change.apply(on=part not in off)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one step; start or end a profile before it."""
        order = self._folder / "profile"
        if self._profiler is None and order.exists():
            self._n_left = int(order.read_text() or 0)
            order.unlink()
            self._start()
        elif self._profiler is not None:
            self._n_left -= 1
            if self._n_left <= 0:
                self._stop()
        return super().schedule(*args, **kwargs)

    def _start(self) -> None:
        import torch

        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._profiler.__enter__()
        torch.cuda.synchronize()
        self._began = time.perf_counter()

    def _stop(self) -> None:
        import torch

        torch.cuda.synchronize()
        wall = time.perf_counter() - self._began
        self._profiler.__exit__(None, None, None)
        spans = [
            (it.time_range.start, it.time_range.end, it.name)
            for it in self._profiler.events()
            if not re.match(r"cu(da)?[A-Z]", it.name)  # calls of the CPU
        ]
        kernels: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for start, end, name in spans:
            kernels[name] += end - start
            counts[name] += 1
        report = {
            "wall_s": wall,
            "busy_s": busy(spans) / 1e6,
            "kernels": {name: [us / 1e6, counts[name]] for name, us in kernels.most_common(60)},
        }
        (self._folder / f"{os.getpid()}.kernels.json").write_text(json.dumps(report))
        self._profiler = None


def busy(spans: list[tuple[float, float, str]]) -> float:
    """The time in which at least one kernel ran, in the unit of the spans."""
    total, last = 0.0, 0.0
    for start, end, _ in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


def group_of(name: str) -> str:
    """The group that a kernel belongs to."""
    return next((group for group, it in GROUPS.items() if re.search(it, name)), "other")


def main() -> None:
    """Print the seconds of each group and of the longest kernels."""
    for path in sorted(Path(sys.argv[1]).glob("*.kernels.json")):
        report = json.loads(path.read_text())
        groups: Counter[str] = Counter()
        for name, (seconds, _) in report["kernels"].items():
            groups[group_of(name)] += seconds
        shown = {name: round(seconds, 3) for name, seconds in groups.most_common()}
        print(
            json.dumps(
                {
                    "wall_s": round(report["wall_s"], 3),
                    "busy_s": round(report["busy_s"], 3),
                    **shown,
                }
            )
        )
        for name, (seconds, n) in list(report["kernels"].items())[:25]:
            print(f"{seconds:8.4f} s {n:6d} x {name[:110]}")


if __name__ == "__main__":
    main()
