"""Speech with exact word times in clean and in bad conditions, for the benchmarks of alignment.

Three Festival voices speak the texts of `texts/`; what is added is white noise, music or a
telephone line. Nothing is kept in the repository: making it takes a minute.

    python -m benchmarks.corpus FOLDER

Needs Debian's festival, festvox-kallpc16k, festvox-kdlpc16k and festvox-us-slt-hts. Gettysburg and
Pride are in the public domain.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from samples.generate import Speech, band_pass, lay_out, speak, split_sentences

if TYPE_CHECKING:
    from collections.abc import Iterator

VOICES = {"kal": "kal_diphone", "ked": "ked_diphone", "slt": "cmu_us_slt_arctic_hts"}
TEXTS = sorted((Path(__file__).parent / "texts").glob("*.txt"))
SAMPLE_RATE = 16_000
SEED = 7
PAUSES = (0.15, 0.9)
"""Seconds between sentences, besides the silence that the voice itself leaves."""
BAD_CONDITIONS = ("noise 20 dB", "noise 10 dB", "music 10 dB", "telephone")


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech under a condition; `category` is how it is reported."""

    name: str
    category: str
    text: str
    speech: Speech


def is_available() -> bool:
    """Whether Festival is installed."""
    return shutil.which("festival") is not None


def recordings() -> Iterator[Recording]:
    """Every voice with every text, clean; and one text of each voice in every bad condition."""
    for voice_number, (name, voice) in enumerate(VOICES.items()):
        for text_number, file in enumerate(TEXTS):
            text = " ".join(file.read_text(encoding="utf-8").split())
            speech = _speak(text, voice, SEED + 10 * voice_number + text_number)
            kind = "numbers" if file.stem == "numbers" else "clean"
            yield Recording(f"{name}-{file.stem}", kind, text, speech)
            if text_number == voice_number % len(TEXTS):
                for condition in BAD_CONDITIONS:
                    bad = _spoil(speech, condition)
                    short = condition.replace(" ", "-")
                    yield Recording(f"{name}-{file.stem}-{short}", condition, text, bad)


def _speak(text: str, voice: str, seed: int) -> Speech:
    spoken = speak(split_sentences(text), voice)
    gaps = np.random.default_rng(seed).uniform(*PAUSES, len(spoken)).tolist()
    speech = lay_out(spoken, gaps, SAMPLE_RATE)
    samples = speech.samples * (0.5 / np.abs(speech.samples).max())
    hiss = np.random.default_rng(seed).normal(0, 10 ** (-75 / 20), len(samples))
    return Speech(samples + hiss, SAMPLE_RATE, speech.words)


def _spoil(speech: Speech, condition: str) -> Speech:
    kind, *level = condition.split()
    if kind == "telephone":
        samples = band_pass(speech.samples, SAMPLE_RATE, (300.0, 3400.0))
    else:
        n = len(speech.samples)
        added = _music(n) if kind == "music" else np.random.default_rng(SEED).normal(0, 1, n)
        samples = speech.samples + added * _gain(speech.samples, added, float(level[0]))
    return Speech(np.clip(samples, -1, 1), SAMPLE_RATE, speech.words)


def _gain(samples: np.ndarray, added: np.ndarray, decibels: float) -> float:
    """What brings `added` so far below the speech, pauses not counted."""
    loud = samples[np.abs(samples) > 0.01]
    power: float = np.mean(loud**2) / np.mean(added**2)
    return float(np.sqrt(power / 10 ** (decibels / 10)))


def _music(n_samples: int) -> np.ndarray:
    """Chords of plucked strings, four notes a second."""
    random = np.random.default_rng(SEED)
    music = np.zeros(n_samples)
    for start in range(0, n_samples, SAMPLE_RATE // 4):
        length = min(SAMPLE_RATE, n_samples - start)
        time = np.arange(length) / SAMPLE_RATE
        for semitone in random.choice(24, 3, replace=False):
            pitch = 110.0 * 2 ** (semitone / 12)
            tones = (np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
            music[start : start + length] += np.exp(-3 * time) * sum(tones)
    return music


def write(folder: Path) -> Path:
    """Write all recordings and their manifest, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for made in recordings():
        file = f"{made.name}.wav"
        soundfile.write(folder / file, made.speech.samples, SAMPLE_RATE, "PCM_16")
        words = [
            {"text": word.text, "start": round(word.start, 4), "end": round(word.end, 4)}
            for word in made.speech.words
        ]
        entry = {"file": file, "text": made.text, "category": made.category, "words": words}
        lines.append(json.dumps(entry))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return manifest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(write(parser.parse_args().folder))
