"""Measure a few clips, estimate the time of everything, and choose as many clips as fit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.first_hour.arms import CHUNKS, INSTRUCTIONS, SENT, SERVICE
from benchmarks.first_hour.chunks import JOINED_SECONDS, MAX_JOINED
from benchmarks.first_hour.references import selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.references import Clip
    from benchmarks.first_hour.speed import Load

FIRST_CLIPS: Final = 64
FIRST_SECONDS: Final = 300.0
"""Clips that are asked first, to know the speed. Their answers are kept."""
N_THINKING: Final = 40
THINKING_FACTOR: Final = 4.0
"""An answer with thinking takes about so many times as long."""
N_HINTS: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked.

    Attributes:
        model_rtfx: measured seconds of audio per second, the model alone.
        service_rtfx: the same for the whole service.
        clip_seconds: seconds of the clips that take part.
        steps: estimated seconds of each step.
    """

    model_rtfx: float
    service_rtfx: float
    clip_seconds: float
    steps: dict[str, float]

    @property
    def seconds(self) -> float:
        """Estimated seconds of everything."""
        return sum(self.steps.values())

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in self.steps.items())
        return (
            f"about {self.seconds / 60:.0f} minutes for {self.clip_seconds / 60:.0f} minutes of "
            f"clips, at {self.model_rtfx:.0f} times real time (service {self.service_rtfx:.0f}); "
            f"in minutes: {steps}"
        )


async def make(bench: Bench, load: Load) -> Plan:
    """Return the stored plan, or make one. With the same plan a later run asks the same clips."""
    path = bench.folder / "plan.json"
    if path.exists():
        return Plan(**json.loads(path.read_text("utf-8")))
    first = selection(bench.clips, FIRST_SECONDS)[:FIRST_CLIPS]
    seconds = sum(clip.seconds for clip in first)
    speeds = []
    for arm in (SENT, SERVICE):
        await bench.ask(arm, first)
        speeds.append(seconds / max(bench.spent[arm.name], 1e-3))
    plan = fitting(bench.clips, speeds[0], speeds[1], 60 * bench.minutes, load)
    path.write_text(json.dumps(asdict(plan), indent=2), encoding="utf-8")
    return plan


def fitting(
    clips: Sequence[Clip], model_rtfx: float, service_rtfx: float, seconds: float, load: Load
) -> Plan:
    """Return the plan with the most clips that takes at most `seconds`.

    The steps whose time does not depend on the clips are always part of it.
    """
    total = sum(clip.seconds for clip in clips)
    low, high = 0.0, total
    if _plan(clips, total, model_rtfx, service_rtfx, load).seconds <= seconds:
        low = total
    else:
        for _ in range(30):
            middle = (low + high) / 2
            fits = _plan(clips, middle, model_rtfx, service_rtfx, load).seconds <= seconds
            low, high = (middle, high) if fits else (low, middle)
    return _plan(clips, low, model_rtfx, service_rtfx, load)


def _plan(
    clips: Sequence[Clip], seconds: float, model_rtfx: float, service_rtfx: float, load: Load
) -> Plan:
    mean = sum(clip.seconds for clip in clips) / max(1, len(clips))
    n_clips = seconds / max(mean, 1e-3)
    joined = min(max(seconds, 3 * JOINED_SECONDS), MAX_JOINED * JOINED_SECONDS)
    thinking = mean * min(N_THINKING, n_clips) * THINKING_FACTOR
    measured = 27.0 * sum(max(4, 2 * n) for n in load.chunks) / model_rtfx
    measured += 60 * load.minutes * sum(load.files) * (1 / model_rtfx + 1 / service_rtfx)
    return Plan(
        model_rtfx,
        service_rtfx,
        seconds,
        {
            "instructions": (1 + len(INSTRUCTIONS)) * seconds / model_rtfx,
            "thinking": thinking / model_rtfx,
            "hints": N_HINTS * seconds / model_rtfx,
            "chunks": len(CHUNKS) * joined / model_rtfx,
            "service": seconds / service_rtfx,
            "speed": measured,
        },
    )
