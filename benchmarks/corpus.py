"""Make speech with exact word times, clean and in bad conditions, for the alignment benchmarks.

Three voices of Festival speak the texts of `texts/`. Bad conditions add noise, music or a telephone
line. The repository holds no recordings, because making them takes only a minute.

Thresholds that were chosen on this speech are tested on held-out speech: `write_held_out` lets two
voices of Flite speak the texts of `texts/held-out` and of the samples. Flite gives no word times.

    python -m benchmarks.corpus FOLDER

Needs Debian's festival, festvox-kallpc16k, festvox-kdlpc16k and festvox-us-slt-hts, and flite for
held-out speech. Gettysburg, Pride, Alice and Moby-Dick are in the public domain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from benchmarks.sounds import spoil
from samples.generate import (
    TEXTS as SAMPLE_TEXTS,
    Speech,
    lay_out,
    speak,
    split_sentences,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VOICES = {"kal": "kal_diphone", "ked": "ked_diphone", "slt": "cmu_us_slt_arctic_hts"}
TEXTS = sorted((Path(__file__).parent / "texts").glob("*.txt"))
HELD_OUT_VOICES = ("rms", "awb")
HELD_OUT_TEXTS = sorted([
    *(Path(__file__).parent / "texts" / "held-out").glob("*.txt"),
    *SAMPLE_TEXTS.glob("*.txt"),
])  # fmt: skip
WITH_NUMBERS = ("numbers", "figures", "memo")
SAMPLE_RATE = 16_000
SEED = 7
PAUSES = (0.15, 0.9)
"""Seconds added between sentences, besides the voice's own silence."""
BAD_CONDITIONS = ("noise 20 dB", "noise 10 dB", "music 10 dB", "telephone")


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech in one condition; results are reported by `category`."""

    name: str
    category: str
    text: str
    speech: Speech


def is_available() -> bool:
    """Whether Festival is installed."""
    return shutil.which("festival") is not None


def is_all_available() -> bool:
    """Whether both Festival and Flite are installed."""
    return is_available() and shutil.which("flite") is not None


def recordings() -> Iterator[Recording]:
    """Speak every text with every voice, clean; and one text per voice in every bad condition."""
    for voice_number, (name, voice) in enumerate(VOICES.items()):
        for text_number, file in enumerate(TEXTS):
            text = " ".join(file.read_text(encoding="utf-8").split())
            seed = SEED + 10 * voice_number + text_number
            speech = _join(speak(split_sentences(text), voice), seed)
            yield Recording(f"{name}-{file.stem}", _kind(file), text, speech)
            if text_number == voice_number % len(TEXTS):
                for condition in BAD_CONDITIONS:
                    samples = spoil(speech.samples, condition, SEED)
                    bad = Speech(samples, SAMPLE_RATE, speech.words)
                    short = condition.replace(" ", "-")
                    yield Recording(f"{name}-{file.stem}-{short}", condition, text, bad)


def held_out() -> Iterator[Recording]:
    """Speak other texts with other voices, clean."""
    for voice_number, voice in enumerate(HELD_OUT_VOICES):
        for text_number, file in enumerate(HELD_OUT_TEXTS):
            text = " ".join(file.read_text(encoding="utf-8").split())
            seed = 1000 + SEED + 20 * voice_number + text_number
            spoken = [_flite(sentence, voice) for sentence in split_sentences(text)]
            yield Recording(f"{voice}-{file.stem}", _kind(file), text, _join(spoken, seed))


def _kind(text: Path) -> str:
    return "numbers" if text.stem in WITH_NUMBERS else "clean"


def _flite(sentence: str, voice: str) -> Speech:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "-t", sentence, "-o", file.name]
        subprocess.run(command, check=True, capture_output=True)
        samples, sample_rate = soundfile.read(file.name, dtype="float64")
    return Speech(samples, sample_rate, ())


def _join(spoken: list[Speech], seed: int) -> Speech:
    gaps = np.random.default_rng(seed).uniform(*PAUSES, len(spoken)).tolist()
    speech = lay_out(spoken, gaps, SAMPLE_RATE)
    samples = speech.samples * (0.5 / np.abs(speech.samples).max())
    hiss = np.random.default_rng(seed).normal(0, 10 ** (-75 / 20), len(samples))
    return Speech(samples + hiss, SAMPLE_RATE, speech.words)


def write_held_out(folder: Path) -> Path:
    """Write the held-out recordings and their manifest; return the path of the manifest."""
    return write(folder, held_out())


def write(folder: Path, some: Iterable[Recording] | None = None) -> Path:
    """Write recordings and their manifest; return the path of the manifest.

    Args:
        folder: is created if it is missing.
        some: the recordings; by default all but the held-out ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for made in recordings() if some is None else some:
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
