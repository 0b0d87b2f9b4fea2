r"""Segments -> subtitle cues that people can read in time.

Dynamic programming over the words chooses the cues, as TeX breaks a paragraph into lines: of all
ways to cut the words into cues that fit, it takes the cheapest. `_fitting` holds the limits,
`_cost` the preferences. The lines inside a cue are chosen in the same way.

The rules, most important first:

1. Every word is shown once, in order. The cues of one channel follow each other, last at least 1 ms
   and never overlap.
2. A line has at most ``max_line_width`` characters, a cue at most ``max_line_count`` lines. Only
   a single word that is longer than a line exceeds it; it has a line of its own.
3. No cue lasts longer than ``max_cue_duration``, even if its last word does.
4. A cue appears when its first word starts. (If several start within 1 ms, rule 1 delays them by a
   few ms.)
5. The screen is empty for ``min_gap`` between two cues. If they start less than two gaps apart, it
   is empty for half of the time between their starts.
6. A cue is shown for at least ``min_cue_duration``, and long enough to read at most ``max_cps``
   characters per second. If needed, it stays after its last word as long as the next cue and the
   rules above allow; or cues are merged or cut elsewhere to gain time.
7. Numbers, quantities, dates and names stay together. Cues and lines end with a sentence, else with
   a clause, else at a pause for breath. There are few cues, and their lines are evenly filled.

Rules 1 to 5 always hold. Rule 6 is broken where someone speaks too fast, because no word is left
out. Rule 7 is a preference. A cue holds words of one speaker only.

The rules hold for each channel by itself. Where two channels speak at once, their cues overlap,
which SRT and WebVTT allow: a cue that gave way to the other channel would be gone before anyone
could read it. Within one channel, the cue of a speaker ends when that of the next one starts.

A gap is a cue with a notice, from the start of the gap. The notice counts as one word. No cue ends
after the recording; only rule 1 has priority over that.

A `LineSegment` is one cue with its own line breaks; rules 2, 3 and 7 do not apply to it. No cue
ends after the recording.

All times are integer milliseconds. Each is rounded once, when a word enters, so no later step can
make two cues overlap by rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise, zip_longest
from typing import TYPE_CHECKING

from asr.output.gaps import notice
from asr.text.phrasing import (
    belong_together,
    ends_clause,
    ends_sentence,
    leads_on,
    line_bounds,
    wrap,
)
from asr.text.spread import divide
from asr.types import LineSegment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asr.config import SubtitleOptions
    from asr.types import Gap, Segment

_CUE_COST = 1.0
_SHORT_COST = 4.0
_FAST_COST = 4.0
_SENTENCE_INSIDE_COST = 2.5
"""Two sentences share a cue only if one of them alone would be too short to read."""
_CLAUSE_COST = 0.25
_MID_CLAUSE_COST = 1.0
_LEADING_COST = 0.3
_SPLIT_NAME_COST = 3.0
_BREATH_MS = 500
"""A pause inside a clause makes a cut there cheaper. At this length the cut costs half."""
_SILENCE_MS = 700
"""A pause between segments that is at least this long always ends a cue."""


@dataclass(frozen=True, slots=True)
class Cue:
    r"""Text on the screen from `start_ms` to `end_ms`; ``\n`` separates its lines.

    Attributes:
        speaker: name of the speaker, or None.
        starts_ms: start of each word.
        is_glued: no space is written before it; only for single words.
        is_line: it is a line of the user's text, which is shown as long as it is said.
    """

    start_ms: int
    end_ms: int
    text: str
    speaker: str | None = None
    starts_ms: tuple[int, ...] = field(default=(), compare=False)
    is_glued: bool = field(default=False, compare=False)
    is_line: bool = field(default=False, compare=False)


def make_cues(
    segments: Iterable[Segment],
    options: SubtitleOptions,
    *,
    labels: bool = False,
    gaps: Sequence[Gap] = (),
    duration: float = math.inf,
) -> list[Cue]:
    """Cut segments into cues by the rules in the module docstring.

    Args:
        segments: ordered by start; those of several channels may overlap.
        options: the limits.
        labels: start each cue of a known speaker with ``speaker:``. The label counts as text. If
            a cue has only one word, which leaves no room for the label, the label is left out. A
            `LineSegment` always has it.
        gaps: each becomes a cue that names it.
        duration: of the recording in seconds; no cue ends later.
    """
    limits = _Limits(options)
    segments = list(segments)
    channels: dict[int | None, tuple[list[Segment], list[Gap]]] = {}
    for segment in segments:
        channels.setdefault(segment.channel, ([], []))[0].append(segment)
    for gap in gaps:
        channels.setdefault(gap.channel, ([], []))[1].append(gap)
    end = max([duration, *(segment.end for segment in segments)])
    end_ms = None if math.isinf(end) else math.floor(end * 1000)
    own = (_channel_cues(*channel, limits, end_ms, labels=labels) for channel in channels.values())
    return sorted(chain.from_iterable(own), key=lambda cue: (cue.start_ms, cue.end_ms))


def _channel_cues(
    segments: Sequence[Segment],
    gaps: Sequence[Gap],
    limits: _Limits,
    end_ms: int | None,
    *,
    labels: bool,
) -> list[Cue]:
    """The cues of one channel. They do not overlap."""
    cues = [_notice(gap, limits, labels=labels) for gap in gaps]
    lines = (segment for segment in segments if isinstance(segment, LineSegment))
    cues += [_line(segment, limits, segment.speaker if labels else None) for segment in lines]
    free = [segment for segment in segments if not isinstance(segment, LineSegment)]
    paragraphs = _paragraphs(free, [cue.start_ms for cue in cues])
    for words, following in zip_longest(paragraphs, paragraphs[1:]):
        speaker = words[0].speaker if labels else None
        label = _label(speaker)
        next_ms = following[0].start_ms if following else None
        if next_ms is not None and next_ms <= words[-1].start_ms:
            next_ms = None  # both speak at once: the later words may stay longer
        label = label if len(label) <= limits.width else ""
        cues += _Paragraph(words, next_ms, limits, label).cues()
    timed = _set_ends(sorted(cues, key=lambda cue: cue.start_ms), limits)
    return timed if end_ms is None else _inside(timed, end_ms)


def _label(speaker: str | None) -> str:
    """What stands before the words of a speaker, or ""."""
    return f"{' '.join(speaker.split())}:" if speaker and speaker.strip() else ""


def _line(segment: LineSegment, limits: _Limits, speaker: str | None) -> Cue:
    """A cue for a line of the user's text, with its own line breaks.

    The label of the speaker gets a line of its own if the first line has no room for it.
    """
    label, text = _label(speaker), segment.text
    if label and not text.startswith(label):
        first, *rest = text.split("\n")
        on_top = [label, first, *rest]
        joins = len(label) + 1 + len(first) <= limits.width or len(on_top) > limits.n_lines
        text = f"{label} {text}" if joins else "\n".join(on_top)
    return Cue(
        round(segment.start * 1000),
        round(segment.end * 1000),
        text,
        segment.speaker,
        tuple(round(word.start * 1000) for word in segment.words),
        is_line=True,
    )


def _inside(cues: Sequence[Cue], end_ms: int) -> list[Cue]:
    """Move the cues that end after the recording, and those before them if they would overlap."""
    moved: list[Cue] = []
    for cue in reversed(cues):
        end = min(cue.end_ms, max(end_ms, 1))
        start = max(0, min(cue.start_ms, end - 1))
        moved.append(replace(cue, start_ms=start, end_ms=end))
        end_ms = start
    apart: list[Cue] = []
    for cue in reversed(moved):  # if the recording has no room for all of them, rule 1 wins
        start = max(cue.start_ms, apart[-1].end_ms) if apart else cue.start_ms
        apart.append(replace(cue, start_ms=start, end_ms=max(cue.end_ms, start + 1)))
    return apart


def _notice(gap: Gap, limits: _Limits, *, labels: bool) -> Cue:
    """A cue that says what is missing. Its lines are broken only if a cue may have that many."""
    label = [it for it in [_label(gap.speaker if labels else None)] if it]
    words = notice(gap).split()
    lines = next(filter(limits.fit, (wrap(it, limits.width) for it in (label + words, words))), [])
    text = "\n".join(lines) or notice(gap)
    start_ms = round(gap.start * 1000)
    starts_ms = (start_ms,) * len(text.split())
    return Cue(start_ms, round(gap.end * 1000), text, gap.speaker, starts_ms)


def _paragraphs(segments: Iterable[Segment], breaks_ms: Sequence[int]) -> list[list[Cue]]:
    """The words of neighbouring segments of one speaker without a long silence between them.

    Args:
        segments: ordered by start.
        breaks_ms: a paragraph also ends at each of these times.
    """
    paragraphs: list[list[Cue]] = []
    last: str | None = None
    for segment in segments:
        words = _words(segment)
        if not words:
            continue
        is_same = paragraphs and segment.speaker == last
        if is_same and _continues(paragraphs[-1], words[0], breaks_ms):
            paragraphs[-1] += words
        else:
            paragraphs.append(words)
        last = segment.speaker
    return paragraphs


def _continues(paragraph: Sequence[Cue], word: Cue, breaks_ms: Iterable[int]) -> bool:
    last = paragraph[-1]
    is_broken = any(last.start_ms < it <= word.start_ms for it in breaks_ms)
    return word.start_ms - last.end_ms < _SILENCE_MS and not is_broken


def _words(segment: Segment) -> list[Cue]:
    """One cue for each printable word; a text without timed words is spread over its segment."""
    if segment.words:
        timed = [(word.text, word.start, word.end) for word in segment.words]
    else:
        texts = segment.text.split()
        spans = divide(segment.start, segment.end, [1] * len(texts))
        timed = [(text, *span) for text, span in zip(texts, spans, strict=True)]
    words = [
        Cue(round(start * 1000), round(end * 1000), part, segment.speaker)
        for text, start, end in timed
        for part in text.split()  # a word may contain blanks, or consist of them
    ]
    if len(words) == len(segment.text.split()):
        return words  # a space stands between all words
    return _as_written(words, segment.text)


def _as_written(words: Sequence[Cue], text: str) -> list[Cue]:
    """Find the words that follow the word before them without a space, as in Chinese."""
    place = 0
    written: list[Cue] = []
    for word in words:
        is_glued = place > 0 and text.startswith(word.text, place)
        found = text.find(word.text, place)
        written.append(replace(word, is_glued=is_glued))
        place = found + len(word.text) if found >= 0 else place
    return written


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

    def fit(self, lines: Sequence[str]) -> bool:
        """Whether a cue may have these lines."""
        return len(lines) <= self.n_lines and all(len(line) <= self.width for line in lines)

    def reading_ms(self, n_characters: int) -> int:
        """How long a text of this length should be shown."""
        return max(1, self._min_ms, math.ceil(n_characters * 1000 / self._max_cps))

    def end_ms(
        self, start_ms: int, said_ms: int, n_characters: int, following_ms: int | None
    ) -> int:
        """When a cue whose last word ends at `said_ms` disappears, by rules 1 to 6."""
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
        following_ms: start of the next paragraph, or None for the last one.
        limits: of the cues.
        label: text at the start of each cue, or "".
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
        unbreakable = (cost > _SPLIT_NAME_COST for cost in self._break_costs[1:])
        self._n_unbreakable = list(accumulate(unbreakable, initial=0))

    def cues(self) -> list[Cue]:
        """The cheapest cues. Each ends with its last word."""
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
        """Yield each end that a cue from `start` may have, its characters and the end of speech."""
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
        """The cost of words[start:end] as a cue.

        It prefers few, evenly filled cues that are shown long enough, cut at the end of a sentence,
        else of a clause, else in a pause, with one sentence in each.
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
            + self._split_cost(start, end)
        )

    def _split_cost(self, start: int, end: int) -> float:
        """Penalty for unavoidable line breaks inside a number or a name."""
        if self._n_unbreakable[end - 1] == self._n_unbreakable[start]:
            return 0.0
        texts, costs = self._texts(start, end)
        bounds = line_bounds(texts, costs, self._limits.width)
        return sum(costs[bound] for bound in bounds[1:-1] if costs[bound] > _SPLIT_NAME_COST)

    def _texts(self, start: int, end: int) -> tuple[list[str], list[float]]:
        """The words of a cue, and the cost of a line break before each."""
        texts = [word.text for word in self._words[start:end]]
        costs = self._break_costs[start:end]
        labelled = [*self._label, *texts]
        if len(wrap(labelled, self._limits.width)) > self._limits.n_lines:
            return texts, costs
        return labelled, [_LEADING_COST] * len(self._label) + costs

    def _join(self, start: int, end: int) -> Cue:
        """words[start:end] as one cue, which ends with its speech."""
        words = self._words[start:end]
        texts, costs = self._texts(start, end)
        bounds = line_bounds(texts, costs, self._limits.width)
        n_labels = len(texts) - len(words)
        glued = [*[False] * n_labels, *(word.is_glued for word in words)]
        return Cue(
            words[0].start_ms,
            max(word.end_ms for word in words),
            "\n".join(_line_text(texts, glued, *bound) for bound in pairwise(bounds)),
            words[0].speaker,
            tuple(word.start_ms for word in words),
        )


