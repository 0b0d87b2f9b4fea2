"""Spell words in the labels of a CTC model, whether these are letters or pieces of words.

A letter that the model lacks is tried in the other case and without its accents ("É" as "E"). If
that fails too, it becomes a `STAR`, which matches any sound. Punctuation is not spelled, since it
has no sound, though some models have learned to write it.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.ctc.trellis import STAR, Symbols, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    Speak = Callable[[Sequence[str]], Sequence[Sequence[str]]]

WORD_START: Final = "\u2581"
"""SentencePiece's prefix of a piece that starts a word."""
WORDS_KEPT: Final = 1 << 16
LETTERS_KEPT: Final = 1 << 12
_APOSTROPHES: Final = dict.fromkeys(map(ord, "\u2019\u02bc\u02b9`\u00b4"), "'")
_DASHES: Final = re.compile(r"[-/\u2010-\u2015]+")
_SYMBOLS: Final = ("Sc", "Sm")
"""Unicode's categories of currency and mathematical signs, which are spoken."""


def as_written(tokens: Sequence[str]) -> list[list[str]]:
    """Take each token as its own spoken form, split at dashes."""
    return [_DASHES.split(token) for token in tokens]


def likeliest(
    tokens: Sequence[str], slots: Sequence[Sequence[Sequence[Sequence[str]]]]
) -> list[list[str]]:
    """Choose the likeliest spoken form of each token.

    A token keeps its written form if it has no reading, or has non-ASCII letters: the model may
    know these letters.

    Args:
        tokens: as written.
        slots: for each token its slots from `asr.text.spoken`; the first reading of each is the
            likeliest.
    """
    forms = []
    for token, written, readings in zip(tokens, as_written(tokens), slots, strict=True):
        said = [word.rstrip(".") for slot in readings for word in slot[0]]
        is_foreign = any(letter.isalpha() and not letter.isascii() for letter in token)
        forms.append(written if is_foreign or not said else said)
    return forms


@dataclass(frozen=True, slots=True)
class SpelledText:
    """The labels of a text.

    Attributes:
        target: all labels in order.
        word: index of the word that each label belongs to, shape (n_labels,). A word may have no
            labels.
    """

    target: Target
    word: np.ndarray


class Speller:
    """Spells words for one model.

    Args:
        letters: the characters that the model can write.
        encode: returns the labels of a word made of these letters.
        symbols: the labels of blank and delimiter.
        speak: gives the spoken words of each token: "$5" is "five", "dollars".
    """

    def __init__(
        self,
        letters: Collection[str],
        encode: Callable[[str], Sequence[int]],
        symbols: Symbols,
        speak: Speak = as_written,
    ) -> None:
        self.symbols = symbols
        self._letters = frozenset(letters)
        self._find = functools.lru_cache(LETTERS_KEPT)(self._look_up)
        self._encode = functools.lru_cache(WORDS_KEPT)(encode)
        self._speak = speak

    def spell(self, tokens: Sequence[str]) -> SpelledText:
        """Spell every token; a token without sound, such as a dash, gets no labels."""
        labels: list[int] = []
        word: list[int] = []
        opens: list[bool] = []
        for index, forms in enumerate(self._speak(tokens)):
            for spoken in forms:
                spelled = [label for run in self._runs(spoken) for label in run]
                labels += spelled
                word += [index] * len(spelled)
                opens += [place == 0 for place in range(len(spelled))]
        target = Target(np.array(labels, np.intp), np.array(opens, bool))
        return SpelledText(target, np.array(word, np.intp))

    def _runs(self, spoken: str) -> Iterator[Sequence[int]]:
        """Yield the labels of a word in runs: known letters, or one star for unknown ones."""
        found = [self._find(letter) for letter in spoken.translate(_APOSTROPHES)]
        audible = [text for text in found if text != ""]
        for is_known, run in itertools.groupby(audible, lambda text: text is not None):
            text = "".join(letters or "" for letters in run).strip("'")
            if not is_known:
                yield (STAR,)
            elif text:
                yield self._encode(text) or (STAR,)

    def _look_up(self, letter: str) -> str | None:
        """Find how the model writes a letter.

        Returns:
            "" if the letter has no sound, None if the model cannot write it.
        """
        bare = "".join(c for c in unicodedata.normalize("NFKD", letter) if not _is_mark(c))
        forms = (letter, letter.lower(), letter.upper(), bare, bare.lower(), bare.upper())
        category = unicodedata.category(letter)
        if letter != "'" and category[0] not in "LMN" and category not in _SYMBOLS:
            return ""
        for form in forms:
            if form and self._letters.issuperset(form):
                return form
        return "" if letter == "'" or _is_mark(letter) else None


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "M"


def make_speller(
    vocabulary: Mapping[str, int],
    special: Collection[str],
    symbols: Symbols,
    encode: Callable[[str], Sequence[int]],
    speak: Speak = as_written,
) -> Speller:
    """Make the speller of a tokenizer.

    Args:
        vocabulary: its tokens and their labels.
        special: tokens that are not text, such as ``<pad>``.
        symbols: the labels of blank and delimiter.
        encode: splits a word into pieces; used only if the vocabulary has pieces of words.
        speak: gives the spoken words of each token.
    """
    marks = {symbols.blank, symbols.delimiter}
    tokens = {
        token: label
        for token, label in vocabulary.items()
        if token not in special and label not in marks
    }
    letters = {letter for token in tokens for letter in token} - {WORD_START, " ", "<", ">"}
    if any(token.startswith(WORD_START) for token in tokens):
        return Speller(letters, encode, symbols, speak)
    singles = {token: label for token, label in tokens.items() if len(token) == 1}
    return Speller(singles, lambda text: [singles[c] for c in text], symbols, speak)
