"""Align a known text with a long recording: divide both into pieces that belong together.

A forced aligner needs pieces of some seconds and exactly the words that are said in them. So the
recording is first recognised roughly. Words that the text and the recognition share are anchors
(`asr.align.anchors`). They give the position in the text at several times of the recording.
`make_plan` cuts text and recording at pauses. It cuts only where the words on both sides of the
pause are anchors, and prefers the longest pauses. So a piece holds exactly its own words, even if
the recognition inside it is wrong.

Two kinds of mismatch go into no piece and give a warning:

- Text that cannot have been said, because it has too many letters for the time between two anchors.
  Its words are spread over that time. They are marked "interpolated" and get confidence 0.
- Speech between two consecutive words of the text.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from asr.align.anchors import find_anchors
from asr.text.phrasing import ends_sentence
from asr.text.spread import fill_missing, n_letters, spread_words
from asr.types import SAMPLE_RATE, SpeechRegion, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MIN_SECONDS = 4.0
MAX_SECONDS = 20.0
"""A piece ends at the longest pause from MIN_SECONDS to MAX_SECONDS after its start.

It is longer only where anchors are missing.
"""
LIMIT_SECONDS = 60.0
"""A longer piece is cut at silences, even without anchors (see `_force`)."""
PAD_SECONDS = 0.3
"""How far a piece reaches into a stretch of mismatch beside it."""
FASTEST = 25.0
"""Maximum letters per second of speech; fast speech has about 20."""
UNSAID_LETTERS = 15
"""Text was not said if it has at least this many letters more than `FASTEST` allows.

The tolerance is needed because the times of anchors are imprecise.
"""
UNWRITTEN_SECONDS = 1.5
UNWRITTEN_WORDS = 3
"""Speech is missing from the text if two consecutive words of the text are at least
UNWRITTEN_SECONDS apart and at least UNWRITTEN_WORDS words were recognised between them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the recording in seconds, and the tokens [first, last) said in it."""

    start: float
    end: float
    first: int
    last: int

    @property
    def start_sample(self) -> int:
        """Index of the first sample."""
        return round(self.start * SAMPLE_RATE)

    @property
    def end_sample(self) -> int:
        """Index after the last sample."""
        return round(self.end * SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces to be aligned.

    Attributes:
        pieces: in order; they overlap neither in time nor in the text.
        known: recognised words by the index of their token.
        warnings: about text that was not said, and speech that the text lacks.
        unsaid: tokens [first, last) of each text that was not said.
        unwritten: (start, end) in seconds of each speech that the text lacks.
    """

    pieces: tuple[Piece, ...]
    known: dict[int, Word]
    warnings: tuple[str, ...]
    unsaid: tuple[tuple[int, int], ...] = ()
    unwritten: tuple[tuple[float, float], ...] = ()


def make_plan(
    tokens: Sequence[str], heard: Sequence[Word], regions: Sequence[SpeechRegion]
) -> Plan:
    """Cut a text and a recording into pieces that belong together.

    Args:
        tokens: the words of the text; at least one.
        heard: the recognised words with their times, in order.
        regions: the speech regions; at least one.
    """
    known = _known(tokens, heard)
    warnings = [] if known or not heard else ["no passage of the text was recognised"]
    script = _Script(tokens, heard, regions, known)
    pieces: list[Piece] = []
    for stretch in _stretches(script, warnings):
        for piece in _cut(stretch, known):
            pieces += _force(piece, tokens, regions)
    bounds = list(pairwise([-1, *known, len(tokens)]))
    unsaid = tuple((left + 1, right) for left, right in bounds if script.is_unsaid(left, right))
    unwritten = tuple(script.span(*bound) for bound in bounds if script.is_unwritten(*bound))
    return Plan(tuple(pieces), known, tuple(warnings), unsaid, unwritten)


def _known(tokens: Sequence[str], heard: Sequence[Word]) -> dict[int, Word]:
    known = {}
    for token, first, last in find_anchors(tokens, heard):
        parts = heard[first : last + 1]
        measured = [word.confidence for word in parts if word.confidence is not None]
        confidence = min(measured, default=None)
        known[token] = Word(tokens[token], parts[0].start, parts[-1].end, confidence, "engine")
    return known


class _Script:
    """Looks up time, text and speech between two recognised tokens (known tokens)."""

    def __init__(
        self,
        tokens: Sequence[str],
        heard: Sequence[Word],
        regions: Sequence[SpeechRegion],
        known: dict[int, Word],
    ) -> None:
        self.n_tokens = len(tokens)
        self.known = known
        self.start = min([regions[0].start, *(word.start for word in known.values())])
        self.end = max([regions[-1].end, *(word.end for word in known.values())])
        self._letters = [0, *accumulate(map(n_letters, tokens))]
        self._middles = [word.midpoint for word in heard]
        self._starts = [region.start for region in regions]
        self._lengths = [region.end - region.start for region in regions]
        self._before = [0.0, *accumulate(self._lengths)]

    def span(self, left: int, right: int) -> tuple[float, float]:
        """Return (start, end) of the time between two known tokens.

        -1 stands for the start of the speech, and `n_tokens` for its end.
        """
        start = self.known[left].end if left >= 0 else self.start
        end = self.known[right].start if right < self.n_tokens else self.end
        return start, max(start, end)

    def is_unsaid(self, left: int, right: int) -> bool:
        """Whether the text between two known tokens is too long for the speech between them."""
        start, end = self.span(left, right)
        n_written = self._letters[right] - self._letters[left + 1]
        return n_written - FASTEST * (self._speech(end) - self._speech(start)) >= UNSAID_LETTERS

    def _speech(self, time: float) -> float:
        """Sum up the seconds of speech before a time."""
        index = bisect_right(self._starts, time) - 1
        if index < 0:
            return 0.0
        return self._before[index] + min(time - self._starts[index], self._lengths[index])

    def is_unwritten(self, left: int, right: int) -> bool:
        """Whether there is speech between two consecutive tokens of the text."""
        start, end = self.span(left, right)
        n_heard = bisect_left(self._middles, end) - bisect_right(self._middles, start)
        return right == left + 1 and end - start >= UNWRITTEN_SECONDS and n_heard >= UNWRITTEN_WORDS


