"""LocalAgreement: which words of hypotheses that still change can be sent. Pure.

While someone keeps talking, the audio so far is recognised again and again. The last words of a
hypothesis are uncertain, because the audio may end inside a word and the context after it is
missing. A word counts as certain when successive hypotheses begin with the same words up to it
(Liu, Spanakis and Niehues, 2020). Words that were sent are never taken back: where a later
hypothesis differs, only the words after the sent ones are new.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from asr.service.live.word_match import bare, match_prefix
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSURE_WORDS: Final = 2
UNSURE_SECONDS: Final = 1.0
"""At most so many words at the end of a hypothesis are said in so many seconds."""

ISLAND_WORDS: Final = 2
"""An engine may hear a word differently each time. So that it does not hold up the words after it,
up to so many words may differ if the word after them is the same again. The newest spelling
counts."""


class Agreed(NamedTuple):
    """Words that are certain now and were not before.

    Attributes:
        words: in the spelling of the newest hypothesis.
        before: the newest spelling of the word before them, or "".
    """

    words: list[str]
    before: str = ""


class Agreement:
    """Finds the words on which hypotheses of the same audio agree, up to its growing end.

    Args:
        n_hypotheses: how many successive hypotheses must agree.

    Attributes:
        seen: the words that the client has, from the start of the window.
    """

    def __init__(self, n_hypotheses: int = 2) -> None:
        self._recent: deque[tuple[list[str], int]] = deque(maxlen=n_hypotheses)
        self._n_hypotheses = n_hypotheses
        self._sent_until = 0
        self.seen: list[str] = []

    def add(self, hypothesis: str, end_sample: int) -> Agreed:
        """Take the next hypothesis. The caller appends to `seen` the words that it sends.

        Args:
            hypothesis: of the window.
            end_sample: the end of the window.
        """
        newest = hypothesis.split()
        self._recent.append((newest, end_sample))
        if len(self._recent) < self._n_hypotheses:
            return Agreed([])
        return self._unseen(newest[: min(_n_agreed(words, newest) for words, _ in self._recent)])

    def close(self, hypothesis: str) -> Agreed:
        """Take the hypothesis of audio that will not grow: all its words are certain."""
        return self._unseen(hypothesis.split())

    def _unseen(self, words: list[str]) -> Agreed:
        match = match_prefix(self.seen, words)
        last = match.counterparts[-1] if match.counterparts else None
        return Agreed(words[match.n_used :], "" if last is None else words[last])

    def sent_until(self) -> int:
        """A sample of the session before which no word is missing in `seen`.

        It is estimated: few words at the end of the oldest hypothesis are missing.
        """
        if len(self._recent) == self._n_hypotheses:
            words, end = self._recent[0]
            if len(words) - match_prefix(self.seen, words).n_used <= UNSURE_WORDS:
                self._sent_until = end - round(UNSURE_SECONDS * SAMPLE_RATE)
        return self._sent_until

    def restart(self, n_dropped: int) -> None:
        """The window starts later now, after `n_dropped` of the words in `seen`."""
        self.sent_until()
        del self.seen[:n_dropped]
        self._recent.clear()


def _n_agreed(older: Sequence[str], newest: Sequence[str]) -> int:
    """With how many words of `newest` a hypothesis agrees, apart from islands of other words."""
    ours, theirs = [bare(word) for word in older], [bare(word) for word in newest]
    n = j = _n_common(ours, theirs)
    i = j
    while (island := _next_island(ours[i:], theirs[j:])) is not None:
        i, j = i + island[0], j + island[1]
        n_common = _n_common(ours[i:], theirs[j:])
        i, j = i + n_common, j + n_common
        n = j
    return n


def _next_island(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, int] | None:
    """The lengths of the shortest island at the beginning of both sides, or None."""
    lengths = [(i, j) for i in range(ISLAND_WORDS + 1) for j in range(ISLAND_WORDS + 1)]
    for i, j in sorted(lengths, key=sum):
        if i < len(ours) and j < len(theirs) and ours[i] == theirs[j]:
            return i, j
    return None


def _n_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The number of words with which both begin."""
    same = (a == b for a, b in zip(ours, theirs, strict=False))
    return sum(1 for _ in takewhile(bool, same))
