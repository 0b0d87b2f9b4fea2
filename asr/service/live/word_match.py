"""Align words that were sent with a prefix of a later hypothesis. Pure functions.

Compared with the words that the client has, a later hypothesis may have substitutions, insertions
and deletions. `match_prefix` finds the first word of the hypothesis that is new to the client. It
is a semi-global edit alignment: all sent words are aligned with the best prefix of the hypothesis,
and the words after that prefix cost nothing. Two other modules align words: `asr.align.anchors`
aligns two whole texts, and `asr.pipeline.overlap` aligns a suffix with a prefix.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from asr.text.bare import bare

if TYPE_CHECKING:
    from collections.abc import Sequence

SIMILAR: Final = 0.4
"""A substitution costs 1, and up to this much less if both words begin with the same letters."""
MISSING: Final = 1.25
"""Cost of a sent word without a counterpart. It is a little more than a substitution: hypotheses
spell a word differently more often than they lose it, and a lost word would be sent twice."""
BLOCK: Final = 64
"""Longer texts are aligned in blocks of this many sent words. The cost of a block is quadratic."""
KEPT: Final = 32
"""Only the first words of a block keep their alignment. The others are aligned again in the next
block, where the words after them are known."""
MARGIN: Final = 32
"""A block of sent words is aligned with up to this many more words of the hypothesis."""

_SKIP_SENT, _SKIP_NEW, _PAIR = range(3)


class Match(NamedTuple):
    """The alignment of the sent words with a prefix of the hypothesis.

    Attributes:
        counterparts: for each sent word, the index of its counterpart in the hypothesis, or None.
            The indexes increase.
        n_used: the length of the prefix in words.
    """

    counterparts: tuple[int | None, ...]
    n_used: int


def match_prefix(sent: Sequence[str], words: Sequence[str]) -> Match:
    """Align all sent words with the best prefix of `words`. Case and punctuation do not count.

    If several prefixes are equally good, the longest is taken.
    """
    ours, theirs = [bare(word) for word in sent], [bare(word) for word in words]
    counterparts: list[int | None] = []
    n_used = 0
    while len(ours) - len(counterparts) > BLOCK:
        first = len(counterparts)
        ahead = theirs[n_used : n_used + BLOCK + MARGIN]
        block = _match_block(ours[first : first + BLOCK], ahead)
        kept = block.counterparts[:KEPT]
        counterparts += [None if j is None else n_used + j for j in kept]
        n_used += max((j + 1 for j in kept if j is not None), default=0)
    rest = ours[len(counterparts) :]
    last = _match_block(rest, theirs[n_used : n_used + len(rest) + MARGIN])
    counterparts += [None if j is None else n_used + j for j in last.counterparts]
    return Match(tuple(counterparts), n_used + last.n_used)


def _match_block(sent: Sequence[str], words: Sequence[str]) -> Match:
    row = [float(j) for j in range(len(words) + 1)]
    steps = [[_SKIP_NEW] * (len(words) + 1)]
    for ours in sent:
        above, row, step = row, [row[0] + MISSING], [_SKIP_SENT]
        for j, theirs in enumerate(words):
            cost, how = min(
                (above[j] + _difference(ours, theirs), -_PAIR),
                (row[j] + 1, -_SKIP_NEW),
                (above[j + 1] + MISSING, -_SKIP_SENT),
            )
            row.append(cost)
            step.append(-how)
        steps.append(step)
    n_used = max(range(len(row)), key=lambda j: (-row[j], j))
    return Match(_trace(steps, len(sent), n_used), n_used)


def _difference(a: str, b: str) -> float:
    if a == b:
        return 0.0
    n_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    return 1.0 - SIMILAR * n_common / max(len(a), len(b))


def _trace(steps: Sequence[Sequence[int]], i: int, j: int) -> tuple[int | None, ...]:
    found: list[int | None] = []
    while i:
        step = steps[i][j]
        if step == _SKIP_NEW:
            j -= 1
            continue
        i -= 1
        j -= step == _PAIR
        found.append(j if step == _PAIR else None)
    return tuple(reversed(found))
