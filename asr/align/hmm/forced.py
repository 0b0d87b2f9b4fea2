"""Forced alignment of one text with one stretch of audio, with pocketsphinx's acoustic model.

The lattice of the text is searched exactly and as a whole, so nothing needs to be retried. The
search may skip a token that does not fit the audio. The price for that is high enough to keep words
that are only mumbled. Speech that the text lacks becomes a filler instead of stretching a word.

Long audio is searched in windows. In the last window the path must end at the end of the text; in
the others it may end anywhere in the text. The last seconds of each window are searched again in
the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pocketsphinx

from asr.align.hmm.acoustics import FRAME_SAMPLES, FRAME_SECONDS, Scorer
from asr.align.hmm.confidence import SKIPPED_CONFIDENCE, confidence
from asr.align.hmm.gaps import unwritten
from asr.align.hmm.lattice_builder import LatticeBuilder, Prices
from asr.align.hmm.pronounce import Lexicon
from asr.align.hmm.viterbi import background_scores, best_path
from asr.align.hmm.word_times import FoundToken, fill, found_tokens
from asr.text.spoken import UNREADABLE, spoken
from asr.types import SAMPLE_RATE, Audio, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.text.spoken import Slot

PRICES: Final = Prices(skip=40.0, skip_phone=8.0, filler=50.0, filler_frame=2.0)
WINDOW_SECONDS: Final = 60.0
DOUBTED_SECONDS: Final = 10.0
"""The path is unreliable this close to the end of a window, because the text continues after it."""
MAX_TOKENS_PER_SECOND: Final = 10.0
"""Nobody speaks faster. A window is searched for at most this much text.

If the last window has more text left than that, none of it is searched for.
"""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Words with times, and spans of speech that belongs to no word: (start, end) in seconds."""

    words: tuple[Word, ...]
    unwritten: tuple[tuple[float, float], ...]


class ForcedAligner:
    """Loads the models and aligns, in the calling thread.

    Args:
        scorer: computes the senone scores, which is most of the work.
    """

    def __init__(self, scorer: Scorer | None = None) -> None:
        self._scorer = scorer or Scorer()
        self._lexicon = Lexicon(Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")))
        self._builder = LatticeBuilder(self._scorer.phones, self._lexicon)

    def align(self, audio: Audio, texts: Sequence[str]) -> Alignment:
        """Time every token of a text: one word for each, in order and inside the audio."""
        slots = spoken(texts, self._lexicon)
        found, spans = self._find(audio, slots)
        words = [
            None if token is None else _word(text, token, audio)
            for text, token in zip(texts, found, strict=True)
        ]
        doubted = (
            replace(word, confidence=SKIPPED_CONFIDENCE)
            if token is None and _is_said(said)
            else word
            for word, token, said in zip(fill(texts, words, audio), found, slots, strict=True)
        )
        ends = [(_seconds(start, audio), _seconds(end, audio)) for start, end in spans]
        return Alignment(tuple(doubted), tuple(ends))

    def find(self, audio: Audio, texts: Sequence[str]) -> list[FoundToken | None]:
        """Find each token and its scores; None for a token that was skipped."""
        return self._find(audio, spoken(texts, self._lexicon))[0]

    def _find(
        self, audio: Audio, slots: Sequence[tuple[Slot, ...]]
    ) -> tuple[list[FoundToken | None], list[tuple[int, int]]]:
        """Find the tokens, and the frames of speech outside them, window by window."""
        found: list[FoundToken | None] = []
        spans: list[tuple[int, int]] = []
        n_window = round(WINDOW_SECONDS * SAMPLE_RATE)
        start = 0  # sample at which the window begins
        is_last = False
        while not is_last:
            is_last = len(audio.samples) - start <= n_window
            piece = Audio(audio.samples[start : start + n_window])
            tokens, outside = self._search(piece, slots[len(found) :], is_last=is_last)
            offset = start // FRAME_SAMPLES
            found += [_shifted(token, offset) for token in tokens]
            spans += [(begin + offset, end + offset) for begin, end in outside]
            last = next((token for token in reversed(tokens) if token is not None), None)
            reliable = n_window - round(DOUBTED_SECONDS * SAMPLE_RATE)
            start += reliable if last is None else last.end * FRAME_SAMPLES
        return found, spans

    def _search(
        self, audio: Audio, slots: Sequence[tuple[Slot, ...]], *, is_last: bool
    ) -> tuple[list[FoundToken | None], list[tuple[int, int]]]:
        """Search one window; return only tokens and spans that the next window cannot change."""
        n_most = round(MAX_TOKENS_PER_SECOND * audio.duration)
        if is_last and len(slots) > n_most:
            return [None] * len(slots), []
        some = slots if is_last else slots[:n_most]
        lattice = self._builder.build(some, PRICES)
        phones = self._scorer.phones
        wanted = np.append(lattice.used_senones(), phones.all_monophones)
        scores = self._scorer.score(audio.pcm16(), wanted)
        steps = best_path(lattice, scores, background_scores(phones, scores), whole=is_last)
        found = found_tokens(steps, len(some))
        spans = unwritten(audio, steps, [self._builder.n_phones(each) for each in some])
        if is_last:
            return found, spans
        limit = round((audio.duration - DOUBTED_SECONDS) / FRAME_SECONDS)
        ends = [(place, token.end) for place, token in enumerate(found) if token is not None]
        place, until = max((it for it in ends if it[1] <= limit), default=(-1, limit))
        return found[: place + 1], [span for span in spans if span[1] <= until]


def _is_said(slots: tuple[Slot, ...]) -> bool:
    return bool(slots) and slots is not UNREADABLE and () not in slots[0]


def _shifted(token: FoundToken | None, frames: int) -> FoundToken | None:
    if token is None:
        return None
    return replace(token, start=token.start + frames, end=token.end + frames)


def _seconds(frame: int, audio: Audio) -> float:
    return min(round(frame * FRAME_SECONDS, 2), audio.duration)


def _word(text: str, token: FoundToken, audio: Audio) -> Word:
    start, end = _seconds(token.start, audio), _seconds(token.end, audio)
    if not len(token.scores):
        return Word(text, start, end, None, "interpolated")
    return Word(text, start, end, confidence(token.scores), "aligned")
