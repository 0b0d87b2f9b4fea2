"""Speed: the model alone, and the service with and without alignment, alone and under load."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asr.config import DecodeOptions, Options
from asr.pipeline.transcriber import collect, make_transcriber
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.first_hour.bench import omni_engine, opened
from benchmarks.first_hour.recordings import long_recordings, pieces
from benchmarks.first_hour.section import Section, Table, Verdict, number

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.references import Clip

PIECE_SECONDS: Final = 27.0
"""The mean length of the service's chunks."""
PUBLISHED: Final = 542.9
NEAR: Final = 0.85
"""The share of the model's own speed that the service should reach."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured.

    Attributes:
        minutes: length of each recording.
        files: numbers of recordings at once.
        chunks: numbers of chunks in flight, for the model alone.
    """

    minutes: float = 10.0
    files: tuple[int, ...] = (1, 4, 16)
    chunks: tuple[int, ...] = (1, 16, 64, 128)


async def measure(bench: Bench, clips: Sequence[Clip], load: Load) -> Section:
    """Measure what is not stored yet, and return the table."""
    title = "Speed"
    seconds = 60 * load.minutes
    recordings = long_recordings(clips, bench.folder / "audio" / "speed", seconds, max(load.files))
    if not recordings:
        told = f"no clip is short enough for recordings of {load.minutes:g} minutes"
        verdict = Verdict("speed", "not measurable", told, "give shorter clips")
        return Section("speed", title, (verdict,))
    rows = _Rows(bench)
    for n_chunks in load.chunks:
        await rows.add("model", n_chunks, partial(_model, bench, recordings, n_chunks))
    for aligner in ("none", bench.settings.aligner):
        for n_files in load.files:
            some = recordings[:n_files]
            what = f"service, aligner {aligner}, {load.minutes:g} min"
            await rows.add(what, n_files, partial(_service, bench, some, aligner))
    titles = ("what", "at once", "seconds of audio", "wall s", "RTFx")
    shown = [
        (
            it["what"],
            str(it["n"]),
            number(it["audio"], 0),
            number(it["wall"]),
            number(it["rtfx"], 1),
        )
        for it in rows.found
    ]
    remark = (
        "The model alone gets chunks of 27 s. The service runs in this process, with decoding, VAD "
        "and the guards; its own HTTP is not part of this (benchmarks/gpu measures it). NVIDIA's "
        f"RTFx is {PUBLISHED} on an RTX 6000 Pro Max-Q, without word times."
    )
    table = Table("Seconds of audio per second", [titles, *shown])
    return Section("speed", title, (_verdict(rows.found),), (table,), (remark,))


class _Rows:
    """The measured rows, in a file, so that an interrupted run continues."""

    def __init__(self, bench: Bench) -> None:
        self._path = bench.folder / "speed.json"
        self.found: list[dict[str, Any]] = []
        if self._path.exists():
            self.found = json.loads(self._path.read_text("utf-8"))

    async def add(self, what: str, n: int, run: Callable[[], Coroutine[Any, Any, float]]) -> None:
        """Measure a row unless it is stored. `run` returns the seconds of audio."""
        if any((it["what"], it["n"]) == (what, n) for it in self.found):
            return
        start = time.perf_counter()
        audio = await run()
        wall = time.perf_counter() - start
        self.found.append(
            {"what": what, "n": n, "audio": audio, "wall": wall, "rtfx": audio / wall}
        )
        self._path.write_text(json.dumps(self.found, indent=2), encoding="utf-8")
        print(f"{what}, {n} at once: RTFx {audio / wall:.1f}", flush=True)


async def _model(bench: Bench, recordings: Sequence[Clip], n_chunks: int) -> float:
    some = pieces(recordings, PIECE_SECONDS, max(4, 2 * n_chunks))
    engine = omni_engine(replace(bench.settings, engine_slots=n_chunks), bench.network)
    await engine.open()
    places = asyncio.Semaphore(n_chunks)

    async def one(index: int) -> None:
        async with places:
            chunk = Chunk(index, 0, len(some[index]))
            await engine.transcribe(chunk, Audio(some[index]), DecodeOptions())

    try:
        async with asyncio.TaskGroup() as group:
            for index in range(len(some)):
                group.create_task(one(index))
    finally:
        await engine.close()
    return sum(map(len, some)) / SAMPLE_RATE


async def _service(bench: Bench, recordings: Sequence[Clip], aligner: str) -> float:
    settings = replace(bench.settings, aligner=aligner)

    made_of = make_transcriber(settings, lambda it: omni_engine(it, bench.network))
    async with opened(made_of) as service:
        files = (clip.utterance.file for clip in recordings)
        done = (collect(service.transcribe_file(file, Options())) for file in files)
        made = await asyncio.gather(*done)
    return sum(it.duration for it in made)


def _verdict(rows: Sequence[dict[str, Any]]) -> Verdict:
    item = "speed"
    model = max(it["rtfx"] for it in rows if it["what"] == "model")
    service = max((it for it in rows if it["what"] != "model"), key=lambda it: it["rtfx"])
    aligned = [it for it in rows if it["what"] != "model" and "aligner none" not in it["what"]]
    best = max(aligned, key=lambda it: it["rtfx"], default=service)
    told = (
        f"model alone up to {model:.0f}, service with alignment up to {best['rtfx']:.0f} "
        f"({best['n']} at once), without up to {service['rtfx']:.0f} times real time"
    )
    if best["rtfx"] < NEAR * model:
        todo = (
            "if the row without alignment is fast, cores are missing for the aligner "
            "(docs/deployment.md); else raise ASR_ENGINE_SLOTS, or read vLLM's log"
        )
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)
