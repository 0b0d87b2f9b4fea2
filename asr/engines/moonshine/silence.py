"""Rules against text where nobody speaks.

Moonshine almost never returns an empty text: it answers noise with "You" or "Thank you for
watching!" Its log probabilities tell most inventions from speech. `benchmarks.nonspeech` tuned the
numbers on one half of a generated set and measured them on the other half (docs/results.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.engines.moonshine.answer import Answer

MIN_LOGPROB: Final = -0.6
"""A text with a lower average is probably invented. The lowest of 36 chunks of clear speech has
-0.5; speech in noise as loud as itself is often below."""
MIN_SHORT_LOGPROB: Final = -0.9
MAX_SHORT_WORDS: Final = 4
"""A text of up to four words may have a lower average: one unclear sound weighs more in it."""
MIN_THANKS_LOGPROB: Final = -0.2
THANKS: Final = frozenset(
    {"bye", "oh my god", "thank you", "thank you for watching", "thanks for watching"}
)
"""What ends the videos of the training data. Moonshine often hears it in music."""
MIN_FILLER_LOGPROB: Final = -0.45
FILLERS: Final = frozenset(
    {"ah", "hey", "hmm", "mm", "mm-hmm", "oh", "okay", "so", "the", "uh", "um", "yeah", "you"}
)
"""Moonshine hears these words in noise. A text of nothing else needs a higher average."""
MIN_LOOP_WORDS: Final = 8
MAX_REPEATS: Final = 5
"""In a loop of at least eight words, each word occurs five times or more on average."""
LAST_LATIN: Final = 0x24F
"""The last letter of Unicode's Latin Extended-B. English needs none after it."""
_SIGNS: Final = frozenset("\u266a\u00a9")
"""Moonshine writes notes for music, and a copyright sign in front of invented names."""


def is_noise(answer: Answer) -> bool:
    """Whether the text is one of Moonshine's usual answers to sound without speech."""
    words = _bare(answer)
    if not words or _SIGNS & set(answer.text) or _is_loop(words) or _is_foreign(answer.text):
        return True
    # Where someone says one of these words, Moonshine writes a punctuation mark after it.
    return _is_usual(words) and answer.text[-1].isalpha()


def is_doubted(answer: Answer) -> bool:
    """Whether Moonshine is so unsure of the words that they are probably wrong."""
    return answer.avg_logprob < _lowest(_bare(answer))


def _bare(answer: Answer) -> list[str]:
    """The words in small letters without punctuation marks; without words of other scripts."""
    spelled = ("".join(filter(_is_spelling, it.lower())).strip("'-") for it in answer.words)
    return [it for it in spelled if it]


def _is_spelling(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter in "'-")


def _is_foreign(text: str) -> bool:
    """Whether it has a letter that is not Latin. Moonshine invents Thai and Chinese in music."""
    return any(ord(it) > LAST_LATIN and it.isalpha() for it in text)


def _is_loop(words: list[str]) -> bool:
    return len(words) >= MIN_LOOP_WORDS and len(words) >= MAX_REPEATS * len(set(words))


def _is_usual(words: list[str]) -> bool:
    return set(words) <= FILLERS or " ".join(words) in THANKS


def _lowest(words: list[str]) -> float:
    """The lowest average log probability at which a text counts as speech."""
    if " ".join(words) in THANKS:
        return MIN_THANKS_LOGPROB
    if set(words) <= FILLERS:
        return MIN_FILLER_LOGPROB
    return MIN_SHORT_LOGPROB if len(words) <= MAX_SHORT_WORDS else MIN_LOGPROB
