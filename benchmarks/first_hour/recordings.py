"""Audio that the measurements make: sentences with exact word times, and long recordings.

python -m benchmarks.first_hour.recordings FOLDER    # the sentences of samples/, as references
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile

from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.evaluation import Utterance, read_manifest
from asr.types import SAMPLE_RATE, Word
from benchmarks.first_hour.references import Clip, selection
from benchmarks.joined import join, load_clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples" / "manifest.jsonl"
SYNTHETIC: Final = "synthetic"
POOL_SECONDS: Final = 1200.0
"""Clips of so many seconds in total are joined to long recordings."""
EDGE: Final = 0.3
"""Seconds of audio that a sentence keeps before and after its words, if its neighbours allow it."""
NOISE: Final = 10 ** (-70 / 20)


def sentences(folder: Path, manifest: Path = SAMPLES) -> list[Clip]:
    """Cut recordings with word times into sentences; return them with the times of their words.

    Writes the audio and a manifest into the folder, so that the folder serves as references.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [it for each in read_manifest(manifest) for it in _cut(each, folder)]
    lines = [
        json.dumps({
            "file": it.file.name,
            "text": it.text,
            "category": ",".join(it.categories),
            "words": [{"text": w.text, "start": w.start, "end": w.end} for w in it.words],
        })
        for it in made
    ]  # fmt: skip
    (folder / "manifest.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return [Clip(it, len(soundfile.read(it.file)[0]) / SAMPLE_RATE) for it in made]


def _cut(recording: Utterance, folder: Path) -> Iterator[Utterance]:
    samples = np.concatenate(list(decode(recording.file, AudioLimits()).blocks))
    words = recording.words
    ends = [i for i, word in enumerate(words, 1) if word.text.endswith((".", "?", "!"))]
    for number, (first, last) in enumerate(zip([0, *ends], [*ends, len(words)], strict=False)):
        if first == last:
            continue
        said = words[first:last]
        before = words[first - 1].end if first else 0.0
        after = words[last].start if last < len(words) else len(samples) / SAMPLE_RATE
        start = max(said[0].start - EDGE, (before + said[0].start) / 2)
        end = min(said[-1].end + EDGE, (after + said[-1].end) / 2)
        file = folder / f"{recording.file.stem}-{number:02}.wav"
        part = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        soundfile.write(file, part, SAMPLE_RATE, "PCM_16")
        moved = tuple(
            Word(it.text, round(it.start - start, 4), round(it.end - start, 4)) for it in said
        )
        text = " ".join(it.text for it in said)
        yield Utterance(file, text, moved, (*recording.categories, SYNTHETIC))


def long_recordings(
    clips: Sequence[Clip], folder: Path, seconds: float, count: int, *, pauses: bool = True
) -> list[Clip]:
    """Join clips to recordings of about `seconds`, each with a faint noise of its own.

    Without the noise, a server that remembers audio would answer repeated clips from memory.
    Returns nothing if all clips are too long.
    """
    fitting = [clip for clip in clips if 0 < clip.seconds <= seconds / 2]
    if not fitting:
        return []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pool = [load_clip(clip.utterance) for clip in selection(fitting, POOL_SECONDS)]
    made = []
    for number in range(count):
        joined = join(pool, seconds, pauses, seed=number)
        noise = np.random.default_rng(number).normal(0, NOISE, len(joined.samples))
        file = folder / f"joined-{seconds:.0f}-{number:03}.wav"
        samples = np.clip(joined.samples + noise, -1, 1)
        soundfile.write(file, samples, SAMPLE_RATE, "PCM_16")
        utterance = Utterance(file, joined.text, categories=("joined",))
        made.append(Clip(utterance, len(samples) / SAMPLE_RATE))
    return made


def pieces(recordings: Sequence[Clip], seconds: float, count: int) -> list[np.ndarray]:
    """Cut the recordings into pieces of equal length, as float32."""
    found: list[np.ndarray] = []
    size = round(seconds * SAMPLE_RATE)
    for recording in recordings:
        samples = soundfile.read(recording.utterance.file, dtype="float32")[0]
        found += [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]
        if len(found) >= count:
            break
    return found[:count]


if __name__ == "__main__":
    print(f"{len(sentences(Path(sys.argv[1])))} clips in {sys.argv[1]}")
