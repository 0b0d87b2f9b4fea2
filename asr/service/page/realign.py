"""Times for a line that was rewritten.

Words that did not change keep their times exactly. So do words in which only upper case or
punctuation changed. Each run of changed words lies between two words that stayed, and is aligned
on the audio between them.
"""

from __future__ import annotations

import itertools
import unicodedata
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.spacing import tokens_in
from asr.text.spread import spread_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.types import Word

MAX_RUN_SECONDS: Final = 60.0
"""A longer run is spread over its span."""
MIN_RUN_SECONDS: Final = 0.05
"""The aligner needs some frames."""
MAX_WORDS: Final = 2000
"""In a line, before and after the change. Comparing takes time in proportion to the square."""


class Align(Protocol):
    """Aligns words with the audio between two times in seconds."""

    async def __call__(
        self, start: float, end: float, texts: Sequence[str], /
    ) -> Sequence[Word] | None:
        """One word for each text, with times of the recording; None if that is impossible."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was.

    Attributes:
        words: as the page sent them, each with ``word``, ``start`` and ``end``, in order.
        start: seconds.
        end: seconds.
    """

    words: Sequence[dict[str, Any]]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Run:
    """Words of the new text between two words that stayed.

    Attributes:
        first: the first of them, in the new text.
        last: the word after them.
        start: the end of the word before them.
        end: the start of the word after them.
    """

    first: int
    last: int
    start: float
    end: float


async def realign(line: Line, text: str, align: Align) -> list[dict[str, Any]]:
    """The words of a new text with their times.

    Args:
        line: as it was.
        text: as it is now.
        align: gives the changed words their times.
    """
    tokens = tokens_of(line, text)
    kept = stayed(line, tokens)
    words: list[dict[str, Any] | None] = [None] * len(tokens)
    for place, old in kept.items():
        words[place] = {**line.words[old], "word": tokens[place]}
    for run in runs(line, kept, len(tokens)):
        words[run.first : run.last] = await _timed(run, tokens[run.first : run.last], align)
    return [word for word in words if word is not None]


def tokens_of(line: Line, text: str) -> list[str]:
    """The words of a text. Those of unspaced scripts are characters, if the line had such words."""
    were_split = any(len(tokens_in(word["word"])) > 1 for word in line.words)
    return text.split() if were_split else tokens_in(text)


def stayed(line: Line, tokens: Sequence[str]) -> dict[int, int]:
    """For each word of the new text that stayed, the old word."""
    old = [_letters(word["word"]) for word in line.words]
    matcher = SequenceMatcher(None, old, [_letters(token) for token in tokens], autojunk=False)
    return {
        block.b + offset: block.a + offset
        for block in matcher.get_matching_blocks()
        for offset in range(block.size)
    }


def _letters(text: str) -> str:
    """A word without upper case and punctuation, or as it is if it has nothing else."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(it for it in plain if it.isalnum()) or text


def runs(line: Line, kept: dict[int, int], n_tokens: int) -> list[Run]:
    """The runs of words that are new, in order."""
    found = []
    bounds = [-1, *sorted(kept), n_tokens]
    for left, right in itertools.pairwise(bounds):
        if right - left < 2:
            continue
        start = float(line.words[kept[left]]["end"]) if left >= 0 else line.start
        end = float(line.words[kept[right]]["start"]) if right < n_tokens else line.end
        found.append(Run(left + 1, right, start, max(start, end)))
    return found


async def _timed(run: Run, texts: Sequence[str], align: Align) -> list[dict[str, Any]]:
    found: Sequence[Word] | None = None
    if MIN_RUN_SECONDS <= run.end - run.start <= MAX_RUN_SECONDS:
        found = await align(run.start, run.end, texts)
    if found is None or len(found) != len(texts):
        found = spread_words(texts, run.start, run.end)
    last = run.start
    words = []
    for word in found:
        start = min(max(round(word.start, 3), last), run.end)
        end = min(max(round(word.end, 3), start), run.end)
        words.append(_body(replace(word, start=start, end=end)))
        last = start
    return words


def _body(word: Word) -> dict[str, Any]:
    """A word that a person has written: nobody doubts it."""
    return {
        "word": word.text,
        "start": word.start,
        "end": word.end,
        "confidence": None if word.confidence is None else round(word.confidence, 3),
        "timing": word.timing,
        "doubtful": False,
    }
