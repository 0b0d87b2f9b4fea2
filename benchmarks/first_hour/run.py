"""All measurements in order. Each answer is stored, so a run that is repeated continues."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from asr.config import check
from benchmarks.first_hour import (
    checks,
    chunks,
    hints,
    instructions,
    plan,
    quality,
    report,
    speed,
    thinking,
)
from benchmarks.first_hour.bench import omni_engine
from benchmarks.first_hour.references import selection
from benchmarks.first_hour.wire import text_part
from benchmarks.measure import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.references import Clip
    from benchmarks.first_hour.section import Section

    Step = Callable[[], Coroutine[Any, Any, Section]]

STEPS: Final = (
    *("doctor", "tokens", "instructions", "thinking", "hints"),
    *("chunks", "categories", "times", "doubts", "speed"),
)


WITHOUT_CLIPS: Final = ("doctor", "tokens")


@dataclass(frozen=True, slots=True)
class Request:
    """What to run: names of `STEPS`, and the load of the step "speed"."""

    steps: tuple[str, ...] = STEPS
    load: speed.Load = field(default_factory=speed.Load)
    note: str = ""


async def everything(bench: Bench, request: Request) -> Path:
    """Run the steps, write the report after each one, and return its path.

    Raises:
        EngineUnavailable: no server answers; run again to continue.
        InvalidOption: the folder holds the answers of another model.
    """
    bench.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = await _facts(bench, request)
    _same_question(bench, facts)
    clips, load = bench.clips, request.load
    if not set(request.steps) <= set(WITHOUT_CLIPS):
        made = await plan.make(bench, load, request.steps)
        print(f"Plan: {made}", flush=True)
        clips = selection(clips, made.clip_seconds + 1e-6)
        load = replace(load, minutes=made.speed_minutes)
        length = sum(clip.seconds for clip in clips) / 60
        facts["clips"] = f"{len(clips)} of {len(bench.clips)}, {length:.1f} minutes"
        facts["plan"] = str(made)
    path = bench.folder / "report.md"
    sections = report.stored(bench.folder)
    for name, step in _steps(bench, clips, load).items():
        if name in request.steps:
            print(f"== {name}", flush=True)
            section = await step()
            for verdict in section.verdicts:
                print(f"   {verdict.level:<14} {verdict.item}: {verdict.found}", flush=True)
            sections[name] = section
            ordered = [sections[it] for it in STEPS if it in sections]
            path = report.write(bench.folder, facts, ordered)
    return path


def _steps(bench: Bench, clips: Sequence[Clip], load: speed.Load) -> dict[str, Step]:
    return {
        "doctor": lambda: checks.doctor(bench),
        "tokens": lambda: checks.tokens(bench),
        "instructions": lambda: instructions.measure(bench, clips),
        "thinking": lambda: thinking.measure(bench, clips[: plan.N_THINKING]),
        "hints": lambda: hints.measure(bench, clips),
        "chunks": lambda: chunks.measure(bench, clips),
        "categories": lambda: quality.categories(bench, clips),
        "times": lambda: quality.times(bench, clips),
        "doubts": lambda: quality.doubts(bench, clips),
        "speed": lambda: speed.measure(bench, clips, load),
    }


async def _facts(bench: Bench, request: Request) -> dict[str, Any]:
    engine = omni_engine(bench.settings, bench.network)
    try:
        await engine.open()
        model = engine.model
    finally:
        await engine.close()
    here = machine()
    return {
        **({"note": request.note} if request.note else {}),
        "model": model,
        "instruction": repr(text_part(await checks.sent_body(bench))[0]),
        "servers": ", ".join(httpx.URL(url).netloc.decode() for url in bench.settings.vllm_urls),
        "date": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "commit": here["commit"],
        "client": f"{here['cpu']}, {here['cores']} cores",
        "in progress at once": bench.parallel,
    }


def _same_question(bench: Bench, facts: dict[str, Any]) -> None:
    """Check that the stored answers are from this model, instruction and clips."""
    path = bench.folder / "run.json"
    identity = {name: facts[name] for name in ("model", "instruction")}
    identity["clips"] = sorted(clip.id for clip in bench.clips)
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        other = [name for name, value in identity.items() if before.get(name) != value]
        told = f"{bench.folder} has answers of another {', '.join(other)}: choose another folder"
        check(not other, "out", told)
    report.put(path, json.dumps(identity))
