"""Hypotheses -> segments with absolute times, in order and as soon as they are certain.

The only place where times relative to a chunk become times of the recording. Chunks that were cut
in silence simply follow each other. Where speech had to be cut, two chunks share an overlap and
both heard the words in it; `_merge` keeps one copy of each. It goes by the times of the words;
where those are guesses, `_merge_texts` goes by the words.

The engine's order of words is trusted, its times are not: a start that runs backwards is raised
to the one before it, and a word that runs into the next one ends where that starts.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

from asr.text.phrasing import ends_sentence
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Segment, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MATCH_SECONDS = 0.3
"""Two chunks time the same word alike within this."""
GUESSED_SECONDS = 2.5
"""So far from its sound may an interpolated word be. Near a cut it is mostly less: there the first
and the last word of a chunk are held in place by its ends."""
SKIPPED = 0.5
"""What a word that only one side has takes from the words that both have."""
HALF_HEARD = 0.1
"""The same for the last word of the left and the first of the right: a cut may have halved it."""
MAX_SHARED = 64
"""Words that are compared on each side: ten in each second that may be shared. A loop may have
thousands there, and comparing them takes the square."""
ENOUGH = 3
"""So many words agree by chance only where they repeat; more of them prove no more."""


class _Heard(NamedTuple):
    word: Word
    avg_logprob: float | None


class Stitcher:
    """Joins hypotheses as they come.

    Args:
        max_overlap: seconds that two chunks may share. Words that close to the end of a chunk
            wait for the next one; the segments are the same however long they wait.
        min_pause: seconds without a word that end a segment.
        max_seconds: no segment is longer unless one word is; it is cut at its longest pause.
    """

    def __init__(
        self, max_overlap: float = 1.0, min_pause: float = 0.7, max_seconds: float = 15.0
    ) -> None:
        self._max_overlap = round(max_overlap * SAMPLE_RATE)
        self._min_pause = min_pause
        self._max_seconds = max_seconds
        self._previous: Chunk | None = None
        self._said: list[_Heard] = []  # settled, though the next chunk may hear them too
        self._pending: list[_Heard] = []
        self._is_open = False  # the previous chunk had words that an overlap may continue
        self._warnings: list[tuple[float, tuple[str, ...]]] = []  # by the start of their chunk
        self._n_segments = 0
        self._end = 0.0  # of the last word released

    @property
    def earliest(self) -> float:
        """No segment of the chunks so far that is still held back starts before this."""
        starts = [heard.word.start for heard in self._pending[:1]]
        starts += [max(start, self._end) for start, _ in self._warnings[:1]]
        return min(starts, default=math.inf)

    def push(self, chunk: Chunk, hypothesis: Hypothesis) -> list[Segment]:
        """Take the next chunk; return the segments that have become certain.

        A segment has the ``avg_logprob`` of the chunk that heard its first word. The warnings of
        a chunk are on its first segment; a chunk that has warnings and no words becomes a segment
        without text, so that they are not lost.

        Raises:
            ValueError: the chunk is out of order, its overlap is not what it shares with the one
                before or is more than allowed, or its text has no words.
        """
        self._check(chunk, hypothesis)
        earliest = self._said[0].word.start if self._said else self._end
        heard = _place(chunk, hypothesis, earliest)
        segments = []
        if chunk.overlap and heard and self._is_open:
            heard = self._continue(heard, chunk)
        else:
            segments = self.finish()
        self._said, self._pending, self._is_open = [], heard, bool(heard)
        self._previous = chunk
        if hypothesis.warnings:
            self._warnings.append((chunk.start, hypothesis.warnings))
        earliest = (chunk.end_sample - self._max_overlap) / SAMPLE_RATE  # of the next chunk
        return segments + self._release(earliest - _slack(self._pending, earliest))

    def settle(self, until: float) -> list[Segment]:
        """Return the words before `until` without waiting for the chunk that hears them too.

        They stay as they are: the next chunk goes on behind them, whatever it heard in their place.
        """
        n_said = bisect_left(self._pending, until, key=lambda heard: heard.word.midpoint)
        said, rest = self._pending[:n_said], self._pending[n_said:]
        self._pending = said
        segments = self.finish()
        self._said, self._pending = said, rest
        return segments

    def finish(self) -> list[Segment]:
        """End the recording, or begin anew after silence; return what was held back."""
        segments = self._release(math.inf)
        if self._warnings and self._previous:
            start = max(self._end, self._warnings[0][0])
            segments.append(self._segment([], start, self._previous.end))
        return segments

    def _check(self, chunk: Chunk, hypothesis: Hypothesis) -> None:
        name = f"chunk {chunk.index}"
        if hypothesis.chunk_index != chunk.index:
            raise ValueError(f"{name} came with the hypothesis of chunk {hypothesis.chunk_index}")
        if hypothesis.text.strip() and not hypothesis.words:
            raise ValueError(f"{name} has text but no words; an aligner must come first")
        last, shared = self._previous, 0
        if last is not None:
            if chunk.index <= last.index or chunk.start_sample < last.start_sample:
                raise ValueError(f"{name} came after chunk {last.index}")
            shared = max(0, last.end_sample - chunk.start_sample)
        if chunk.overlap != shared:
            raise ValueError(f"{name} shares {shared} samples, but its overlap is {chunk.overlap}")
        if shared > self._max_overlap:
            raise ValueError(f"{name} has overlap {shared}; {self._max_overlap} are allowed")

    def _continue(self, heard: list[_Heard], chunk: Chunk) -> list[_Heard]:
        """What is still to be said after the words that are settled."""
        left = self._said + self._pending
        if _is_timed(left, heard, chunk):
            unsaid = _unsaid(self._said, _merge(left, heard, chunk))
        else:
            ours, theirs = _merge_texts(left, heard, chunk, len(self._said))
            unsaid = _one_after_another(ours, theirs, self._end)
        return _in_order(unsaid, self._end)

    def _release(self, until: float) -> list[Segment]:
        """Take the segments of pending words that end by `until`, after which all may change."""
        n_certain = bisect_right(self._pending, until, key=lambda heard: heard.word.end)
        groups = _group(self._pending[:n_certain], self._min_pause, self._max_seconds)
        begun = [] if math.isinf(until) else groups.pop()
        self._pending = begun + self._pending[n_certain:]
        return [
            self._segment(group, group[0].word.start, group[-1].word.end)
            for group in groups
            if group
        ]

    def _segment(self, group: Sequence[_Heard], start: float, end: float) -> Segment:
        words = tuple(heard.word for heard in group)
        due = [warnings for chunk_start, warnings in self._warnings if chunk_start <= end]
        del self._warnings[: len(due)]
        segment = Segment(
            id=self._n_segments,
            start=start,
            end=end,
            text=" ".join(word.text for word in words),
            words=words,
            avg_logprob=group[0].avg_logprob if group else None,
            warnings=tuple(chain.from_iterable(due)),
        )
        self._n_segments += 1
        self._end = end if words else self._end
        return segment


def stitch(chunks: Iterable[Chunk], hypotheses: Iterable[Hypothesis]) -> tuple[Segment, ...]:
    """The segments of a whole recording."""
    pairs = list(zip(chunks, hypotheses, strict=True))
    stitcher = Stitcher(max((chunk.overlap for chunk, _ in pairs), default=0) / SAMPLE_RATE)
    segments = [segment for pair in pairs for segment in stitcher.push(*pair)]
    return tuple(segments + stitcher.finish())


def _place(chunk: Chunk, hypothesis: Hypothesis, earliest: float) -> list[_Heard]:
    """The words at their time in the recording, inside the chunk and not before `earliest`."""

    def clamp(seconds: float) -> float:
        return min(max(chunk.start + seconds, chunk.start, earliest), chunk.end)

    return _in_order(
        _Heard(replace(word, start=clamp(word.start), end=clamp(word.end)), hypothesis.avg_logprob)
        for word in hypothesis.words
    )


def _in_order(heard: Iterable[_Heard], earliest: float = 0.0) -> list[_Heard]:
    """Raise starts that run backwards, then end each word by the start of the next one."""
    ordered: list[_Heard] = []
    for word, avg_logprob in heard:
        start = max(word.start, ordered[-1].word.start if ordered else earliest)
        placed = replace(word, start=start, end=max(word.end, start))
        if ordered and ordered[-1].word.end > start:
            ordered[-1] = ordered[-1]._replace(word=replace(ordered[-1].word, end=start))
        ordered.append(_Heard(placed, avg_logprob))
    return ordered


def _merge(left: list[_Heard], right: list[_Heard], chunk: Chunk) -> list[_Heard]:
    """One copy of every word that two chunks heard, where `right` was heard in `chunk`.

    Both sides are most reliable away from their cut, so the seam is the word that both heard
    nearest to the middle of the overlap: up to it the left side holds, after it the right.
    """
    middle = (chunk.start_sample + chunk.overlap / 2) / SAMPLE_RATE
    end = (chunk.start_sample + chunk.overlap) / SAMPLE_RATE
    first, last = _after(left, chunk.start - MATCH_SECONDS), _before(right, end + MATCH_SECONDS)
    ours, theirs = left[first:], right[:last]

    def from_middle(pair: tuple[int, int]) -> float:
        i, j = pair
        return abs(ours[i].word.midpoint + theirs[j].word.midpoint - 2 * middle)

    if pairs := _same_words(ours, theirs):
        i, j = min(pairs, key=from_middle)
        shared = ours[: i + 1] + theirs[j + 1 :]
    else:
        shared = _one_at_a_time(ours, theirs, middle)
    return left[:first] + shared + right[last:]


def _after(heard: Sequence[_Heard], seconds: float) -> int:
    """Index of the first word that ends after `seconds`."""
    return bisect_right(heard, seconds, key=lambda it: it.word.end)


def _before(heard: Sequence[_Heard], seconds: float) -> int:
    """Index behind the last word that starts before `seconds`."""
    return bisect_left(heard, seconds, key=lambda it: it.word.start)


def _is_guess(heard: _Heard) -> bool:
    return heard.word.timing == "interpolated"


def _slack(left: Sequence[_Heard], start: float) -> float:
    """Seconds before `start` in which words may be that a chunk from there hears too.

    From words that are later in `left` it is no less: what is released is not merged any more.
    """
    near = left[_after(left, start - GUESSED_SECONDS) :]
    return GUESSED_SECONDS if any(map(_is_guess, near)) else MATCH_SECONDS


def _is_timed(left: Sequence[_Heard], right: Sequence[_Heard], chunk: Chunk) -> bool:
    """Whether no time about the overlap is a guess, or a word has the same time on both sides."""
    end = chunk.start + chunk.overlap / SAMPLE_RATE
    ours = left[_after(left, chunk.start - GUESSED_SECONDS) :]
    theirs = right[: _before(right, end + GUESSED_SECONDS)]
    if not any(map(_is_guess, chain(ours, theirs))):
        return True
    ours = ours[_after(ours, chunk.start - MATCH_SECONDS) :]
    theirs = theirs[: _before(theirs, end + MATCH_SECONDS)]
    pairs = _same_words(ours, theirs)
    return any(not _is_guess(ours[i]) and not _is_guess(theirs[j]) for i, j in pairs)


def _merge_texts(
    left: list[_Heard], right: list[_Heard], chunk: Chunk, n_said: int
) -> tuple[list[_Heard], list[_Heard]]:
    """What to keep of both sides where times are guesses, without the `n_said` first of the left.

    The seam is a word that both heard, behind those that are said, where the times differ least.
    Where the sides agree on nothing each keeps what it heard: rather a word twice than none.
    """
    end = chunk.start + chunk.overlap / SAMPLE_RATE
    first = max(_after(left, chunk.start - _slack(left, chunk.start)), len(left) - MAX_SHARED)
    theirs = right[: min(_before(right, end + GUESSED_SECONDS), MAX_SHARED)]
    if not any(map(_is_guess, theirs)):
        theirs = right[: min(_before(right, end + MATCH_SECONDS), MAX_SHARED)]
    pairs = [(first + i, j) for i, j in _same_texts(left[first:], theirs)]
    # a seam before the last word that is said would say what follows it again
    pairs = [(i, j) for i, j in pairs if i + 1 >= n_said] or pairs[-1:]
    if not pairs:
        return left[n_said:], right
    i, j = min(pairs, key=lambda pair: _apart(left[pair[0]], right[pair[1]]))
    return left[n_said : i + 1], right[j + 1 :]


def _same_texts(left: Sequence[_Heard], right: Sequence[_Heard]) -> Sequence[tuple[int, int]]:
    """Indexes of the words that both sides heard, if the end of the left is the begin of the right.

    The alignment by which reads of a genome are joined: words before it on the left and behind it
    on the right are free. Where several are possible ("no, no, no") times tell, bad as they are;
    they also have a say where words are skipped, which might be lost by a chance likeness.
    """
    texts = [_bare(heard.word.text) for heard in right]
    row: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())]
    for j in range(len(right)):
        row.append((row[-1][0] - (SKIPPED if j else HALF_HEARD), ()))
    for i, ours in enumerate(left):
        text = _bare(ours.word.text)
        above, row = row, [(0.0, ())]
        for j in range(len(right)):
            skip_ours = SKIPPED if i + 1 < len(left) else HALF_HEARD
            skip_theirs = SKIPPED if j else HALF_HEARD
            paths = [
                (above[j + 1][0] - skip_ours, above[j + 1][1]),
                (row[j][0] - skip_theirs, row[j][1]),
            ]
            if text == texts[j]:
                paths.append((above[j][0] + 1, (*above[j][1], (i, j))))
            row.append(max(paths))
    found: Sequence[tuple[int, int]] = ()
    best = -math.inf
    for gain, pairs in row:
        if not pairs or any(more > gain and it[: len(pairs)] == pairs for more, it in row):
            continue  # the same, continued, is better, however bad the times of what follows
        apart = sum(_apart(left[i], right[j]) for i, j in pairs) / len(pairs)
        worth = min(gain, ENOUGH) - apart
        if worth > best and (worth > 0 or gain == len(pairs)):
            found, best = pairs, worth
    return found


def _apart(a: _Heard, b: _Heard) -> float:
    return abs(a.word.midpoint - b.word.midpoint)


def _one_after_another(left: list[_Heard], right: list[_Heard], earliest: float) -> list[_Heard]:
    """All words; where guessed times cross, the words share what time there is from `earliest`."""
    end = max([earliest, *(heard.word.end for heard in left[-1:])])
    first, last = _after(left, right[0].word.start if right else end), _before(right, end)
    crossing = left[first:] + right[:last]
    if not last or not all(map(_is_guess, crossing)):
        return left + right  # `_in_order` moves only what must be
    begin = max(earliest, min(heard.word.start for heard in crossing))
    end = max(end, right[last - 1].word.end)
    edges = [begin + (end - begin) * i / len(crossing) for i in range(len(crossing))] + [end]
    spread = [
        heard._replace(word=replace(heard.word, start=start, end=stop))
        for heard, (start, stop) in zip(crossing, pairwise(edges), strict=True)
    ]
    return left[:first] + spread + right[last:]


def _unsaid(said: Sequence[_Heard], merged: Iterable[_Heard]) -> list[_Heard]:
    """The merged words without those said, and without the other reading of one that was said."""
    merged = list(merged)
    misheard = [it for it in said if it not in merged]
    return [
        it
        for it in merged
        if it not in said and not any(_same_time(it.word, other.word) for other in misheard)
    ]


def _same_words(left: Sequence[_Heard], right: Sequence[_Heard]) -> tuple[tuple[int, int], ...]:
    """Indexes of the words that both sides heard.

    An edit alignment in which a pair costs the distance of its midpoints: in "no, no, no" it
    takes all words together to tell which is which.
    """
    skip = MATCH_SECONDS / 2
    texts = [_bare(heard.word.text) for heard in right]
    row: list[tuple[float, tuple[tuple[int, int], ...]]]
    row = [(skip * j, ()) for j in range(len(right) + 1)]
    for i, ours in enumerate(left):
        text = _bare(ours.word.text)
        above, row = row, [(row[0][0] + skip, ())]
        for j, theirs in enumerate(right):
            paths = [(cost + skip, pairs) for cost, pairs in (above[j + 1], row[j])]
            distance = abs(ours.word.midpoint - theirs.word.midpoint)
            if text == texts[j] and distance <= MATCH_SECONDS:
                paths.append((above[j][0] + distance, (*above[j][1], (i, j))))
            row.append(min(paths))
    return row[-1][1]


def _bare(text: str) -> str:
    """The word without case and punctuation, unless it is nothing else."""
    letters = (sign for sign in text.casefold() if unicodedata.category(sign)[0] != "P")
    return "".join(letters) or text


def _one_at_a_time(left: Sequence[_Heard], right: Sequence[_Heard], middle: float) -> list[_Heard]:
    """The words of both sides where they agree on none.

    At times when both heard something, the left side holds before the middle and the right side
    after it. What only one side heard stays.
    """

    def is_among(heard: _Heard, others: Iterable[_Heard]) -> bool:
        return any(_same_time(heard.word, other.word) for other in others)

    ours = [it for it in left if it.word.midpoint < middle or not is_among(it, right)]
    theirs = [it for it in right if not is_among(it, ours)]
    return sorted(ours + theirs, key=lambda heard: heard.word.midpoint)


def _same_time(a: Word, b: Word) -> bool:
    return a.start <= b.midpoint <= a.end or b.start <= a.midpoint <= b.end


def _group(heard: Iterable[_Heard], min_pause: float, max_seconds: float) -> list[list[_Heard]]:
    """Words by segment; the last group may be empty, and may grow with more words."""
    groups: list[list[_Heard]] = [[]]
    for item in heard:
        if groups[-1] and item.word.start - groups[-1][-1].word.end >= min_pause:
            groups.append([])
        while groups[-1] and item.word.end - groups[-1][0].word.start > max_seconds:
            group = groups.pop()
            cut = _longest_pause([*group, item])
            groups += [group[:cut], group[cut:]]
        groups[-1].append(item)
        if ends_sentence(item.word.text):
            groups.append([])
    return groups


def _longest_pause(group: Sequence[_Heard]) -> int:
    """Index of the word after the longest pause, the last of equals."""
    pauses = [after.word.start - before.word.end for before, after in pairwise(group)]
    return max(range(len(pauses)), key=lambda i: (pauses[i], i)) + 1