def _stretches(script: _Script, warnings: list[str]) -> Iterator[Piece]:
    """Yield stretches in which text and audio match; append a warning for each mismatch."""
    first, begin = 0, script.start
    for left, right in pairwise([-1, *script.known, script.n_tokens]):
        start, end = script.span(left, right)
        if script.is_unsaid(left, right):
            missing = f"words {left + 2} to {right} of the text were not said"
            warnings.append(f"{missing} between {start:.1f} and {end:.1f} s")
        elif script.is_unwritten(left, right):
            warnings.append(f"speech from {start:.1f} to {end:.1f} s is not in the text")
        else:
            continue
        pad = min(PAD_SECONDS, (end - start) / 2)
        if left >= first:
            yield Piece(begin, start + pad, first, left + 1)
        first, begin = right, end - pad
    if first < script.n_tokens:
        yield Piece(begin, script.end, first, script.n_tokens)


def _cut(stretch: Piece, known: dict[int, Word]) -> Iterator[Piece]:
    """Cut at the longest pauses between two consecutive known tokens."""
    cuts: list[tuple[float, float, int]] = []  # pause, time, token
    start, first = stretch.start, stretch.first
    for token in range(stretch.first + 1, stretch.last):
        before, after = known.get(token - 1), known.get(token)
        if before is None or after is None:
            continue
        pause, time = after.start - before.end, (before.end + after.start) / 2
        if cuts and time - start > MAX_SECONDS:
            _, start_of_next, first_of_next = max(cuts)
            yield Piece(start, start_of_next, first, first_of_next)
            start, first = start_of_next, first_of_next
            cuts = [cut for cut in cuts if cut[1] - start >= MIN_SECONDS]
        if time - start >= MIN_SECONDS:
            cuts.append((pause, time, token))
    yield Piece(start, stretch.end, first, stretch.last)


def _force(piece: Piece, tokens: Sequence[str], regions: Sequence[SpeechRegion]) -> list[Piece]:
    """If a piece is too long, cut it at silences; divide its text in proportion to the speech."""
    n_parts = math.ceil((piece.end - piece.start) / LIMIT_SECONDS)
    if n_parts == 1:
        return [piece]
    speech = [
        (max(region.start, piece.start), min(region.end, piece.end))
        for region in regions
        if region.end > piece.start and region.start < piece.end
    ]
    total = sum(end - start for start, end in speech)
    letters = [0, *accumulate(n_letters(token) for token in tokens[piece.first : piece.last])]
    bounds = [(piece.start, piece.first)]
    done = 0.0
    for (start, end), (next_start, _) in pairwise(speech):
        done += end - start
        if done < total * len(bounds) / n_parts or next_start - bounds[-1][0] < MIN_SECONDS:
            continue
        token = piece.first + bisect_left(letters, letters[-1] * done / total)
        bounds.append(((end + next_start) / 2, max(bounds[-1][1], _sentence_near(tokens, token))))
    bounds.append((piece.end, piece.last))
    parts = [Piece(a[0], b[0], a[1], min(b[1], piece.last)) for a, b in pairwise(bounds)]
    return [part for part in parts if part.last > part.first]


def _sentence_near(tokens: Sequence[str], token: int, reach: int = 8) -> int:
    """Find the nearest token that begins a sentence; the token itself if there is none."""
    starts = [
        near
        for near in range(max(1, token - reach), min(len(tokens), token + reach + 1))
        if ends_sentence(tokens[near - 1])
    ]
    return min(starts, key=lambda near: abs(near - token), default=token)


def place(tokens: Sequence[str], plan: Plan, aligned: Iterable[Sequence[Word]]) -> list[Word]:
    """Give every word of the text its time in the recording.

    Args:
        tokens: the words of the text.
        plan: of these tokens.
        aligned: for each piece its words, with times that count from its start. If the aligner
            only interpolated a word that the recogniser heard, the recogniser's time is used.
    """
    placed: list[Word | None] = [None] * len(tokens)
    for piece, words in zip(plan.pieces, aligned, strict=True):
        placed[piece.first : piece.last] = _overlay(piece, words, plan.known)
    # Text after the last piece was not said. Its words get zero duration at the end of that piece.
    return fill_missing(tokens, placed, 0.0, 0.0, functools.partial(spread_words, confidence=0.0))


def _overlay(piece: Piece, words: Sequence[Word], known: dict[int, Word]) -> list[Word]:
    """Move the words of a piece to their times in the recording.

    Where the aligner only interpolated a word, the recognised word is used if there is one.
    """
    placed = []
    has_changed = False
    for token, word in enumerate(words, piece.first):
        start, end = piece.start + word.start, min(piece.start + word.end, piece.end)
        chosen = replace(word, start=min(start, end), end=end)
        if word.timing == "interpolated" and token in known:
            chosen, has_changed = known[token], True
        placed.append(chosen)
    if not has_changed:
        return placed
    timed = [None if word.timing == "interpolated" else word for word in placed]
    return fill_missing([word.text for word in placed], timed, piece.start, piece.end)
