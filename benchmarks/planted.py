"""Plant mistakes in the texts of recordings, for the benchmarks `witness` and `confidence`.

A chunk is a stretch of a recording between two pauses. Its text is used unchanged, with five words
inserted, with five words deleted, with one word in ten replaced, or replaced by another text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import Scorer, Scores
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.types import SAMPLE_RATE, Audio
from benchmarks.sounds import between, spoil

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

    from asr.align.hmm.forced import ForcedAligner
    from asr.evaluation import Utterance

N_WORDS: Final = 5
CHUNK_SECONDS: Final = 13.0
MIN_WORDS: Final = 10


class RememberingScorer(Scorer):
    """Scores all senones of the audio once, so that further texts for it cost little."""

    def __init__(self) -> None:
        super().__init__()
        self._all = np.arange(len(self.phones.phone_of_senone))
        self._last: tuple[bytes, Scores | None] = b"", None

    def score(self, pcm: bytes, senones: np.ndarray) -> Scores:  # noqa: ARG002
        """Score all senones, or return the scores if the samples are those of the last call."""
        last_pcm, scores = self._last
        if scores is None or pcm != last_pcm:
            scores = super().score(pcm, self._all)
            self._last = pcm, scores
        return scores


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording and the words said in it.

    Attributes:
        category: of the recording.
        texts: the words said.
        starts: start of each word in seconds.
        ends: end of each word in seconds.
    """

    category: str
    audio: Audio
    texts: tuple[str, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Planted:
    """A text for a piece, and its mistake.

    Attributes:
        texts: the words of the text.
        truth: true start of each word in seconds; None for a word that nobody said.
        span: (start, end) in seconds of speech that was deleted from the text.
        words: [first, last) of words that were inserted.
    """

    texts: list[str]
    truth: list[float | None]
    span: tuple[float, float] | None = None
    words: tuple[int, int] | None = None


def pieces(utterances: Iterable[Utterance], forced: ForcedAligner) -> Iterator[Piece]:
    """Cut recordings at pauses; the aligner times the words of recordings without word times."""
    for utterance in utterances:
        samples = np.concatenate(list(decode(utterance.file, AudioLimits()).blocks))
        words = utterance.words or forced.align(Audio(samples), utterance.text.split()).words
        category = (utterance.categories or ("real",))[0]
        cuts = [0]
        for place in range(1, len(words)):
            far = words[place].end - words[cuts[-1]].start > CHUNK_SECONDS
            near = words[place].end - words[cuts[-1]].start > 0.6 * CHUNK_SECONDS
            if far or (near and words[place].start - words[place - 1].end > 0.15):
                cuts.append(place)
        for first, end in zip(cuts, [*cuts[1:], len(words)], strict=True):
            start = 0.0 if first == 0 else (words[first - 1].end + words[first].start) / 2
            stop = len(samples) / SAMPLE_RATE
            if end < len(words):
                stop = (words[end - 1].end + words[end].start) / 2
            some = words[first:end]
            if len(some) >= MIN_WORDS:
                audio = Audio(samples[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)])
                starts = tuple(word.start - start for word in some)
                ends = tuple(word.end - start for word in some)
                yield Piece(category, audio, tuple(word.text for word in some), starts, ends)


def spoiled(piece: Piece, condition: str, seed: int) -> Piece:
    """Make the same speech in a bad condition, named as in `benchmarks.sounds.spoil`."""
    samples = spoil(piece.audio.samples.astype(np.float64), condition, seed)
    category = condition if piece.category == "clean" else f"{piece.category}, {condition}"
    return replace(piece, category=category, audio=Audio(samples.astype(np.float32)))


def interrupted(piece: Piece, kind: str, seed: int) -> Piece:
    """Insert a sound into the longest pause."""
    whole, _ = _with(piece, between(piece.audio.samples, kind, seed))
    return replace(whole, category=f"{piece.category}, a sound between")


def answered(piece: Piece, other: Piece) -> tuple[Piece, Planted]:
    """Insert five words of another speaker into the longest pause; the text lacks them."""
    first = (len(other.texts) - N_WORDS) // 2
    start, end = (
        round(it * SAMPLE_RATE) for it in (other.starts[first], other.ends[first + N_WORDS - 1])
    )
    words = other.audio.samples[start:end]
    words = words * np.std(piece.audio.samples) / np.std(words)
    whole, at = _with(piece, words)
    span = at, at + len(words) / SAMPLE_RATE
    return whole, Planted(list(piece.texts), list(whole.starts), span=span)


def _with(piece: Piece, sound: np.ndarray) -> tuple[Piece, float]:
    """Insert a sound into the longest pause; return the piece and the start of the sound."""
    pauses = np.subtract(piece.starts[1:], piece.ends[:-1])
    place = int(pauses.argmax()) + 1
    at = round((piece.ends[place - 1] + piece.starts[place]) / 2 * SAMPLE_RATE)
    samples = piece.audio.samples
    whole = np.concatenate((samples[:at], sound.astype(np.float32), samples[at:]))
    later = np.where(np.arange(len(piece.texts)) < place, 0.0, len(sound) / SAMPLE_RATE)
    starts, ends = ((times + later).tolist() for times in (piece.starts, piece.ends))
    audio = Audio(np.clip(whole, -1, 1))
    whole_piece = replace(piece, audio=audio, starts=tuple(starts), ends=tuple(ends))
    return whole_piece, at / SAMPLE_RATE


def right(piece: Piece, _: random.Random, __: Sequence[str]) -> Planted:
    """Keep the text as it was said."""
    return Planted(list(piece.texts), list(piece.starts))


def inserted(piece: Piece, chance: random.Random, pool: Sequence[str]) -> Planted:
    """Insert five words that nobody said."""
    place = chance.randrange(len(piece.texts) + 1)
    at = chance.randrange(len(pool) - N_WORDS)
    texts, truth = list(piece.texts), [*piece.starts]
    texts[place:place] = pool[at : at + N_WORDS]
    planted: list[float | None] = [*truth[:place], *[None] * N_WORDS, *truth[place:]]
    return Planted(texts, planted, words=(place, place + N_WORDS))


def deleted(piece: Piece, chance: random.Random, _: Sequence[str]) -> Planted:
    """Delete five words that were said."""
    place = chance.randrange(len(piece.texts) - N_WORDS + 1)
    texts, truth = list(piece.texts), list[float | None](piece.starts)
    span = piece.starts[place], piece.ends[place + N_WORDS - 1]
    del texts[place : place + N_WORDS], truth[place : place + N_WORDS]
    return Planted(texts, truth, span=span)


def replaced(piece: Piece, chance: random.Random, pool: Sequence[str]) -> Planted:
    """Replace one word in ten."""
    texts, truth = list(piece.texts), list[float | None](piece.starts)
    for place in range(len(texts)):
        if chance.random() < 0.1:
            texts[place], truth[place] = chance.choice(pool), None
    return Planted(texts, truth)


def swapped(piece: Piece, chance: random.Random, pool: Sequence[str]) -> Planted:
    """Replace the text by as many words of another text."""
    n_words = min(len(piece.texts), len(pool) - 1)
    at = chance.randrange(len(pool) - n_words)
    return Planted(list(pool[at : at + n_words]), [None] * n_words)
