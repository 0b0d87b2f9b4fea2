"""Measure word times through the whole pipeline: decoding, VAD, chunks, aligner, stitching.

The engine returns the reference text (`asr evaluate --times`), so only the times can be wrong. The
aligner is compared with interpolation: words spread over the speech by their letters.

    python -m benchmarks.alignment [--real MANIFEST]

Needs Festival (benchmarks/corpus.py). A manifest of real recordings with word times is optional; we
know none whose licence lets us include it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.align.hmm.aligner import SphinxAligner
from asr.align.hmm.forced import ForcedAligner
from asr.audio.resample import decode
from asr.config import AudioLimits, ChunkOptions, Options
from asr.evaluation import ReferenceEngine, Report, evaluate, read_manifest
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import SAMPLE_RATE, Audio
from benchmarks import corpus
from benchmarks.measure import save, start_with_one_thread

if TYPE_CHECKING:
    from asr.evaluation import Utterance
    from asr.types import Transcript

WORKERS = 2
SPEED_TEXT = "gettysburg"
"""The text whose recordings measure the speed of one core."""


def run(utterances: list[Utterance], *, aligned: bool, chunk_seconds: float) -> Report:
    """Transcribe and score."""
    aligner = SphinxAligner(WORKERS) if aligned else None
    words_of = {utterance.file: utterance.words for utterance in utterances}
    reference = ReferenceEngine(WORKERS)
    options = Options(chunk=ChunkOptions(max_seconds=chunk_seconds))
    with asyncio.Runner() as runner:
        transcriber = Transcriber(reference, aligner)
        runner.run(transcriber.open())

        def transcribe(path: Path) -> Transcript:
            reference.words = words_of[path]
            return runner.run(collect(transcriber.transcribe_file(path, options)))

        report = evaluate(utterances, transcribe)
        runner.run(transcriber.close())
    return report


def rows(report: Report, times: str, chunk_seconds: float) -> list[dict[str, Any]]:
    """Make a row of the table for each category of speech."""
    return [
        {"times": times, "chunks": f"{chunk_seconds:.0f} s", "speech": name, **_row(part)}
        for name, part in report.categories.items()
    ]


def _row(report: Report) -> dict[str, Any]:
    figures, times = report.figures(), report.times
    heard = [word for it in report.results if it.transcript for word in it.transcript.words]
    estimated = sum(word.timing == "interpolated" for word in heard)
    start, end = (1000 * np.abs(errors) for errors in (times.start_errors, times.end_errors))
    return {
        "words": figures["timed_words"],
        "timed": _percent(times.matched_share or 0.0),
        "estimated": _percent(estimated / max(len(heard), 1)),
        "start median ms": round(float(np.median(start)), 1),
        "start p95 ms": round(float(np.quantile(start, 0.95)), 1),
        "start ≤ 100 ms": _percent(float(np.mean(start <= 100))),
        "start ≤ 200 ms": _percent(float(np.mean(start <= 200))),
        "end median ms": round(float(np.median(end)), 1),
        "end ≤ 100 ms": _percent(float(np.mean(end <= 100))),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def one_core(utterances: list[Utterance]) -> dict[str, float]:
    """Measure seconds of speech aligned per CPU second, in chunks of 20 s and one thread."""
    forced = ForcedAligner()
    spoken = used = 0.0
    for utterance in utterances:
        samples = np.concatenate(list(decode(utterance.file, AudioLimits()).blocks))
        for start in range(0, len(samples) // SAMPLE_RATE, 20):
            audio = Audio(samples[start * SAMPLE_RATE : (start + 20) * SAMPLE_RATE])
            texts = [it.text for it in utterance.words if start <= it.midpoint < start + 20]
            started = time.process_time()
            forced.align(audio, texts)
            used += time.process_time() - started
            spoken += audio.duration
    return {
        "seconds": round(spoken, 1),
        "CPU seconds": round(used, 1),
        "RTFx": round(spoken / used, 1),
    }


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="manifest of real recordings with word times")
    options = parser.parse_args()
    start_with_one_thread(__spec__.name)
    if not corpus.is_available():
        raise SystemExit("festival is not installed; see benchmarks/corpus.py")
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = read_manifest(corpus.write(Path(folder)))
        plain = [it for it in made if it.categories == ("clean",)]
        some = [it for it in plain if SPEED_TEXT in it.file.name]
        for chosen, seconds in ((plain, 10.0), (made, 30.0)):
            for times, aligned in (("aligned", True), ("by letters", False)):
                report = run(chosen, aligned=aligned, chunk_seconds=seconds)
                table += rows(report, times, seconds)
        speed = one_core(some)
    if options.real is None:
        print("no real recordings: --real was not given")
    else:
        real = [it for it in read_manifest(options.real) if it.words]
        for times, aligned in (("aligned", True), ("by letters", False)):
            table += rows(run(real, aligned=aligned, chunk_seconds=30.0), times, 30.0)
    print("one core:", speed)
    save("alignment", table, {"one core": speed})


if __name__ == "__main__":
    main()
