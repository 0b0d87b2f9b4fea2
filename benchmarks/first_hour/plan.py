"""Measure a few clips, estimate the time of everything, and choose as many clips as fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.first_hour.arms import CHUNKS, INSTRUCTIONS, SENT, SERVICE
from benchmarks.first_hour.chunks import JOINED_SECONDS, MAX_JOINED
from benchmarks.first_hour.references import selection

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from benchmarks.first_hour.arms import Arm
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
UNKNOWN_RATE: Final = 100.0
"""If every clip was answered in an earlier run; then there is little left to ask."""
SPEED_SHARE: Final = 0.2
MIN_CLIPS: Final = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked.

    Attributes:
        model_rtfx: measured seconds of audio per second, the model alone.
        service_rtfx: the same for the whole service.
        clip_seconds: seconds of the clips that take part.
        speed_minutes: length of the recordings of the step "speed".
        steps: estimated seconds of each step.
    """

    model_rtfx: float
    service_rtfx: float
    clip_seconds: float
    speed_minutes: float
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


async def make(bench: Bench, load: Load, names: Collection[str]) -> Plan:
    """Return the plan. The speed is stored, so the same options give the same plan later.

    Args:
        bench: what to measure with.
        load: the load of the step "speed", at most.
        names: the steps that are wanted.
    """
    path = bench.folder / "rates.json"
    if not path.exists():
        rates = {arm.name: await _rate(bench, arm) for arm in (SENT, SERVICE)}
        path.write_text(json.dumps(rates), encoding="utf-8")
    found = json.loads(path.read_text("utf-8"))
    rate = Estimate(bench.clips, found[SENT.name], found[SERVICE.name], load, names)
    return rate.fitting(60 * bench.minutes)


async def _rate(bench: Bench, arm: Arm) -> float:
    """Seconds of audio per second, by clips that have no answer yet."""
    store = bench.store(arm)
    clips = [clip for clip in bench.clips if not store.has(clip)]
    first = selection(clips, FIRST_SECONDS)[:FIRST_CLIPS]
    if not first:
        return UNKNOWN_RATE
    await bench.ask(arm, first)
    return sum(clip.seconds for clip in first) / max(bench.spent[arm.name], 1e-3)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimates the time of the steps.

    Attributes:
        model_rtfx: measured seconds of audio per second, the model alone.
        service_rtfx: the same for the whole service.
    """

    clips: Sequence[Clip]
    model_rtfx: float
    service_rtfx: float
    load: Load
    names: Collection[str]

    def fitting(self, seconds: float) -> Plan:
        """Return the plan with the most clips that takes at most `seconds`.

        Speed takes at most a fifth of the time, with shorter recordings if necessary. If the time
        is too short even for `MIN_CLIPS`, the plan is longer.
        """
        total = sum(clip.seconds for clip in self.clips)
        full, share = self._speed(self.load.minutes), SPEED_SHARE * seconds
        minutes = min(self.load.minutes, max(0.5, self.load.minutes * share / full))
        if self._plan(total, minutes).seconds <= seconds:
            return self._plan(total, minutes)
        low, high = min(total, MIN_CLIPS * total / len(self.clips)), total
        for _ in range(30):
            middle = (low + high) / 2
            fits = self._plan(middle, minutes).seconds <= seconds
            low, high = (middle, high) if fits else (low, middle)
        return self._plan(low, minutes)

    def _plan(self, seconds: float, speed_minutes: float) -> Plan:
        mean = sum(clip.seconds for clip in self.clips) / max(1, len(self.clips))
        n_clips = seconds / max(mean, 1e-3)
        joined = min(max(seconds, 3 * JOINED_SECONDS), MAX_JOINED * JOINED_SECONDS)
        thinking = mean * min(N_THINKING, n_clips) * THINKING_FACTOR
        steps = {
            "instructions": (1 + len(INSTRUCTIONS)) * seconds / self.model_rtfx,
            "thinking": thinking / self.model_rtfx,
            "hints": N_HINTS * seconds / self.model_rtfx,
            "chunks": len(CHUNKS) * joined / self.model_rtfx,
            "categories": seconds / self.service_rtfx,
            "speed": self._speed(speed_minutes),
        }
        wanted = {name: time for name, time in steps.items() if name in self.names}
        return Plan(self.model_rtfx, self.service_rtfx, seconds, speed_minutes, wanted)

    def _speed(self, minutes: float) -> float:
        pieces = 27.0 * sum(max(4, 2 * n) for n in self.load.chunks) / self.model_rtfx
        files = 60 * minutes * sum(self.load.files)
        return pieces + files * (1 / self.model_rtfx + 1 / self.service_rtfx)
