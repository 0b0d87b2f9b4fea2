"""How Omni's tokens are sampled, and how to read its answer. Pure functions.

Thinking is off in every request. The sampling is the model card's instruct mode.
`asr.engines.omni.instruction` has the text that the model gets.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from asr.engines.base import Capabilities, Scrubbed
from asr.engines.omni.scrub import sayable, spoken
from asr.types import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.config import DecodeOptions
    from asr.engines.omni.scrub import Draft

GREEDY_UP_TO: Final = 0.2
"""Up to this temperature the likeliest token is taken. The model card asks for a temperature of 0.2
with a top_k of 1, which is the same. But then vLLM's sampler sorts 131,072 logits for each token,
which took 2.1 of 12 ms of each step on an H200, and with a temperature of 0 it only looks for the
largest (benchmarks/gpu/README.md)."""
RETRY_TEMPERATURE: Final = 0.7
CAPABILITIES: Final = Capabilities(
    languages=("en",), detects_language=True, prompt=True, keywords=True, temperature=True
)
RETRY_NOTE: Final = "a second attempt at a higher temperature"
TOP_K: Final = 1
TOP_K_ABOVE: Final = 20
"""top_k for temperatures above `GREEDY_UP_TO`."""
TOKENS_BASE: Final = 32
TOKENS_PER_SECOND: Final = 12
"""Fast speech is 5 words a second, at about 1.4 tokens each; the rest is headroom."""
ABORTED: Final = frozenset({"abort", "cancelled", "error"})
"""finish_reason of an incomplete answer. vLLM aborts its requests when it shuts down, and may
return the text so far, which is not a transcript."""
_HALF_CHARACTER: Final = re.compile(r"[\ud800-\udfff]")
"""JSON may escape half a surrogate pair. It has no UTF-8 form, so no format could write it."""


class Sampling(NamedTuple):
    """How tokens are sampled, and the largest number of them."""

    temperature: float
    top_k: int
    max_tokens: int


class Token(NamedTuple):
    """A token of an answer: its bytes, and the natural logarithm of its probability."""

    data: bytes
    logprob: float


def sampling(options: DecodeOptions, seconds: float) -> Sampling:
    """Return the sampling for a chunk of `seconds`."""
    temperature = options.temperature or 0.0
    is_greedy = temperature <= GREEDY_UP_TO
    drawn = (0.0, TOP_K) if is_greedy else (temperature, TOP_K_ABOVE)
    return Sampling(*drawn, TOKENS_BASE + round(TOKENS_PER_SECOND * seconds))


def warmer(options: DecodeOptions) -> DecodeOptions:
    """Options for a second attempt: a higher temperature breaks most loops."""
    raised = min(1.0, (options.temperature or 0.0) + 0.2)
    return replace(options, temperature=max(RETRY_TEMPERATURE, raised))


def hypothesis(
    chunk_index: int, answer: str, tokens: Sequence[Token] = (), *, is_cut: bool = False
) -> Hypothesis:
    """Return the transcript in an answer. Its line breaks stay: a guard checks how lines begin.

    Words that were removed although somebody may have said them are kept in a `Scrubbed`.

    Args:
        chunk_index: index of the chunk.
        answer: the content of the message, with or without thinking.
        tokens: all generated tokens in order; they may include more than `answer`.
        is_cut: whether the answer ended at its token limit.
    """
    draft = spoken(answer)
    heard = _hypothesis(chunk_index, answer, draft, tokens, is_cut=is_cut)
    if len(draft.text.split()) == len(answer.split()):
        return heard
    more = sayable(answer)
    left = frozenset(draft.places)
    is_kept = tuple(not left.isdisjoint(word) for word in _words(more))
    if all(is_kept):
        return heard
    uncut = _hypothesis(chunk_index, answer, more, tokens, is_cut=is_cut)
    return Scrubbed.of(heard, uncut, is_kept)


def _hypothesis(
    chunk_index: int, answer: str, draft: Draft, tokens: Sequence[Token], *, is_cut: bool
) -> Hypothesis:
    lines = (" ".join(line.split()) for line in draft.text.splitlines())
    confidence = _confidences(answer, draft, tokens)
    return Hypothesis(
        chunk_index,
        _HALF_CHARACTER.sub("\ufffd", "\n".join(line for line in lines if line)),
        avg_logprob=confidence.avg_logprob if confidence else None,
        word_confidences=confidence.words if confidence else None,
        is_cut=is_cut,
    )


@dataclass(frozen=True, slots=True)
class _Confidences:
    avg_logprob: float
    words: tuple[float, ...]


def _confidences(answer: str, draft: Draft, tokens: Sequence[Token]) -> _Confidences | None:
    """Return the confidence of each word, or None if the tokens do not match the answer.

    A word's confidence is the geometric mean of the probabilities of its tokens. It comes from a
    language model, not from acoustics, and is not calibrated. Tokens of only punctuation do not
    count, so that an uncertain comma does not lower a word's confidence.
    """
    owners = _token_of_each_byte(answer, tokens)
    words = _words(draft)
    if owners is None or not words:
        return None
    offsets = _byte_offsets(answer)
    used = [
        sorted({owners[byte] for place in word for byte in range(*offsets[place : place + 2])})
        for word in words
    ]
    everything = sorted({index for indexes in used for index in indexes})
    logprobs = [min(tokens[index].logprob, 0.0) for index in everything]
    if not all(map(math.isfinite, logprobs)):
        return None
    of = dict(zip(everything, logprobs, strict=True))
    confidences = (math.exp(sum(of[i] for i in word) / len(word)) for word in used)
    return _Confidences(sum(logprobs) / len(logprobs), tuple(round(it, 4) for it in confidences))


def _words(draft: Draft) -> list[list[int]]:
    """Return the places of each word's letters and digits; of all its characters if it has none."""
    words: list[list[tuple[str, int]]] = [[]]
    for sign, place in zip(draft.text, draft.places, strict=True):
        if sign.isspace():
            words.append([])
        else:
            words[-1].append((sign, place))
    return [
        [place for sign, place in word if sign.isalnum()] or [place for _, place in word]
        for word in words
        if word
    ]


def _byte_offsets(text: str) -> list[int]:
    """Return the UTF-8 offset of each character, and the total length."""
    offsets = [0]
    for sign in text:
        offsets.append(offsets[-1] + len(sign.encode(errors="surrogatepass")))
    return offsets


def _token_of_each_byte(answer: str, tokens: Sequence[Token]) -> list[int] | None:
    """Return the token index of each byte of the answer, or None if the tokens differ from it.

    The tokens may include thinking before the answer and an end token after it.
    """
    written = b"".join(token.data for token in tokens)
    begin = written.rfind(answer.encode(errors="surrogatepass"))
    if not answer or begin < 0:
        return None
    owners = [index for index, token in enumerate(tokens) for _ in token.data]
    return owners[begin:]
