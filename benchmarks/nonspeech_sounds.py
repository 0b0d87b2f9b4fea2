"""Make sounds other than speech, for `benchmarks.nonspeech`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.sounds import ADDED, BETWEEN, FADE_SECONDS, SAMPLE_RATE, strokes
from samples.generate import band_pass

if TYPE_CHECKING:
    from benchmarks.sounds import Sound

RINGING = (
    ((440.0, 480.0), (2.0, 4.0)),
    ((400.0, 450.0), (0.4, 0.2, 0.4, 2.0)),
    ((425.0,), (1.0, 4.0)),
    ((480.0, 620.0), (0.5, 0.5)),
)
"""Frequencies in Hz, and seconds on and off: ringing tones of North America, Britain and
continental Europe, and a busy tone."""
SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19)
"""Semitones of a major scale."""
KEY_PITCHES = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
"""The low and the high tones of the keys of a telephone (DTMF), in Hz."""


def _coloured(exponent: float) -> Sound:
    """Noise whose amplitude is proportional to frequency**exponent above 50 Hz."""

    def noise(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
        spectrum = np.fft.rfft(random.normal(0, 1, len(samples)))
        frequencies = np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 50)
        coloured: np.ndarray = np.fft.irfft(spectrum * frequencies**exponent, len(samples))
        return coloured

    return noise


def _mains(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Hum of 50 or 60 Hz with harmonics of random strength."""
    pitch = random.choice((50, 60))
    strengths = random.uniform(0, 1, 12) / np.arange(1, 13)
    return _tones(_time(len(samples)), pitch * np.arange(1, 13), strengths)


