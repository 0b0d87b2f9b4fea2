"""Join the tokens of a model to the words of a hypothesis. Pure functions.

Models with a CTC or transducer head report when each token begins, but not when it ends. Models
with a text decoder, such as Whisper and Canary, report no times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

from asr.types import Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAST_TOKEN_SECONDS: Final = 0.3
"""Longest duration of the last token of a word, so that a word does not extend into a pause."""
SHORTEST_SECONDS: Final = 0.02
"""Shortest last word. A token in the last frame may begin where the audio ends, or later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer for one chunk.

    Attributes:
        text: the recognised text.
        tokens: the tokens of the text, or None if the model does not report them.
        starts: seconds at which the tokens begin, or None if the model does not report times.
        logprobs: natural logarithms of the tokens' probabilities, or None. Canary also reports
            those of control tokens, so there may be more than tokens.
    """

    text: str
    tokens: Sequence[str] | None = None
    starts: Sequence[float] | None = None
    logprobs: Sequence[float] | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Answer:
        """Read the message of a helper process."""
        return cls(**{name: message[name] for name in ("text", "tokens", "starts", "logprobs")})


def hypothesis(index: int, answer: Answer, duration: float) -> Hypothesis:
    """Return the hypothesis for a chunk of `duration` seconds.

    It has words if the model reports times, otherwise only text.
    """
    text = " ".join(answer.text.split())
    places = token_of_each_letter(text, answer.tokens or ())
    logprobs = _valid(answer.logprobs)
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    if places is None:
        return Hypothesis(index, text, avg_logprob=mean)
    sure = None
    if logprobs and len(logprobs) == len(answer.tokens or ()):
        sure = tuple(_confidence(word, answer.tokens or (), logprobs) for word in places)
    if answer.starts is None or len(answer.starts) != len(answer.tokens or ()):
        return Hypothesis(index, text, avg_logprob=mean, word_confidences=sure)
    words = _timed(text.split(), places, answer.starts, duration)
    if sure is not None:
        words = [Word(w.text, w.start, w.end, c) for w, c in zip(words, sure, strict=True)]
    return Hypothesis(index, text, tuple(words), mean)


def token_of_each_letter(text: str, tokens: Sequence[str]) -> list[list[int]] | None:
    """Return the index of the token of each letter, for each word of ``text.split()``.

    The library only removes white space when it joins tokens. If anything else differs, the tokens
    cannot be matched and None is returned.
    """
    letters = [(sign, i) for i, token in enumerate(tokens) for sign in token if not sign.isspace()]
    if [sign for sign, _ in letters] != [sign for sign in text if not sign.isspace()]:
        return None
    indexes = iter([i for _, i in letters])
    return [[next(indexes) for _ in word] for word in text.split()]


def _valid(logprobs: Sequence[float] | None) -> list[float]:
    """Return the logarithms, or nothing if they are not those of probabilities."""
    given = list(logprobs or ())
    # Some exported models report logits. Rounding may leave a probability slightly above 1.
    is_valid = all(math.isfinite(it) and it < 1e-3 for it in given)
    return [min(it, 0.0) for it in given] if is_valid else []


def _confidence(word: Sequence[int], tokens: Sequence[str], logprobs: Sequence[float]) -> float:
    """Return the geometric mean of the probabilities of a word's tokens.

    Tokens of only punctuation do not count unless the word has no others, so that an uncertain
    comma does not lower a word's confidence.
    """
    used = dict.fromkeys(word)
    spoken = [i for i in used if any(sign.isalnum() for sign in tokens[i])] or list(used)
    return round(math.exp(sum(logprobs[i] for i in spoken) / len(spoken)), 4)


def _timed(
    texts: Sequence[str], places: Sequence[Sequence[int]], starts: Sequence[float], duration: float
) -> list[Word]:
    """Return words in order and inside the chunk.

    A word ends where the next one begins, or `LAST_TOKEN_SECONDS` after its last token begins.
    """
    begins = _increasing([starts[word[0]] for word in places], duration)
    lasts = [starts[word[-1]] + LAST_TOKEN_SECONDS for word in places]
    words = []
    for i, text in enumerate(texts):
        following = begins[i + 1] if i + 1 < len(begins) else duration
        end = max(begins[i], min(following, lasts[i]))
        words.append(Word(text, begins[i], end))
    return words


def _increasing(begins: Sequence[float], duration: float) -> list[float]:
    """Return times inside the chunk, none before its predecessor.

    A transducer may emit several words in one frame. They share the time until the next word.
    """
    latest = max(0.0, duration - SHORTEST_SECONDS)
    sorted_ = [min(begin, latest) for begin in accumulate(begins, max, initial=0.0)][1:]
    runs = [(begin, len(list(same))) for begin, same in groupby(sorted_)]
    runs.append((duration, 0))
    spread: list[float] = []
    for (begin, n_words), (end, _) in pairwise(runs):
        step = min(end - begin, n_words * LAST_TOKEN_SECONDS) / n_words
        spread += [begin + k * step for k in range(n_words)]
    return spread
