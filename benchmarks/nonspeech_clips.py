"""Make the clips without speech, for `benchmarks.nonspeech`.

Everything is synthesised with numpy. Babble and reversed speech are made from `samples/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.evaluation import read_manifest
from asr.types import SAMPLE_RATE
from benchmarks.nonspeech_sounds import FROM_SPEECH, FROM_ZEROS

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES: Final = Path(__file__).resolve().parent.parent / "samples"


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the clips.

    Attributes:
        seed: seed of all random choices.
        voices: files of `samples/` from which babble and reversed speech are made.
    """

    seed: int
    voices: tuple[str, ...]


HALVES: Final = {
    "tuning": Half(1, ("meeting.wav", "lecture.mp3")),
    "report": Half(2, ("pauses.ogg", "memo.m4a")),
}
PER_KIND: Final = 6
SECONDS: Final = (1.0, 40.0)
LEVELS: Final = (-50.0, -8.0)
"""RMS of the sound in decibels below full scale."""
FLOORS: Final = (-85.0, -60.0)
"""RMS of the microphone's own noise. One clip in four has none."""
BURSTS: Final = (0.2, 3.0)
"""Seconds. In one clip of three the sound comes in bursts, with pauses of the same lengths."""
SILENCE: Final = "silence"
KINDS: Final = (SILENCE, *FROM_ZEROS, *FROM_SPEECH)


@dataclass(frozen=True, slots=True)
class Clip:
    """16 kHz samples in [-1, 1] without speech."""

    kind: str
    name: str
    samples: np.ndarray


def clips(half: str) -> Iterator[Clip]:
    """Make the clips of a half. They are the same in each run."""
    speech = np.concatenate([_words(SAMPLES / name) for name in HALVES[half].voices])
    for number, kind in enumerate(KINDS):
        for take in range(PER_KIND):
            random = np.random.default_rng((HALVES[half].seed, number, take))
            name = f"{kind.replace(' ', '-')}-{take}"
            yield Clip(kind, name, _samples(kind, speech, random))


def _words(file: Path) -> np.ndarray:
    """The words of a sample without the pauses between them."""
    (utterance,) = (it for it in read_manifest(SAMPLES / "manifest.jsonl") if it.file == file)
    samples = np.concatenate(list(decode(file, AudioLimits()).blocks)).astype(np.float64)
    spans = ((round(it.start * SAMPLE_RATE), round(it.end * SAMPLE_RATE)) for it in utterance.words)
    return np.concatenate([samples[start:end] for start, end in spans])


def _samples(kind: str, speech: np.ndarray, random: np.random.Generator) -> np.ndarray:
    n_samples = round(np.exp(random.uniform(*np.log(SECONDS))) * SAMPLE_RATE)
    whole = np.zeros(n_samples)
    if kind != SILENCE:
        sound = _sound(kind, n_samples, speech, random) * _envelope(n_samples, random)
        level = 10 ** (random.uniform(*LEVELS) / 20)
        whole = sound * level / (np.std(sound) + 1e-12)
    if random.random() > 0.25:
        whole = whole + random.normal(0, 10 ** (random.uniform(*FLOORS) / 20), n_samples)
    return np.clip(whole, -1, 1)


def _sound(
    kind: str, n_samples: int, speech: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    if kind in FROM_ZEROS:
        return FROM_ZEROS[kind](np.zeros(n_samples), random)
    excerpt = np.resize(np.roll(speech, -random.integers(len(speech))), n_samples)
    return FROM_SPEECH[kind](excerpt, random)


def _envelope(n_samples: int, random: np.random.Generator) -> np.ndarray:
    if random.random() > 1 / 3:
        return np.ones(n_samples)
    n_edges = 2 + int(n_samples / SAMPLE_RATE / BURSTS[0])
    edges = np.cumsum(random.uniform(*BURSTS, n_edges) * SAMPLE_RATE)
    is_on = np.searchsorted(edges, np.arange(n_samples), side="right") % 2 == 0
    fade = np.hanning(SAMPLE_RATE // 25)
    return np.convolve(is_on, fade / fade.sum(), "same")
