"""Which letters of a text were recognised, and which recognised letters are in the text.

A recogniser spells names and separates words in its own way: "in crease" for "increase", "42" for
"forty-two". So the letters are compared as they are probably read aloud. Between the passages in
which both sides have the same words, the letters are aligned by dynamic programming.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.anchors import find_anchors
from asr.text.spoken import UNREADABLE, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.align.anchors import Anchor
    from asr.types import Word

Share = tuple[int, int]
"""How many letters of a word the other side has too, and how many letters the word has."""
MAX_CELLS: Final = 4_000_000
"""Largest table of dynamic programming. In a larger stretch without anchors nothing matches."""
NEAR_WORDS: Final = 4
"""Largest distance between the places at which neighbouring words were heard."""
MAX_STRETCH: Final = 1.5
"""The letters of a word match if they lie in at most this many times as many letters, plus one."""
_DIFFERENT: Final = -1.0
_GAP: Final = -0.7
"""Scores of two different letters, and of a letter that one side lacks; two equal ones have 1."""


def shares(tokens: Sequence[str], heard: Sequence[Word]) -> tuple[list[Share], list[Share]]:
    """Compare the tokens of a text with recognised words; return the share of each word of both."""
    ours, theirs = letters_of(tokens), letters_of([word.text for word in heard])
    counts = _counts(ours, theirs, find_anchors(tokens, heard))
    left, right = [0] * len(ours), [0] * len(theirs)
    for token, found in _near_others(counts, len(ours), len(theirs)):
        for word, n in found.items():
            left[token] += n
            right[word] += n
    return _paired(left, ours), _paired(right, theirs)


def _paired(found: Sequence[int], words: Sequence[str]) -> list[Share]:
    return [(min(n, len(word)), len(word)) for n, word in zip(found, words, strict=True)]


def _counts(
    ours: Sequence[str], theirs: Sequence[str], anchors: Sequence[Anchor]
) -> dict[int, Counter[int]]:
    """Count for each token the letters that it shares with each recognised word."""
    counts: dict[int, Counter[int]] = {}
    begin = begin_heard = 0
    for token, first, last in [*anchors, (len(ours), len(theirs), len(theirs))]:
        for a, b in _in_stretch(ours[begin:token], theirs[begin_heard:first]):
            counts.setdefault(begin + a, Counter())[begin_heard + b] += 1
        if token < len(ours):
            counts[token] = Counter({word: len(theirs[word]) for word in range(first, last + 1)})
        begin, begin_heard = token + 1, last + 1
    return counts


def _near_others(
    counts: dict[int, Counter[int]], n_tokens: int, n_heard: int
) -> Iterator[tuple[int, Counter[int]]]:
    """Yield the tokens whose neighbours were heard near them; others were found by chance.

    The start and the end of the text count as neighbours, too.
    """
    places = {token: found.most_common(1)[0][0] for token, found in counts.items()}
    places |= {-1: -1, n_tokens: n_heard}
    for token, found in counts.items():
        here = places[token]
        near = (places.get(token + step) for step in (-2, -1, 1, 2))
        is_near = any(place is not None and abs(place - here) <= NEAR_WORDS for place in near)
        if is_near and max(found) - min(found) <= NEAR_WORDS:
            yield token, found


def letters_of(texts: Sequence[str]) -> list[str]:
    """The letters of each text as it is probably read aloud: those of "42" are "fortytwo"."""
    return [
        "".join(sign for sign in unicodedata.normalize("NFKD", said).casefold() if sign.isalnum())
        for said in map(_likeliest, texts, spoken(texts, ()))
    ]


def _likeliest(text: str, slots: tuple[tuple[tuple[str, ...], ...], ...]) -> str:
    if slots is UNREADABLE or not any(sign.isdigit() for sign in text):
        return text
    return "".join(word for slot in slots for word in slot[0])


def _in_stretch(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Align the letters of two stretches of words; return the words of each pair of letters.

    Letters of a word that are scattered over a longer stretch match by chance, and are dropped.
    """
    owners = [place for place, word in enumerate(ours) for _ in word]
    others = [place for place, word in enumerate(theirs) for _ in word]
    pairs = align_letters("".join(ours), "".join(theirs))
    found = []
    for place, group in groupby(pairs, key=lambda pair: owners[pair[0]]):
        inside = [j for _, j in group]
        if inside[-1] - inside[0] < MAX_STRETCH * len(ours[place]) + 1:
            found += [(place, others[j]) for j in inside]
    return found


def align_letters(left: str, right: str) -> list[tuple[int, int]]:
    """The pairs of equal letters on the best path of an edit alignment, as indexes."""
    if not left or not right or len(left) * len(right) > MAX_CELLS:
        return []
    rows, columns = (np.frombuffer(it.encode("utf-32-le"), np.uint32) for it in (left, right))
    steps = _GAP * np.arange(len(right) + 1)
    table = np.empty((len(left) + 1, len(right) + 1), np.float32)
    table[0] = steps
    for i, letter in enumerate(rows):
        score = np.where(columns == letter, 1.0, _DIFFERENT)
        row = np.concatenate(([table[i, 0] + _GAP], table[i, :-1] + score))
        row[1:] = np.maximum(row[1:], table[i, 1:] + _GAP)
        table[i + 1] = np.maximum.accumulate(row - steps) + steps
    return _trace(left, right, table)


def _trace(left: str, right: str, table: np.ndarray) -> list[tuple[int, int]]:
    pairs = []
    i, j = len(left), len(right)
    while i and j:
        is_equal = left[i - 1] == right[j - 1]
        score = 1.0 if is_equal else _DIFFERENT
        if abs(table[i, j] - table[i - 1, j - 1] - score) < 1e-2:
            i, j = i - 1, j - 1
            if is_equal:
                pairs.append((i, j))
        elif abs(table[i, j] - table[i - 1, j] - _GAP) < 1e-2:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
