"""Find speech that the text lacks, in the gaps between the words of the best path.

The search assigns the frames of a gap to a pause or, where a pause explains them badly, to a
filler: a state that fits any speech, at a fixed price per frame. That alone does not show speech:
in noise everything resembles a pause, and music resembles speech. So each chunk is compared with
itself:

- Only frames that are nearly as loud as the words of the chunk, and sound similar to them, count
  as speech. The strangeness of a frame is its distance from the most similar frame of a word.
- Each of these frames counts with its log-likelihood under the phone-loop background model minus
  its log-likelihood under a pause, in nats. A frame of a filler counts with the filler's price per
  frame instead.
- Where the text lacks speech, the search often places neighbouring words inside that speech. Such
  words fit poorly. So gaps are added up if the words between them fit poorly.

Another speaker sounds less similar to the words, but more similar than music or a machine. A pause
explains such speech badly, so the search assigns it to fillers. The limit of strangeness is
therefore higher for frames of fillers than for frames of pauses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import FRAME_SAMPLES, STATES
from asr.align.hmm.lattice import FILLER
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.align.hmm.viterbi import Step

MIN_NATS: Final = 60.0
"""Gaps hold speech if the evidence against a pause is at least this (benchmarks/witness.py)."""
MIN_FRAMES: Final = 40
"""Frames of speech; fewer may be an "um" or the end of a word."""
GAP_NATS: Final = 20.0
"""A run is several gaps whose evidence is added up. This is subtracted for each of them except the
first, so a further gap adds only the evidence above it."""
SEPARATION_NATS: Final = 0.6
"""Separation of two gaps by a word between them: nats taken from the evidence so far, per frame of
the word and per nat above `POOR_FIT`."""
SKIPPED_NATS: Final = 0.8
"""Subtracted for each frame that skipped words would take: the speech there may be these words, and
they are in the text."""

WINDOW: Final = SAMPLE_RATE // 40
FFT: Final = 512
N_BANDS: Final = 20
LOUDNESS_FRAMES: Final = 5
QUIETER: Final = 12.0
"""A frame this many decibels below the words is never loud, however quiet the pauses are."""
POOR_FIT: Final = -2.5
"""Mean nats per frame below which a word is probably not where it was found."""
MIN_WORD_FRAMES: Final = 50
MAX_WORD_FRAMES: Final = 1500
NEIGHBOURS: Final = 20
"""Frames closer together than this many frames are always similar, so they are not compared."""
PAUSE_STRANGENESS: Final = 0.9
"""Limit for frames of pauses, as a quantile of the strangeness of the words' own frames."""
FILLER_STRANGENESS: Final = 2.5
"""Limit for frames of fillers, as a multiple of the median strangeness of the words' own frames.

It is never below the limit for frames of pauses.
"""
FRAMES_PER_PHONE: Final = (4.0, 14.0)
"""Plausible range: from the fastest speech to the slowest."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames [start, end) between two words that were found.

    Attributes:
        scores: for each frame its log-likelihood under a pause minus that under the background
            model; for a frame of a filler minus the price of the filler.
        is_filler: for each frame whether the search assigned it to a filler.
        separation: nats to subtract for the words between the previous gap and this one.
        n_phones: number of phones of all words that the search skipped in this gap.
    """

    start: int
    end: int
    scores: np.ndarray
    is_filler: np.ndarray
    separation: float
    n_phones: int


def unwritten(audio: Audio, steps: Sequence[Step], phones: Sequence[int]) -> list[tuple[int, int]]:
    """Find frames [start, end) of speech that the text lacks; poorly fitting words may lie inside.

    Args:
        audio: what was aligned.
        steps: the best path.
        phones: the number of phones of each token of the text.
    """
    gaps = list(_gaps(steps, phones))
    rate = _frames_per_phone(steps)
    # Skip the expensive comparison of sounds if even all frames together would not be enough. So a
    # correct text costs almost no time.
    if not _runs(gaps, [np.flatnonzero(gap.scores < 0) + gap.start for gap in gaps], rate):
        return []
    sound = _Sound(audio, steps)
    return _runs(gaps, [sound.like_words(gap) for gap in gaps], rate)


def _gaps(steps: Sequence[Step], phones: Sequence[int]) -> Iterator[Gap]:
    last_token, separation = -1, 0.0
    between: list[Step] = []  # pauses and fillers since the last word
    for step in steps:
        if step.arc.token < 0:
            between.append(step)
            continue
        if between:
            yield _gap(between, separation, sum(phones[last_token + 1 : step.arc.token]))
            separation, between = 0.0, []
        last_token = step.arc.token
        fit = max(0.0, step.scores.mean() - POOR_FIT)
        separation += SEPARATION_NATS * len(step.scores) * fit
    if between:
        yield _gap(between, separation, sum(phones[last_token + 1 :]))


def _gap(steps: Sequence[Step], separation: float, n_phones: int) -> Gap:
    scores = np.concatenate([step.scores for step in steps])
    is_filler = np.concatenate([np.full(len(it.scores), it.arc.token == FILLER) for it in steps])
    return Gap(steps[0].start, steps[-1].end, scores, is_filler, separation, n_phones)


