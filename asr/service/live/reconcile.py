"""Reconcile the final segments of an item with the text that was sent as partial results. Pure.

The client has read the partial results, so the final text begins with exactly these words. Each
takes the time and the confidence of its counterpart in the final hypothesis; a word without a
counterpart gets a time between its neighbours. Words of the final hypothesis among them that the
client does not have are dropped. All words after them stay.
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
    """The segments with the sent words at their beginning.

    Only the last sent word may differ from what was sent: it gets the closing punctuation of its
    counterpart.

    Args:
        sent: the words of the partial results.
        segments: the final hypothesis, with timed words.
        start: seconds; where the words begin if no word has a time.
        end: seconds; where they end in this case.
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
    homes = _homes(counterparts, final[0][1])
    timed = _timed(sent, counterparts, [word for word, _ in rest], final)
    return _rebuilt(segments, [*zip(timed, homes, strict=True), *rest])


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
        # An end after the next word's start would leave no time for a word between them.
        words.append(
            it and replace(it[0], text=text, end=max(it[0].start, min(it[0].end, following)))
        )
        following = it[0].start if it else following
    words.reverse()
    return fill_missing(texts, words, final[0][0].start, end)


def _homes(counterparts: Sequence[tuple[Word, int] | None], first: int) -> list[int]:
    """The number of the segment of each sent word: its counterpart's, or the previous word's."""
    homes: list[int] = []
    for counterpart in counterparts:
        before = homes[-1] if homes else first
        homes.append(before if counterpart is None else counterpart[1])
    return homes


def _rebuilt(segments: Sequence[Segment], words: Sequence[tuple[Word, int]]) -> tuple[Segment, ...]:
    """The segments with other words. One that lost all its words and warns of nothing goes."""
    by_segment: list[list[Word]] = [[] for _ in segments]
    for word, home in words:
        by_segment[home].append(word)
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
