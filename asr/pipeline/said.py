"""Which words of an answer the aligner heard, and the answer with some of its words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.types import Hypothesis, Word

HEARD: Final = 0.5
"""The aligner hears a word with at least this confidence."""


def was_said(words: Sequence[Word], everything: Sequence[Word]) -> bool | None:
    """Whether the aligner heard most of the words; None if it aligned no word of the answer.

    A word that the aligner skipped has an interpolated time, and was not heard.

    Args:
        words: a part of the answer.
        everything: all words of the answer.
    """
    if not any(is_measured(word) for word in everything):
        return None
    readable = [word for word in words if any(map(str.isalnum, word.text))]
    return 2 * sum(map(is_heard, readable)) >= len(readable)


def are_heard(words: Sequence[Word], timed: Hypothesis) -> bool:
    """Whether the aligner heard most of the words, and at least one."""
    return any(map(is_heard, words)) and bool(was_said(words, timed.words))


def is_heard(word: Word) -> bool:
    """Whether the aligner found the word in the audio."""
    return is_measured(word) and (word.confidence or 0) >= HEARD


def is_measured(word: Word) -> bool:
    """Whether the aligner placed the word, and did not skip it."""
    return word.timing == "aligned" and word.confidence is not None


def words_of(timed: Hypothesis, start: int, stop: int) -> Sequence[Word]:
    """Return the words of text[start:stop], which starts and ends between words."""
    first = len(timed.text[:start].split())
    return timed.words[first : first + len(timed.text[start:stop].split())]


def part(heard: Hypothesis, text: str, first: int, last: int | None = None) -> Hypothesis:
    """Return the hypothesis with the words [first, last). Words with times keep them.

    Args:
        heard: the answer.
        text: the text of these words, perhaps without the quotes around them.
        first: index of the first word.
        last: index after the last word.
    """
    texts, words, sure = text.split(), heard.words[first:last], heard.word_confidences
    is_same = len(words) == len(texts)  # a quote between spaces is a word of its own
    words = tuple(map(_renamed, words, texts)) if is_same else ()
    sure = None if sure is None else sure[first:last]
    sure = sure if sure and len(sure) == len(texts) else None
    return replace(heard, text=text, words=words, word_confidences=sure)


def with_words(heard: Hypothesis, text: str, kept: Sequence[int]) -> Hypothesis:
    """Return the hypothesis with the words at the indexes `kept`, which make the text."""
    words = tuple(map(_renamed, (heard.words[index] for index in kept), text.split()))
    sure = heard.word_confidences
    sure = None if sure is None else tuple(sure[index] for index in kept)
    return replace(heard, text=text, words=words, word_confidences=sure)


def _renamed(word: Word, text: str) -> Word:
    return word if word.text == text else replace(word, text=text)
