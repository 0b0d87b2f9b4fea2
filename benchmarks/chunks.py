"""Show how long chunks are with and without joining short ones, and whether words are lost.

Clips are concatenated to recordings with pauses of low noise. Short clips and long pauses are like
a conversation in which some answers are a word or two. Each recording is cut into chunks twice:
with `ChunkOptions.min_seconds` at 0 and at its default. The histogram counts chunks by their
length, and those with less speech than `min_seconds`.

    python -m benchmarks.chunks --speech MANIFEST [--speech ...] [--minutes 5] [--number 4]
                                [--longest-clip 60] [--pauses 0.3 6] [--out FOLDER]

With --out the recordings and a manifest are written to a folder, for the word error rate:

    asr evaluate FOLDER/manifest.jsonl --min-chunk-seconds 0
    asr evaluate FOLDER/manifest.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from asr.audio.vad import SpeechDetector
from asr.config import ChunkOptions, VadOptions
from asr.evaluation import read_manifest
from asr.pcm import to_int16
from asr.pipeline.chunking import make_chunks
from asr.types import SAMPLE_RATE, Audio, Chunk, SpeechRegion
from benchmarks.joined import PAUSE_NOISE, SAMPLES, Clip, load_clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAUSE_SECONDS = (0.3, 6.0)
EDGES = (1, 2, 3, 5, 10, 15, 20, 25, 30)
"""Upper ends of the histogram's bins, in seconds."""
BLOCK_SAMPLES = 10 * SAMPLE_RATE


def record(
    clips: Sequence[Clip], seconds: float, pauses: Sequence[float], seed: int
) -> tuple[np.ndarray, str]:
    """Return the samples and the text of one recording."""
    order, noise = random.Random(seed), np.random.default_rng(seed)
    parts, texts, n_samples = [], [], 0
    while n_samples < seconds * SAMPLE_RATE:
        for clip in order.sample(clips, len(clips)):
            n_pause = round(order.uniform(*pauses) * SAMPLE_RATE)
            parts += [clip.samples, noise.normal(0, PAUSE_NOISE, n_pause).astype(np.float32)]
            texts.append(clip.text)
            n_samples += len(clip.samples) + n_pause
    return np.concatenate(parts), " ".join(texts)


def find_speech(samples: np.ndarray) -> Iterator[SpeechRegion]:
    """Yield the regions that the default VAD finds."""
    detector, pcm = SpeechDetector(VadOptions()), to_int16(samples)
    for start in range(0, len(pcm), BLOCK_SAMPLES):
        yield from detector.push(pcm[start : start + BLOCK_SAMPLES])
    yield from detector.finish()


def cut(samples: np.ndarray, options: ChunkOptions) -> list[Chunk]:
    """Return the chunks of a recording."""
    return make_chunks(find_speech(samples), options, lambda start, end: Audio(samples[start:end]))


def row(name: str, chunks: Sequence[Chunk], least: float) -> dict[str, Any]:
    """Count chunks by length, and those with little speech."""
    lengths = Counter(next(edge for edge in EDGES if chunk.duration <= edge) for chunk in chunks)
    short = [chunk for chunk in chunks if (chunk.speech_seconds or 0) < least]
    return {
        "chunks": name,
        "number": len(chunks),
        **{f"<= {edge} s": lengths[edge] for edge in EDGES},
        f"under {least:g} s of speech": len(short),
        "mean s": round(sum(chunk.duration for chunk in chunks) / len(chunks), 1),
        "silence in chunks": f"{1 - _speech(chunks) / sum(it.duration for it in chunks):.1%}",
    }


def _speech(chunks: Sequence[Chunk]) -> float:
    return sum(chunk.speech_seconds or 0.0 for chunk in chunks)


def write(folder: Path, recordings: Sequence[tuple[np.ndarray, str]]) -> None:
    """Write the recordings and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for number, (samples, text) in enumerate(recordings):
            name = f"chunks-{number}.wav"
            soundfile.write(folder / name, samples, SAMPLE_RATE, "PCM_16")
            duration = len(samples) / SAMPLE_RATE
            manifest.write(json.dumps({"file": name, "text": text, "duration": duration}) + "\n")


def main() -> None:
    """Print the histograms of both ways, for each preferred length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speech", type=Path, action="append", help="manifest; may be repeated")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of a recording")
    parser.add_argument("--number", type=int, default=4, help="how many recordings")
    parser.add_argument("--longest-clip", type=float, default=60.0, help="leave out longer clips")
    parser.add_argument(
        "--pauses", type=float, nargs=2, default=PAUSE_SECONDS, help="shortest and longest pause"
    )
    parser.add_argument("--out", type=Path, help="write the recordings to this folder")
    chosen = parser.parse_args()
    clips = [load_clip(it) for it in chain(*map(read_manifest, chosen.speech or [SAMPLES]))]
    clips = [it for it in clips if len(it.samples) <= chosen.longest_clip * SAMPLE_RATE]
    recordings = [
        record(clips, 60 * chosen.minutes, chosen.pauses, seed) for seed in range(chosen.number)
    ]
    if chosen.out:
        write(chosen.out, recordings)
    for preferred in (30.0, 20.0):
        for least in (0.0, ChunkOptions().min_seconds):
            options = ChunkOptions(preferred_seconds=preferred, min_seconds=least)
            chunks = [it for samples, _ in recordings for it in cut(samples, options)]
            name = f"preferred {preferred:g} s, min_seconds {least:g}"
            print(json.dumps(row(name, chunks, ChunkOptions().min_seconds)))


if __name__ == "__main__":
    main()