def _line_text(texts: Sequence[str], glued: Sequence[bool], first: int, last: int) -> str:
    """The words [first, last) with the spaces between them."""
    gaps = ("" if place == first or glued[place] else " " for place in range(first, last))
    return "".join(gap + text for gap, text in zip(gaps, texts[first:last], strict=True))


def _break_cost(left: Cue, right: Cue) -> float:
    """The cost of a line or cue break between two words; 0 at the end of a sentence."""
    if belong_together(left.text, right.text):
        return _MID_CLAUSE_COST + _SPLIT_NAME_COST
    if ends_sentence(left.text):
        return 0.0
    if ends_clause(left.text):
        return _CLAUSE_COST
    pause = min(max(right.start_ms - left.end_ms, 0) / _BREATH_MS, 1)
    leading = _LEADING_COST if leads_on(left.text) else 0.0
    return _MID_CLAUSE_COST * (1 - pause / 2) + leading


def _set_ends(cues: Iterable[Cue], limits: _Limits) -> list[Cue]:
    """Set the end of every cue by rules 1 to 6."""
    cues = list(cues)
    apart: list[Cue] = []
    for cue, following in zip_longest(cues, cues[1:]):
        start = max(cue.start_ms, apart[-1].end_ms) if apart else cue.start_ms
        following_ms = following.start_ms if following else None
        end = limits.end_ms(start, cue.end_ms, len(cue.text), following_ms)
        if cue.is_line:
            end = max(end, min(cue.end_ms, following_ms or cue.end_ms))
        apart.append(replace(cue, start_ms=start, end_ms=end))
    return apart
