"""Speech between the words: stretches in which somebody says what the text does not have.

The search gives frames between the words to pauses, or to unknown speech where a pause does not
explain them. That is not enough. In noise everything sounds somewhat like a pause, and music sounds
somewhat like speech. So each chunk is its own measure: of the frames in a gap only those count that
are as loud as its words and sound like frames of its words, and they count by how much better any
sounds of speech explain them than a pause. And where speech was left out the search puts words of
the text beside it into its midst, so that gaps with only such words between them count together.

Another speaker sounds less like the words, yet more like them than music or a machine does. So what
the search itself takes for unknown speech may be stranger than what it takes for a pause.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import FRAME_SAMPLES, STATES
from asr.align.hmm.lattice import OTHER
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.align.hmm.viterbi import Step

MIN_NATS: Final = 60.0
"""Against pauses, from which on there is speech in them (benchmarks/witness.py)."""
MIN_FRAMES: Final = 40
"""Of speech; less is an "um", or the end of a word."""
GAP_NATS: Final = 20.0
"""What each further gap must have before it adds to the ones before it."""
WORD_NATS: Final = 0.6
"""By which a word parts the gaps beside it, for each frame and nat above a poor fit."""
MISSING_NATS: Final = 0.8
"""For each frame that words which were passed over there may have taken: they account for it."""

WINDOW: Final = SAMPLE_RATE // 40
FFT: Final = 512
N_BANDS: Final = 20
LOUDNESS_FRAMES: Final = 5
QUIETER: Final = 12.0
"""Decibels below the words at which a frame is no longer loud, however quiet the pauses are."""
POOR_FIT: Final = -2.5
"""Nats a frame of a word that may not be where it was found."""
MIN_WORD_FRAMES: Final = 50
MAX_WORD_FRAMES: Final = 1500
NEIGHBOURS: Final = 20
"""Frames so near to each other are alike whatever they are."""
STRANGENESS: Final = 0.9
"""The share of the words' own frames that are no stranger than what still sounds like a word."""
STRANGER: Final = 2.5
"""How many times as strange as the median of the words' frames unknown speech may be."""
FRAMES_A_PHONE: Final = (4.0, 14.0)


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames [start, end) between two words that were found.

    Attributes:
        scores: the log-likelihood ratio of a pause in each frame, or the price of other speech.
        is_other: which frames the search takes for other speech.
        apart: nats by which the words since the gap before part the two.
        n_phones: of the words that were passed over there.
    """

    start: int
    end: int
    scores: np.ndarray
    is_other: np.ndarray
    apart: float
    n_phones: int


def unwritten(audio: Audio, steps: Sequence[Step], phones: Sequence[int]) -> list[tuple[int, int]]:
    """Frames [start, end) of speech that no token accounts for, but for a few poor ones in it.

    Args:
        audio: what was searched.
        steps: the best path.
        phones: how many each token of the text has.
    """
    gaps = list(_gaps(steps, phones))
    rate = _frames_a_phone(steps)
    # If that much were not enough, how it sounds needs no look: a right text costs next to nothing.
    if not _runs(gaps, [np.flatnonzero(gap.scores < 0) + gap.start for gap in gaps], rate):
        return []
    sound = _Sound(audio, steps)
    return _runs(gaps, [sound.like_words(gap) for gap in gaps], rate)


def _gaps(steps: Sequence[Step], phones: Sequence[int]) -> Iterator[Gap]:
    after, apart = -1, 0.0  # the last token before the gap, and nats of the words since the last
    parts: list[Step] = []
    for step in steps:
        if step.arc.token < 0:
            parts.append(step)
            continue
        if parts:
            yield _gap(parts, apart, sum(phones[after + 1 : step.arc.token]))
            apart, parts = 0.0, []
        after = step.arc.token
        apart += WORD_NATS * len(step.scores) * max(0.0, step.scores.mean() - POOR_FIT)
    if parts:
        yield _gap(parts, apart, sum(phones[after + 1 :]))


def _gap(parts: Sequence[Step], apart: float, n_phones: int) -> Gap:
    scores = np.concatenate([part.scores for part in parts])
    is_other = np.concatenate([np.full(len(it.scores), it.arc.token == OTHER) for it in parts])
    return Gap(parts[0].start, parts[-1].end, scores, is_other, apart, n_phones)


def _runs(
    gaps: Sequence[Gap], speech: Sequence[np.ndarray], frames_a_phone: float
) -> list[tuple[int, int]]:
    """From the first to the last frame of speech in gaps that together have enough of it."""
    found: list[tuple[int, int]] = []
    run: list[np.ndarray] = []
    total, is_told = 0.0, False
    for gap, frames in zip(gaps, speech, strict=True):
        # What is enough is not more than enough: the words behind it must be able to end it.
        total = min(total, MIN_NATS) - gap.apart
        if total <= 0:
            run, total, is_told = [], 0.0, False
        missing = MISSING_NATS * gap.n_phones * frames_a_phone
        total -= gap.scores[frames - gap.start].sum() + missing + (GAP_NATS if run else 0.0)
        run.append(frames)
        if total >= MIN_NATS and sum(map(len, run)) >= MIN_FRAMES:
            some = np.concatenate(run)
            if is_told:
                found.pop()
            found.append((int(some[0]), int(some[-1]) + 1))
            is_told = True
    return found


def _known(steps: Sequence[Step]) -> list[Step]:
    """Steps of words whose sounds are known."""
    return [step for step in steps if step.arc.token >= 0 and step.arc.end - step.arc.first > 1]


def _frames_a_phone(steps: Sequence[Step]) -> float:
    """How fast this chunk is spoken."""
    known = _known(steps)
    n_phones = sum(step.arc.end - step.arc.first for step in known) / STATES
    n_frames = sum(len(step.scores) for step in known)
    return float(np.clip(n_frames / n_phones if known else 0.0, *FRAMES_A_PHONE))


class _Sound:
    """How loud the frames of a chunk are, and how much they sound like its words."""

    def __init__(self, audio: Audio, steps: Sequence[Step]) -> None:
        n_frames = steps[-1].end
        self._bands = _log_bands(audio.samples, n_frames)
        loudness = _loudness(audio.samples, n_frames)
        words = _word_frames(steps, n_frames)
        level = np.median(loudness[words])
        floor = np.quantile(loudness, 0.05)
        self._is_loud = loudness > max((level + floor) / 2, level - QUIETER)
        loud = words[self._is_loud[words]]
        self._words = loud[:: len(loud) // MAX_WORD_FRAMES + 1]

    def like_words(self, gap: Gap) -> np.ndarray:
        """The frames of a gap that are loud and no stranger than words, or than a stranger's."""
        loud = np.flatnonzero(self._is_loud[gap.start : gap.end])
        if len(self._words) < MIN_WORD_FRAMES:
            return loud + gap.start
        limits = np.where(gap.is_other[loud], self._limits[1], self._limits[0])
        alike: np.ndarray = loud[self._strangeness(loud + gap.start) <= limits] + gap.start
        return alike

    @functools.cached_property
    def _limits(self) -> tuple[float, float]:
        """How strange a frame of a pause may be, and one of unknown speech."""
        usual = self._strangeness(self._words[::3])
        limit = float(np.quantile(usual, STRANGENESS))
        return limit, max(limit, STRANGER * float(np.median(usual)))

    def _strangeness(self, frames: np.ndarray) -> np.ndarray:
        """How far each frame is from the most similar one of the words, none near it in time."""
        these, those = self._bands[frames], self._bands[self._words]
        squares = (these**2).sum(axis=1)[:, None] + (those**2).sum(axis=1) - 2 * these @ those.T
        squares[np.abs(frames[:, None] - self._words) < NEIGHBOURS] = np.inf
        nearest: np.ndarray = np.sqrt(np.maximum(squares.min(axis=1, initial=np.inf), 0.0))
        return nearest


