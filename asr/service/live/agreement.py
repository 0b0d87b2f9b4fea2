"""LocalAgreement: decide which words of a growing hypothesis are certain. Pure.

While someone speaks, the audio so far is recognised again and again. The last words of a hypothesis
are uncertain: the audio may end inside a word, and the context after it is missing. A word is
certain when successive hypotheses agree on all words up to it (Liu, Spanakis and Niehues, 2020).
Sent words are never taken back. If a later hypothesis differs from them, only the words after their
counterparts are new.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from asr.service.live.word_match import match_prefix
from asr.text.bare import bare
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSURE_WORDS: Final = 2
UNSURE_SECONDS: Final = 1.0
"""`UNSURE_WORDS` words are assumed to last at most `UNSURE_SECONDS`."""
MAX_DIFFERENT: Final = 2
"""An engine may recognise a word differently each time. So up to this many successive words may
differ between hypotheses, if the word after them is the same. They are sent as in the newest
hypothesis."""


class Agreed(NamedTuple):
    """Words that have become certain.

    Attributes:
        words: as in the newest hypothesis.
        before: the counterpart in the newest hypothesis of the last word that was sent, or "".
    """

    words: list[str]
    before: str = ""


class Agreement:
    """Finds the words on which successive hypotheses of a growing window agree.

    Args:
        n_hypotheses: how many successive hypotheses must agree.

    Attributes:
        seen: the words of the window that the client has.
    """

    def __init__(self, n_hypotheses: int = 2) -> None:
        self._recent: deque[tuple[list[str], int]] = deque(maxlen=n_hypotheses)
        self._n_hypotheses = n_hypotheses
        self._sent_until = 0
        self.seen: list[str] = []

    def add(self, hypothesis: str, end_sample: int) -> Agreed:
        """Add the newest hypothesis; return the words that are certain now.

        The caller appends the words that it sends to `seen`.

        Args:
            hypothesis: the text of the window.
            end_sample: the end of the window.
        """
        newest = hypothesis.split()
        self._recent.append((newest, end_sample))
        if len(self._recent) < self._n_hypotheses:
            return Agreed([])
        return self._new_words(newest[: min(_n_agreed(words, newest) for words, _ in self._recent)])

    def close(self, hypothesis: str) -> Agreed:
        """Add the hypothesis of a window that will not grow: all its words are certain."""
        return self._new_words(hypothesis.split())

    def _new_words(self, words: list[str]) -> Agreed:
        match = match_prefix(self.seen, words)
        last = match.counterparts[-1] if match.counterparts else None
        return Agreed(words[match.n_used :], "" if last is None else words[last])

    def sent_until(self) -> int:
        """Estimate the sample of the session up to which `seen` has all words.

        If `seen` lacks at most the last `UNSURE_WORDS` of the oldest hypothesis, it has all words
        up to `UNSURE_SECONDS` before the end of that window. Otherwise the estimate stays.
        """
        if len(self._recent) == self._n_hypotheses:
            words, end = self._recent[0]
            if len(words) - match_prefix(self.seen, words).n_used <= UNSURE_WORDS:
                self._sent_until = end - round(UNSURE_SECONDS * SAMPLE_RATE)
        return self._sent_until

    def restart(self, n_dropped: int) -> None:
        """Start a new window after the first `n_dropped` words of `seen`."""
        self.sent_until()  # updates the estimate, which needs the recent hypotheses
        del self.seen[:n_dropped]
        self._recent.clear()


def _n_agreed(older: Sequence[str], newest: Sequence[str]) -> int:
    """How many of the first words of `newest` agree with an older hypothesis.

    Up to `MAX_DIFFERENT` successive words may differ if the next word is equal.
    """
    ours, theirs = [bare(word) for word in older], [bare(word) for word in newest]
    n = j = _n_common(ours, theirs)
    i = j
    while (skipped := _next_equal(ours[i:], theirs[j:])) is not None:
        i, j = i + skipped[0], j + skipped[1]
        n_common = _n_common(ours[i:], theirs[j:])
        i, j = i + n_common, j + n_common
        n = j
    return n


def _next_equal(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, int] | None:
    """The indexes of the nearest equal words, or None if more than `MAX_DIFFERENT` words differ."""
    lengths = [(i, j) for i in range(MAX_DIFFERENT + 1) for j in range(MAX_DIFFERENT + 1)]
    for i, j in sorted(lengths, key=sum):
        if i < len(ours) and j < len(theirs) and ours[i] == theirs[j]:
            return i, j
    return None


def _n_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The length of the common prefix in words."""
    same = (a == b for a, b in zip(ours, theirs, strict=False))
    return sum(1 for _ in takewhile(bool, same))
