"""Segments -> cues that can be read from a screen.

The cues of a segment are found by dynamic programming over its words, the way TeX breaks a
paragraph: of all ways to cut it into cues that fit, the cheapest is taken. `_fitting` is where
limits belong, `_cost` is where preferences belong.

All times are integer milliseconds, rounded once when a word comes in, so no later step can
round two cues into each other.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asr.config import SubtitleOptions
    from asr.types import Segment

_OPENING = "\"'“‘«‹([{"  # noqa: RUF001
_CLOSING = "\"'”’»›)]}"  # noqa: RUF001
_SENTENCE_ENDS = ("?", "!", "…", "。", "？", "！", "؟", "।")  # noqa: RUF001
_CLAUSE_ENDS = (",", ";", ":", "—", "–", "،", "؛", "，", "、")  # noqa: RUF001
_ABBREVIATION = re.compile(
    r"(?:mrs?|ms|dr|prof|rev|hon|gen|col|capt|lt|sgt|st|mt|jr|sr|messrs|vs|cf|approx|dept|fig|vol"
    r"|(?:[^\W\d_]\.)*[^\W\d_])\.",  # and initials: J., U.S., e.g.
    re.IGNORECASE,
)

_CUE_COST = 1.0
_CLAUSE_COST = 0.25
_MID_CLAUSE_COST = 1.0
_LONGEST_PAUSE_MS = 500
"""A pause inside a clause makes a cut there cheaper, up to half when it is this long."""


@dataclass(frozen=True, slots=True)
class Cue:
    r"""Text that stands on the screen from `start_ms` to `end_ms`, lines parted by ``\n``."""

    start_ms: int
    end_ms: int
    text: str


def make_cues(segments: Iterable[Segment], options: SubtitleOptions) -> list[Cue]:
    """Cut segments into cues that keep the rules of reading.

    A cue has at most ``max_line_count`` lines of ``max_line_width`` characters, where a longer
    word stands alone on its line, and lasts ``max_cue_duration`` at most unless a single word
    does not. It holds words of one segment. Cues last at least 1 ms and never overlap: a cue ends
    where the next one starts, and where that would leave it less than 1 ms, the next one starts
    1 ms late. So n cues at one instant are shown 1 ms each, and the last starts n - 1 ms late.
    """
    cues = []
    for segment in segments:
        words = _words(segment)
        bounds = _split(words, options)
        cues += [_join(words[start:end], options) for start, end in pairwise(bounds)]
    return _apart(cues)


def ends_sentence(text: str) -> bool:
    """Whether a word with its punctuation ends a sentence; ``Mr.`` and ``J.`` do not."""
    bare = text.rstrip(_CLOSING)
    if not bare.endswith("."):
        return bare.endswith(_SENTENCE_ENDS)
    return not _ABBREVIATION.fullmatch(bare.lstrip(_OPENING))


def ends_clause(text: str) -> bool:
    """Whether a word with its punctuation ends a clause."""
    return text.rstrip(_CLOSING).endswith(_CLAUSE_ENDS)


def _words(segment: Segment) -> list[Cue]:
    """One cue for each printable word; a text without words is spread evenly over its segment."""
    if segment.words:
        timed = [(word.text, word.start, word.end) for word in segment.words]
    else:
        texts = segment.text.split()
        step = (segment.end - segment.start) / max(1, len(texts))
        starts = [segment.start + i * step for i in range(len(texts))]
        timed = [(text, start, start + step) for text, start in zip(texts, starts, strict=True)]
    return [
        Cue(round(start * 1000), round(end * 1000), part)
        for text, start, end in timed
        for part in text.split()  # a word may hold blanks, and a blank word has nothing to show
    ]


def _split(words: Sequence[Cue], options: SubtitleOptions) -> list[int]:
    """Bounds of the cheapest cues: cue k holds words[bounds[k]:bounds[k + 1]]."""
    best = [0.0] + [math.inf] * len(words)
    previous = [0] * (len(words) + 1)
    for start in range(len(words)):
        for end, width in _fitting(words, start, options):
            cost = best[start] + _cost(words, end, width / _capacity(options))
            if cost < best[end]:
                best[end], previous[end] = cost, start
    bounds = [len(words)]
    while bounds[-1]:
        bounds.append(previous[bounds[-1]])
    return bounds[::-1]


def _capacity(options: SubtitleOptions) -> int:
    return options.max_line_width * options.max_line_count


def _fitting(
    words: Sequence[Cue], start: int, options: SubtitleOptions
) -> Iterator[tuple[int, int]]:
    """Every end for which words[start:end] may be one cue, with its characters."""
    latest = words[start].start_ms + round(options.max_cue_duration * 1000)
    n_lines, width, total, end_ms = 1, -1, -1, 0
    for end in range(start + 1, len(words) + 1):
        word = words[end - 1]
        end_ms = max(end_ms, word.end_ms)
        width += 1 + len(word.text)
        total += 1 + len(word.text)
        if width > options.max_line_width and end > start + 1:
            n_lines, width = n_lines + 1, len(word.text)
        fits = n_lines <= options.max_line_count and end_ms <= latest
        if not fits and end > start + 1:
            return
        yield end, total


def _cost(words: Sequence[Cue], end: int, filled: float) -> float:
    """What a cue costs that ends before words[end] and fills that share of the screen.

    Few cues, evenly filled, cut at sentence ends, else after clauses, else in long pauses.
    """
    cost = _CUE_COST + (1 - min(1.0, filled)) ** 2
    if end == len(words) or ends_sentence(words[end - 1].text):
        return cost
    if ends_clause(words[end - 1].text):
        return cost + _CLAUSE_COST
    pause = words[end].start_ms - words[end - 1].end_ms
    return cost + _MID_CLAUSE_COST * (1 - min(max(pause, 0) / _LONGEST_PAUSE_MS, 1) / 2)


def _join(words: Sequence[Cue], options: SubtitleOptions) -> Cue:
    """One cue of all words, in as few lines as they need and those about equally long."""
    texts = [word.text for word in words]
    n_lines = len(_wrap(texts, options.max_line_width))
    widths = range(1, options.max_line_width + 1)
    narrowest = bisect_left(widths, True, key=lambda width: len(_wrap(texts, width)) <= n_lines)
    lines = _wrap(texts, widths[narrowest])
    return Cue(words[0].start_ms, max(word.end_ms for word in words), "\n".join(lines))


def _wrap(texts: Iterable[str], width: int) -> list[str]:
    """Fill line after line; a text wider than `width` gets a line of its own."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += " " + text
        else:
            lines.append(text)
    return lines


def _apart(cues: Sequence[Cue]) -> list[Cue]:
    """Give every cue at least 1 ms that no other cue covers; see `make_cues`."""
    apart: list[Cue] = []
    for cue, following in zip_longest(cues, cues[1:]):
        start = max(cue.start_ms, apart[-1].end_ms) if apart else cue.start_ms
        end = cue.end_ms if following is None else min(cue.end_ms, following.start_ms)
        apart.append(Cue(start, max(end, start + 1), cue.text))
    return apart