def _runs(
    gaps: Sequence[Gap], speech: Sequence[np.ndarray], frames_per_phone: float
) -> list[tuple[int, int]]:
    """Find runs of gaps that together hold enough speech.

    Args:
        gaps: in order.
        speech: for each gap the numbers of its frames of speech.
        frames_per_phone: how slowly the chunk is spoken.

    Returns:
        The frames [start, end) of each run, from its first frame of speech to its last.
    """
    found: list[tuple[int, int]] = []
    run: list[np.ndarray] = []
    total, is_reported = 0.0, False
    for gap, frames in zip(gaps, speech, strict=True):
        # The cap lets well fitting words end a run however much speech it holds.
        total = min(total, MIN_NATS) - gap.separation
        if total <= 0:
            run, total, is_reported = [], 0.0, False
        skipped = SKIPPED_NATS * gap.n_phones * frames_per_phone
        total -= gap.scores[frames - gap.start].sum() + skipped + (GAP_NATS if run else 0.0)
        run.append(frames)
        if total >= MIN_NATS and sum(map(len, run)) >= MIN_FRAMES:
            joined = np.concatenate(run)
            if is_reported:
                found.pop()
            found.append((int(joined[0]), int(joined[-1]) + 1))
            is_reported = True
    return found


def _pronounced(steps: Sequence[Step]) -> list[Step]:
    """Select the steps of words whose pronunciation is known."""
    return [step for step in steps if step.arc.token >= 0 and step.arc.end - step.arc.first > 1]


def _frames_per_phone(steps: Sequence[Step]) -> float:
    """Measure how slowly this chunk is spoken."""
    known = _pronounced(steps)
    n_phones = sum(step.arc.end - step.arc.first for step in known) / STATES
    n_frames = sum(len(step.scores) for step in known)
    return float(np.clip(n_frames / n_phones if known else 0.0, *FRAMES_PER_PHONE))


class _Sound:
    """Loudness of the frames of a chunk, and their similarity to its words."""

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
        """Select the frames of a gap that are loud and similar enough to the words."""
        loud = np.flatnonzero(self._is_loud[gap.start : gap.end])
        if len(self._words) < MIN_WORD_FRAMES:
            return loud + gap.start
        limits = np.where(gap.is_filler[loud], self._limits[1], self._limits[0])
        similar: np.ndarray = loud[self._strangeness(loud + gap.start) <= limits] + gap.start
        return similar

    @functools.cached_property
    def _limits(self) -> tuple[float, float]:
        """The highest strangeness of speech, for frames of pauses and for frames of fillers."""
        usual = self._strangeness(self._words[::3])
        limit = float(np.quantile(usual, PAUSE_STRANGENESS))
        return limit, max(limit, FILLER_STRANGENESS * float(np.median(usual)))

    def _strangeness(self, frames: np.ndarray) -> np.ndarray:
        """Distance of each frame from the most similar word frame that is not close in time."""
        ours, words = self._bands[frames], self._bands[self._words]
        squares = (ours**2).sum(axis=1)[:, None] + (words**2).sum(axis=1) - 2 * ours @ words.T
        squares[np.abs(frames[:, None] - self._words) < NEIGHBOURS] = np.inf
        nearest: np.ndarray = np.sqrt(np.maximum(squares.min(axis=1, initial=np.inf), 0.0))
        return nearest


def _word_frames(steps: Sequence[Step], n_frames: int) -> np.ndarray:
    """Select the frames of words that fit well; if too few, those of all words, or all frames."""
    known = _pronounced(steps)
    for some in ([step for step in known if step.scores.mean() > POOR_FIT], known):
        frames = [np.arange(step.start, step.end) for step in some]
        if sum(map(len, frames)) >= MIN_WORD_FRAMES:
            return np.concatenate(frames)
    return np.arange(n_frames)


def _loudness(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Measure decibels around the start of each frame, shape (n_frames,)."""
    hops = _padded(samples, n_frames)[: n_frames * FRAME_SAMPLES].reshape(n_frames, FRAME_SAMPLES)
    power = np.square(hops, dtype=np.float64).mean(axis=1)
    decibels: np.ndarray = 10 * np.log10(_smooth(power[:, None], LOUDNESS_FRAMES)[:, 0] + 1e-9)
    return decibels


def _log_bands(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Log power in mel bands, averaged over three frames; shape (n_frames, N_BANDS)."""
    frames = np.lib.stride_tricks.sliding_window_view(_padded(samples, n_frames), WINDOW)
    taper = np.hanning(WINDOW).astype(np.float32)
    shaped = frames[: n_frames * FRAME_SAMPLES : FRAME_SAMPLES] * taper
    power = np.abs(np.fft.rfft(shaped, FFT)) ** 2
    return _smooth(np.log(power @ _mel_bank().T + 1e-7), 3).astype(np.float32)


def _padded(samples: np.ndarray, n_frames: int) -> np.ndarray:
    missing = max(0, n_frames * FRAME_SAMPLES + WINDOW - len(samples))
    return np.pad(samples.astype(np.float32), (0, missing))


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average over `width` rows."""
    wide = np.pad(values, ((width // 2, width // 2), (0, 0)), "edge")
    means: np.ndarray = np.lib.stride_tricks.sliding_window_view(wide, width, axis=0).mean(axis=-1)
    return means


@functools.cache
def _mel_bank() -> np.ndarray:
    """Triangular filters from 100 to 7000 Hz, shape (N_BANDS, FFT // 2 + 1)."""
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (100, 7000))
    edges = 700 * (10 ** (np.linspace(low, high, N_BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    left, centre, right = (edges[i : i + N_BANDS, None] for i in range(3))
    rise = (frequencies - left) / (centre - left)
    fall = (right - frequencies) / (right - centre)
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)