def _organ(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sustained chords, one to two seconds each."""
    step = round(random.uniform(1, 2) * SAMPLE_RATE)
    return _notes(len(samples), random, step, decay=0.0, n_voices=3)


def _arpeggio(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One plucked note after another, four to ten a second."""
    step = round(SAMPLE_RATE / random.uniform(4, 10))
    return _notes(len(samples), random, step, decay=6.0, n_voices=1)


def _notes(
    n_samples: int, random: np.random.Generator, step: int, *, decay: float, n_voices: int
) -> np.ndarray:
    """Notes of a major scale, new ones every `step` samples; `decay` is in nepers per second."""
    lowest, music = random.uniform(110, 330), np.zeros(n_samples)
    for start in range(0, n_samples, step):
        time = _time(min(step, n_samples - start))
        edge = np.clip(np.minimum(time, time[::-1]) / FADE_SECONDS, 0, 1)
        for semitone in random.choice(SCALE, n_voices, replace=False):
            pitch = lowest * 2 ** (semitone / 12)
            tone = _tones(time, pitch * np.arange(1, 7), 1 / np.arange(1, 7) ** 2)
            music[start : start + len(time)] += edge * np.exp(-decay * time) * tone
    return music


def _time(n_samples: int) -> np.ndarray:
    return np.arange(n_samples) / SAMPLE_RATE


def _tones(time: np.ndarray, pitches: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    pairs = zip(pitches, strengths, strict=True)
    return np.asarray(sum(s * np.sin(2 * np.pi * p * time + p) for p, s in pairs))


def _drums(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A bass drum, a snare and a hi-hat in four-four time."""
    n_samples = len(samples)
    beat = round(SAMPLE_RATE * 60 / random.uniform(80, 150))
    drums = np.zeros(n_samples)
    for start in range(0, n_samples, 2 * beat):
        time = _time(min(beat, n_samples - start))
        thump = np.sin(2 * np.pi * (50 * time + 4 * (1 - np.exp(-30 * time))))
        drums[start : start + len(time)] += 8 * np.exp(-12 * time) * thump
    snare = strokes(samples, random, np.arange(beat, n_samples, 2 * beat), 900)
    hat = strokes(samples, random, np.arange(0, n_samples, beat // 2), 150)
    return np.asarray(drums + 2 * snare + np.diff(hat, prepend=0))


def _melody(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A melody with vibrato, like a violin or someone who whistles."""
    n_notes = 1 + len(samples) * 3 // SAMPLE_RATE
    steps = np.cumsum(random.choice((-4, -2, -1, 0, 1, 2, 4), n_notes)) % 24
    held = np.repeat(steps, SAMPLE_RATE // 3)[: len(samples)]
    held = np.pad(held, (0, len(samples) - len(held)), mode="edge")
    time = _time(len(samples))
    vibrato = random.uniform(0.1, 0.6) * np.sin(2 * np.pi * random.uniform(4, 7) * time)
    pitch = random.uniform(200, 500) * 2 ** ((held + vibrato) / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    n_harmonics = random.integers(1, 8)
    return np.asarray(sum(np.sin(k * phase) / k for k in range(1, n_harmonics + 1)))


def _ringing(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A tone of a telephone network, on and off in its rhythm."""
    pitches, rhythm = RINGING[random.integers(len(RINGING))]
    time, edges = _time(len(samples)), np.cumsum(rhythm)
    place = (time + random.uniform(0, 3)) % edges[-1]
    is_on = np.searchsorted(edges, place, side="right") % 2 == 0
    return np.asarray(_tones(time, np.array(pitches), np.ones(len(pitches))) * is_on)


def _bell(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The bell of a telephone: inharmonic tones, struck 20 times a second for 2 s of 4 s."""
    time = _time(len(samples))
    pitches = random.uniform(900, 1400) * np.array([1, 1.47, 2.09, 2.56])
    tone = _tones(time, pitches, np.array([1, 0.8, 0.5, 0.3]))
    return np.asarray(tone * np.exp(-20 * (time % 0.05)) * (time % 4 < 2))


def _dialling(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Keys of a telephone: two tones for 0.05 to 0.2 s each, with pauses as long."""
    step = round(random.uniform(0.1, 0.4) * SAMPLE_RATE)
    dialled = np.zeros(len(samples))
    for start in range(0, len(samples), step):
        time = _time(min(step // 2, len(samples) - start))
        key = np.array([random.choice(pitches) for pitches in KEY_PITCHES])
        dialled[start : start + len(time)] = _tones(time, key, np.ones(2))
    return dialled


def _keyboard(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Someone types: two clicks a key, 3 to 10 keys a second, at random times."""
    n_keys = max(1, round(random.uniform(3, 10) * len(samples) / SAMPLE_RATE))
    places = random.integers(0, len(samples), n_keys)
    down = strokes(samples, random, places, 30)
    up = strokes(samples, random, np.minimum(places + 1300, len(samples) - 1), 20)
    return np.asarray(down + 0.4 * up)


def _wind(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Low noise whose level swells and falls over seconds."""
    time = _time(len(samples))
    swell = sum(np.sin(2 * np.pi * random.uniform(0.1, 0.7) * time + k) for k in range(4))
    return _coloured(-1.0)(samples, random) * np.asarray(2.0 ** np.asarray(swell))


def _breath(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Someone breathes or snores: noise between 300 and 2500 Hz that rises and falls."""
    rate = random.uniform(0.3, 1.0)
    shape = np.maximum(np.sin(2 * np.pi * rate * _time(len(samples))), 0) ** 2
    return np.asarray(
        band_pass(random.normal(0, 1, len(samples)), SAMPLE_RATE, (300.0, 2500.0)) * shape
    )


def _birds(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Chirps: tones of 0.1 s that sweep between 2 and 6 kHz, at random times."""
    song = np.zeros(len(samples) + SAMPLE_RATE)
    time = _time(SAMPLE_RATE // 10)
    for place in random.integers(0, len(samples), 1 + 4 * len(samples) // SAMPLE_RATE):
        first, last = random.uniform(2000, 6000, 2)
        sweep = np.sin(2 * np.pi * (first * time + (last - first) * time**2 / 0.2))
        song[place : place + len(time)] += sweep * np.hanning(len(time))
    return song[: len(samples)]


def _babble(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sixteen to thirty voices at once: the samples from other places, at other pitches."""
    n_voices = random.integers(16, 31)
    return np.asarray(sum(_voice(samples, random) for _ in range(n_voices)))


def _reversed(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return _voice(samples, random)[::-1]


def _voice(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The samples from a random place, wrapped at the end, at 0.75 to 1.35 times the speed."""
    speed = random.uniform(0.75, 1.35)
    places = random.integers(len(samples)) + np.arange(len(samples)) * speed
    return np.asarray(np.interp(places % len(samples), np.arange(len(samples)), samples))


FROM_ZEROS: dict[str, Sound] = {
    "white noise": ADDED["noise"],
    "pink noise": ADDED["pink noise"],
    "brown noise": _coloured(-1.0),
    "blue noise": _coloured(0.5),
    "mains hum": _mains,
    "engine": BETWEEN["engine"],
    "wind": _wind,
    "breath": _breath,
    "applause": BETWEEN["applause"],
    "knocks": BETWEEN["knocks"],
    "keyboard": _keyboard,
    "drums": _drums,
    "guitar": ADDED["music"],
    "organ": _organ,
    "arpeggio": _arpeggio,
    "melody": _melody,
    "ringing tone": _ringing,
    "telephone bell": _bell,
    "dialling": _dialling,
    "beeps": BETWEEN["beeps"],
    "siren": BETWEEN["siren"],
    "birds": _birds,
}
"""Sounds that use only the length of the given samples."""
FROM_SPEECH: dict[str, Sound] = {"babble": _babble, "reversed speech": _reversed}
"""Sounds that are made from the given speech."""