def _word_frames(steps: Sequence[Step], n_frames: int) -> np.ndarray:
    """Frames of words that fit; of all words, or all there are, if those are few."""
    known = _known(steps)
    for some in ([step for step in known if step.scores.mean() > POOR_FIT], known):
        frames = [np.arange(step.start, step.end) for step in some]
        if sum(map(len, frames)) >= MIN_WORD_FRAMES:
            return np.concatenate(frames)
    return np.arange(n_frames)


def _loudness(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Decibels around the beginning of each frame, shape (n_frames,)."""
    hops = _padded(samples, n_frames)[: n_frames * FRAME_SAMPLES].reshape(n_frames, FRAME_SAMPLES)
    power = np.square(hops, dtype=np.float64).mean(axis=1)
    decibels: np.ndarray = 10 * np.log10(_smooth(power[:, None], LOUDNESS_FRAMES)[:, 0] + 1e-9)
    return decibels


def _log_bands(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Logarithms of the power in mel bands, averaged over three frames; (n_frames, N_BANDS)."""
    frames = np.lib.stride_tricks.sliding_window_view(_padded(samples, n_frames), WINDOW)
    taper = np.hanning(WINDOW).astype(np.float32)
    shaped = frames[: n_frames * FRAME_SAMPLES : FRAME_SAMPLES] * taper
    power = np.abs(np.fft.rfft(shaped, FFT)) ** 2
    return _smooth(np.log(power @ _mel_bank().T + 1e-7), 3).astype(np.float32)


def _padded(samples: np.ndarray, n_frames: int) -> np.ndarray:
    missing = max(0, n_frames * FRAME_SAMPLES + WINDOW - len(samples))
    return np.pad(samples.astype(np.float32), (0, missing))


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means over `width` neighbours along the first axis."""
    wide = np.pad(values, ((width // 2, width // 2), (0, 0)), "edge")
    means: np.ndarray = np.lib.stride_tricks.sliding_window_view(wide, width, axis=0).mean(axis=-1)
    return means


@functools.cache
def _mel_bank() -> np.ndarray:
    """Triangles from 100 to 7000 Hz, shape (N_BANDS, FFT // 2 + 1)."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (100, 7000))
    edges = 700 * (10 ** (np.linspace(low, high, N_BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    left, centre, right = (edges[i : i + N_BANDS, None] for i in range(3))
    rise = (frequencies - left) / (centre - left)
    fall = (right - frequencies) / (right - centre)
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)
