r"""Segments -> cues that can be read from a screen.

The cues are found by dynamic programming over the words, the way TeX breaks a paragraph: of all
ways to cut them into cues that fit, the cheapest is taken. `_fitting` is where limits belong,
`_cost` is where preferences belong. Lines inside a cue are found in the same way.

The rules, of which each yields to those above it:

1. Every word is shown once, in order. Cues follow each other, last at least 1 ms and never overlap.
2. A line has at most ``max_line_width`` characters, a cue at most ``max_line_count`` lines. Only a
   single word that is longer than a line exceeds it, alone on that line.
3. No cue lasts longer than ``max_cue_duration``; it leaves before its word ends, if need be.
4. A cue appears when its first word is said. (Only where several begin within 1 ms, rule 1 makes
   them a few ms late.)
5. Between two cues the screen is empty for ``min_gap``; where they start less than two gaps apart,
   for half of that time.
6. A cue stands at least ``min_cue_duration``, and so long that no more than ``max_cps`` characters
   a second must be read. To that end it stays on after its last word, as far as the next cue and
   the rules above allow; cues are joined, or cut elsewhere, where that leaves more time.
7. Numbers, quantities, dates and names are not parted, and the end of a sentence, then of a clause,
   then a pause for breath is where cues and lines end; few cues, evenly filled lines.

Rules 1 to 5 always hold as they are written. Rule 6 bends where someone speaks too fast, since no
word is left out, and rule 7 is weighed. A cue holds words of one speaker only; where two speak at
once, the one who began first leaves the screen to the other.

All times are integer milliseconds, rounded once when a word comes in, so no later step can
round two cues into each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, zip_longest
from typing import TYPE_CHECKING

from asr.text.phrasing import (
    belong_together,
    ends_clause,
    ends_sentence,
    leads_on,
    line_bounds,
    wrap,
)
from asr.text.spread import divide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asr.config import SubtitleOptions
    from asr.types import Segment

_CUE_COST = 1.0
_SHORT_COST = 4.0
_FAST_COST = 4.0
_SENTENCE_INSIDE_COST = 2.5
"""Two sentences share a cue where one of them alone would be gone too soon."""
_CLAUSE_COST = 0.25
_MID_CLAUSE_COST = 1.0
_LEADING_COST = 0.3
_PARTED_COST = 3.0
_BREATH_MS = 500
"""A pause inside a clause makes a cut there cheaper, up to half when it is this long."""
_SILENCE_MS = 700
"""A longer pause between two segments is never inside a cue."""


@dataclass(frozen=True, slots=True)
class Cue:
    r"""Text that stands on the screen from `start_ms` to `end_ms`, lines parted by ``\n``.

    Attributes:
        speaker: who says it, or None.
        starts_ms: when each of its words begins.
    """

    start_ms: int
    end_ms: int
    text: str
    speaker: str | None = None
    starts_ms: tuple[int, ...] = field(default=(), compare=False)


def make_cues(
    segments: Iterable[Segment], options: SubtitleOptions, *, labels: bool = False
) -> list[Cue]:
    """Cut segments into cues that keep the rules of reading, which the module states.

    Args:
        segments: in the order of their starts; those of several channels may overlap.
        options: the limits.
        labels: begin each cue of a known speaker with ``speaker:``. It counts as part of the text,
            and is left out of a cue whose only word leaves no room for it.
    """
    limits = _Limits(options)
    cues: list[Cue] = []
    paragraphs = _paragraphs(segments)
    for words, following in zip_longest(paragraphs, paragraphs[1:]):
        speaker = words[0].speaker if labels else None
        label = f"{' '.join(speaker.split())}:" if speaker else ""
        next_ms = following[0].start_ms if following else None
        if next_ms is not None and next_ms <= words[-1].start_ms:
            next_ms = None  # both speak at once: it is no limit to what comes later
        label = label if len(label) <= options.max_line_width else ""
        cues += _Paragraph(words, next_ms, limits, label).cues()
    return _apart(sorted(cues, key=lambda cue: cue.start_ms), limits)


def _paragraphs(segments: Iterable[Segment]) -> list[list[Cue]]:
    """The words of neighbouring segments of one speaker without a long silence between them."""
    paragraphs: list[list[Cue]] = []
    last: tuple[int | None, str | None] | None = None
    for segment in segments:
        words = _words(segment)
        if not words:
            continue
        who = (segment.channel, segment.speaker)
        if who == last and words[0].start_ms - paragraphs[-1][-1].end_ms < _SILENCE_MS:
            paragraphs[-1] += words
        else:
            paragraphs.append(words)
        last = who
    return paragraphs


def _words(segment: Segment) -> list[Cue]:
    """One cue for each printable word; a text without words is spread evenly over its segment."""
    if segment.words:
        timed = [(word.text, word.start, word.end) for word in segment.words]
    else:
        texts = segment.text.split()
        spans = divide(segment.start, segment.end, [1] * len(texts))
        timed = [(text, *span) for text, span in zip(texts, spans, strict=True)]
    return [
        Cue(round(start * 1000), round(end * 1000), part, segment.speaker)
        for text, start, end in timed
        for part in text.split()  # a word may hold blanks, and a blank word has nothing to show
    ]


class _Limits:
    """The options in characters and milliseconds."""

    def __init__(self, options: SubtitleOptions) -> None:
        self.width = options.max_line_width
        self.n_lines = options.max_line_count
        self.capacity = self.width * self.n_lines
        self.max_ms = round(options.max_cue_duration * 1000)
        self._min_ms = round(options.min_cue_duration * 1000)
        self._gap_ms = round(options.min_gap * 1000)
        self._max_cps = options.max_cps

    def reading_ms(self, n_characters: int) -> int:
        """How long a text of that length should stand."""
        return max(1, self._min_ms, math.ceil(n_characters * 1000 / self._max_cps))

    def end_ms(
        self, start_ms: int, said_ms: int, n_characters: int, following_ms: int | None
    ) -> int:
        """When a cue leaves the screen that is said until `said_ms`, by rules 1 to 6."""
        end = max(said_ms, start_ms + self.reading_ms(n_characters))
        end = min(end, start_ms + self.max_ms)
        if following_ms is not None:
            between = following_ms - start_ms
            end = min(end, following_ms - min(self._gap_ms, between // 2))
        return max(end, start_ms + 1)


class _Paragraph:
    """Words of one speaker that become cues.

    Args:
        words: at least one.
        following_ms: when the next paragraph begins, or None after the last.
        limits: of the cues.
        label: what each cue begins with, or nothing.
    """

    def __init__(
        self, words: Sequence[Cue], following_ms: int | None, limits: _Limits, label: str = ""
    ) -> None:
        self._words = words
        self._limits = limits
        self._label = [label] if label else []
        self._next_ms = [*(word.start_ms for word in words), following_ms]
        self._break_costs = [0.0, *(_break_cost(a, b) for a, b in pairwise(words)), 0.0]
        self._n_ended = list(accumulate((not cost for cost in self._break_costs[1:]), initial=0))
        parting = (cost > _PARTED_COST for cost in self._break_costs[1:])
        self._n_parting = list(accumulate(parting, initial=0))

    def cues(self) -> list[Cue]:
        """The cheapest cues; they end with their last word."""
        n_words = len(self._words)
        best = [0.0] + [math.inf] * n_words
        previous = [0] * (n_words + 1)
        for start in range(n_words):
            for end, n_characters, said_ms in self._fitting(start):
                cost = best[start] + self._cost(start, end, n_characters, said_ms)
                if cost < best[end]:
                    best[end], previous[end] = cost, start
        bounds = [n_words]
        while bounds[-1]:
            bounds.append(previous[bounds[-1]])
        return [self._join(start, end) for start, end in pairwise(bounds[::-1])]

    def _fitting(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Every end for which words[start:end] may be one cue, its characters, its last sound."""
        latest = self._words[start].start_ms + self._limits.max_ms
        width = total = sum(map(len, self._label)) or -1
        n_lines, said_ms = 1, 0
        for end in range(start + 1, len(self._words) + 1):
            word = self._words[end - 1]
            said_ms = max(said_ms, word.end_ms)
            total += 1 + len(word.text)
            if width >= 0 and width + 1 + len(word.text) > self._limits.width:
                n_lines, width = n_lines + 1, -1
            width += 1 + len(word.text)
            fits = n_lines <= self._limits.n_lines and said_ms <= latest
            if not fits and end > start + 1:
                return
            yield end, total, said_ms

    def _cost(self, start: int, end: int, n_characters: int, said_ms: int) -> float:
        """What words[start:end] cost as a cue.

        Few cues, evenly filled, that stand long enough; cut at ends of sentences, else of clauses,
        else in pauses; one sentence in each.
        """
        limits, start_ms = self._limits, self._words[start].start_ms
        filled = min(1.0, n_characters / limits.capacity)
        shown = limits.end_ms(start_ms, said_ms, n_characters, self._next_ms[end]) - start_ms
        n_inside = self._n_ended[end - 1] - self._n_ended[start]
        return (
            _CUE_COST
            + (1 - filled) ** 2
            + _SHORT_COST * max(0.0, 1 - shown / limits.reading_ms(0))
            + _FAST_COST * max(0.0, 1 - shown / limits.reading_ms(n_characters)) * filled
            + _SENTENCE_INSIDE_COST * n_inside
            + self._break_costs[end]
            + self._parted(start, end)
        )

    def _parted(self, start: int, end: int) -> float:
        """What it costs that lines of words[start:end] cannot but part numbers or names."""
        if self._n_parting[end - 1] == self._n_parting[start]:
            return 0.0
        texts, costs = self._texts(start, end)
        bounds = line_bounds(texts, costs, self._limits.width)
        return sum(costs[bound] for bound in bounds[1:-1] if costs[bound] > _PARTED_COST)

    def _texts(self, start: int, end: int) -> tuple[list[str], list[float]]:
        """The words of a cue, and what a line's end before each of them costs."""
        texts = [word.text for word in self._words[start:end]]
        costs = self._break_costs[start:end]
        labelled = [*self._label, *texts]
        if len(wrap(labelled, self._limits.width)) > self._limits.n_lines:
            return texts, costs
        return labelled, [_LEADING_COST] * len(self._label) + costs

    def _join(self, start: int, end: int) -> Cue:
        """One cue of words[start:end], which ends with its last sound."""
        words = self._words[start:end]
        texts, costs = self._texts(start, end)
        bounds = line_bounds(texts, costs, self._limits.width)
        return Cue(
            words[0].start_ms,
            max(word.end_ms for word in words),
            "\n".join(" ".join(texts[first:last]) for first, last in pairwise(bounds)),
            words[0].speaker,
            tuple(word.start_ms for word in words),
        )


def _break_cost(left: Cue, right: Cue) -> float:
    """What it costs to end a line or cue between two words; 0 at the end of a sentence."""
    if belong_together(left.text, right.text):
        return _MID_CLAUSE_COST + _PARTED_COST
    if ends_sentence(left.text):
        return 0.0
    if ends_clause(left.text):
        return _CLAUSE_COST
    pause = min(max(right.start_ms - left.end_ms, 0) / _BREATH_MS, 1)
    leading = _LEADING_COST if leads_on(left.text) else 0.0
    return _MID_CLAUSE_COST * (1 - pause / 2) + leading


def _apart(cues: Iterable[Cue], limits: _Limits) -> list[Cue]:
    """Let every cue stand as long as its text and the next cue want; see the module."""
    cues = list(cues)
    apart: list[Cue] = []
    for cue, following in zip_longest(cues, cues[1:]):
        start = max(cue.start_ms, apart[-1].end_ms) if apart else cue.start_ms
        following_ms = following.start_ms if following else None
        end = limits.end_ms(start, cue.end_ms, len(cue.text), following_ms)
        apart.append(replace(cue, start_ms=start, end_ms=end))
    return apart
