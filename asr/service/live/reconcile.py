"""Reconcile the final segments of an item with the words that were sent as partial results. Pure.

The client has the sent words, so the final text begins with exactly these words. The final
hypothesis is aligned with them:

- A sent word takes the time and the confidence of its counterpart. Without a counterpart, it gets a
  time between its neighbours.
- Words of the hypothesis between the counterparts are dropped.
- Words of the hypothesis after the last counterpart stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asr.service.live.partial_text import punctuated
from asr.service.live.word_match import match_prefix
from asr.text.spread import fill_missing, spread_words
from asr.types import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence


def reconcile(
    sent: Sequence[str], segments: Sequence[Segment], start: float, end: float
) -> tuple[Segment, ...]:
    """Return segments that begin with the sent words.

    Only the last sent word may change: it gets the closing punctuation of its counterpart.

    Args:
        sent: the words of the partial results.
        segments: the final hypothesis, with timed words.
        start: start of the turn in seconds; used if the hypothesis has no words.
        end: end of the turn in seconds; used if the hypothesis has no words.
    """
    if not sent:
        return tuple(segments)
    final = [(word, n) for n, segment in enumerate(segments) for word in segment.words]
    if not final:
        words = spread_words(sent, start, end)
        text = " ".join(sent)
        return (*segments, Segment(len(segments), start, end, text, tuple(words)))
    match = match_prefix(sent, [word.text for word, _ in final])
    counterparts = [None if j is None else final[j] for j in match.counterparts]
    rest = final[match.n_used :]
    numbers = _segment_numbers(counterparts, final[0][1])
    timed = _timed(sent, counterparts, [word for word, _ in rest], final)
    return _rebuilt(segments, [*zip(timed, numbers, strict=True), *rest])


def _timed(
    sent: Sequence[str],
    counterparts: Sequence[tuple[Word, int] | None],
    rest: Sequence[Word],
    final: Sequence[tuple[Word, int]],
) -> list[Word]:
    texts = list(sent)
    if last := counterparts[-1]:
        texts[-1] = punctuated(texts[-1], last[0].text)
    end = rest[0].start if rest else final[-1][0].end
    words: list[Word | None] = []
    following = end
    for text, it in zip(reversed(texts), reversed(counterparts), strict=True):
        # A word ends before its next sent neighbour, so that a word between them gets time.
        words.append(
            it and replace(it[0], text=text, end=max(it[0].start, min(it[0].end, following)))
        )
        following = it[0].start if it else following
    words.reverse()
    return fill_missing(texts, words, final[0][0].start, end)


def _segment_numbers(counterparts: Sequence[tuple[Word, int] | None], first: int) -> list[int]:
    """The segment of each sent word: that of its counterpart, or that of the previous word."""
    numbers: list[int] = []
    for counterpart in counterparts:
        before = numbers[-1] if numbers else first
        numbers.append(before if counterpart is None else counterpart[1])
    return numbers


def _rebuilt(segments: Sequence[Segment], words: Sequence[tuple[Word, int]]) -> tuple[Segment, ...]:
    """Replace the words of all segments. Drop segments without words and warnings."""
    by_segment: list[list[Word]] = [[] for _ in segments]
    for word, number in words:
        by_segment[number].append(word)
    rebuilt: list[Segment] = []
    for segment, own in zip(segments, by_segment, strict=True):
        if own or segment.warnings:
            rebuilt.append(_with_words(segment, own, len(rebuilt)))
    return tuple(rebuilt)


def _with_words(segment: Segment, words: Sequence[Word], number: int) -> Segment:
    return replace(
        segment,
        id=number,
        start=min([segment.start, *(word.start for word in words[:1])]),
        end=max([segment.end, *(word.end for word in words)]),
        text=" ".join(word.text for word in words),
        words=tuple(words),
    )
