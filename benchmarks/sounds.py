"""Sounds that are not speech, to add to speech or to insert between its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from samples.generate import band_pass

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE_RATE = 16_000
TELEPHONE_BAND = (300.0, 3400.0)
FADE_SECONDS = 0.02

Sound: TypeAlias = "Callable[[np.ndarray, np.random.Generator], np.ndarray]"
"""Makes a sound from samples and a random generator: as long as the samples, at any level."""


def spoil(samples: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """Send speech over a telephone line, or add a sound some decibels below it.

    Args:
        samples: shape (n_samples,).
        condition: "telephone", or one of `ADDED` and a level, as in "pink noise 10 dB".
        seed: of the added sound.
    """
    if condition == "telephone":
        return np.clip(band_pass(samples, SAMPLE_RATE, TELEPHONE_BAND), -1, 1)
    kind, level, _ = condition.rsplit(maxsplit=2)
    added = ADDED[kind](samples, np.random.default_rng(seed))
    return np.clip(samples + added * gain(samples, added, float(level)), -1, 1)


def between(samples: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Make a sound of 0.8 to 2 s, 3 dB below the speech; `kind` is one of `BETWEEN`."""
    random = np.random.default_rng(seed)
    n_samples = int(random.uniform(0.8, 2.0) * SAMPLE_RATE)
    sound = BETWEEN[kind](np.zeros(n_samples), random)
    edge = np.minimum(np.arange(n_samples), np.arange(n_samples)[::-1]) / SAMPLE_RATE
    return sound * gain(samples, sound, 3.0) * np.clip(edge / FADE_SECONDS, 0, 1)


def gain(samples: np.ndarray, added: np.ndarray, decibels: float) -> float:
    """Compute the factor that brings `added` this far below the speech without its pauses."""
    loud = samples[np.abs(samples) > 0.01]
    power: float = np.mean(loud**2) / np.mean(added**2)
    return float(np.sqrt(power / 10 ** (decibels / 10)))


def _white(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.normal(0, 1, len(samples))


def _pink(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise of equal power in every octave above 50 Hz."""
    spectrum = np.fft.rfft(random.normal(0, 1, len(samples)))
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    pink: np.ndarray = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 50)), len(samples))
    return pink


def _chatter(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Six people at once: the same speech backwards, started at six positions."""
    places = random.choice(len(samples), 6, replace=False)
    chatter: np.ndarray = np.sum([np.roll(samples[::-1], place) for place in places], axis=0)
    return chatter


def _music(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Chords of plucked strings, four notes a second."""
    n_samples = len(samples)
    music = np.zeros(n_samples)
    for start in range(0, n_samples, SAMPLE_RATE // 4):
        length = min(SAMPLE_RATE, n_samples - start)
        time = np.arange(length) / SAMPLE_RATE
        for semitone in random.choice(24, 3, replace=False):
            pitch = 110.0 * 2 ** (semitone / 12)
            tones = (np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
            music[start : start + length] += np.exp(-3 * time) * sum(tones)
    return music


def _beeps(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    time = np.arange(len(samples)) / SAMPLE_RATE
    return np.sin(2 * np.pi * random.uniform(500, 1500) * time) * (time * 4 % 1 < 0.5)


def _siren(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A tone that rises and falls by an octave, three times in two seconds."""
    time = np.arange(len(samples)) / SAMPLE_RATE
    pitch = random.uniform(500, 800) * 2 ** (0.5 + 0.5 * np.sin(3 * np.pi * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wail: np.ndarray = np.sin(phase) + 0.5 * np.sin(3 * phase)
    return wail


def _knocks(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return strokes(samples, random, np.arange(0, len(samples), SAMPLE_RATE // 4), 400)


def _applause(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    places = random.integers(0, len(samples), 60 * len(samples) // SAMPLE_RATE)
    return strokes(samples, random, places, 120)


def strokes(
    samples: np.ndarray, random: np.random.Generator, places: np.ndarray, decay: int
) -> np.ndarray:
    """Bursts of noise at some positions, which decay by a factor of e in `decay` samples."""
    strokes = np.zeros(len(samples) + 10 * decay)
    for place in places:
        burst = random.normal(0, 1, 10 * decay) * np.exp(-np.arange(10 * decay) / decay)
        strokes[place : place + len(burst)] += burst
    return strokes[: len(samples)]


def _engine(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A low hum with overtones, and some noise."""
    time = np.arange(len(samples)) / SAMPLE_RATE
    pitch = random.uniform(60, 110)
    hum = sum(np.sin(2 * np.pi * pitch * k * time + k * k) / k for k in range(1, 30))
    return np.asarray(hum + 0.3 * random.normal(0, 1, len(samples)))


ADDED: dict[str, Sound] = {
    "noise": _white,
    "pink noise": _pink,
    "chatter": _chatter,
    "music": _music,
}
BETWEEN: dict[str, Sound] = {
    "hiss": _white,
    "beeps": _beeps,
    "music": _music,
    "knocks": _knocks,
    "applause": _applause,
    "siren": _siren,
    "engine": _engine,
}
