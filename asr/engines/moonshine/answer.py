"""Join the decoder's tokens to words with confidences."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.engines.moonshine.model import Decoded
    from asr.engines.moonshine.tokens import Tokenizer

_COMMAS: Final = re.compile(r",{2,}")
"""Moonshine sometimes repeats the comma before audio that ends there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of one chunk.

    Attributes:
        words: the text, split at white space.
        confidences: one for each word, 0 to 1.
        avg_logprob: mean natural log probability of the tokens, with the end token.
        is_cut: whether decoding stopped at the limit of tokens.
    """

    words: tuple[str, ...]
    confidences: tuple[float, ...]
    avg_logprob: float
    is_cut: bool

    @property
    def text(self) -> str:
        """The words in one line."""
        return " ".join(self.words)


def read_answer(decoded: Decoded, tokenizer: Tokenizer) -> Answer:
    """Join tokens to words.

    The confidence of a word is the probability of its least probable token. It needs no mapping,
    because it is calibrated well enough (docs/results.md, "Confidence of Moonshine").
    """
    spelled: list[tuple[bytes, float]] = []
    # The end token has a log probability but no text.
    for token, logprob in zip(decoded.tokens, decoded.logprobs, strict=False):
        piece = tokenizer.piece(token)
        if piece.startswith(b" ") or not spelled:
            spelled.append((piece, logprob))
        else:
            bytes_, lowest = spelled[-1]
            spelled[-1] = (bytes_ + piece, min(lowest, logprob))
    heard = [
        (_COMMAS.sub(",", word), math.exp(lowest))
        for bytes_, lowest in spelled
        for word in bytes_.decode("utf-8", "replace").split()
    ]
    logprobs = decoded.logprobs
    return Answer(
        words=tuple(word for word, _ in heard),
        confidences=tuple(confidence for _, confidence in heard),
        avg_logprob=sum(logprobs) / len(logprobs),
        is_cut=decoded.is_cut,
    )
