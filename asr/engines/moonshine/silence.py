"""Rules that find text which Moonshine invented for sound without speech.

Moonshine almost never returns an empty text: it answers noise with "You" or "Thank you for
watching!" The log probabilities of the tokens are lower in most invented texts than in speech. The
thresholds were tuned on one half of the clips of `benchmarks.nonspeech` and measured on the other
(docs/results.md, "Where nobody speaks").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.engines.moonshine.answer import Answer

MIN_LOGPROB: Final = -0.6
"""Lowest mean log probability of a text that counts as speech. Speech in noise as loud as itself
often has less."""
MIN_SHORT_LOGPROB: Final = -0.9
MAX_SHORT_WORDS: Final = 4
"""A text of up to four words may have a lower mean: one unclear sound weighs more in it."""
MIN_THANKS_LOGPROB: Final = -0.2
THANKS: Final = frozenset(
    {"bye", "oh my god", "thank you", "thank you for watching", "thanks for watching"}
)
"""Phrases that end videos. Moonshine often writes them for music."""
MIN_FILLER_LOGPROB: Final = -0.45
FILLERS: Final = frozenset(
    {"ah", "hey", "hmm", "mm", "mm-hmm", "oh", "okay", "so", "the", "uh", "um", "yeah", "you"}
)
"""Words that Moonshine writes for noise. A text of only these words needs a higher mean."""
MIN_LOOP_WORDS: Final = 8
MAX_REPEATS: Final = 5
"""A text is a loop if it has this many words, and each occurs this many times on average."""
LAST_LATIN: Final = 0x24F
"""The last letter of Unicode's Latin Extended-B. English needs none after it."""
_SIGNS: Final = frozenset("\u266a\u00a9")
"""The musical note and the copyright sign. Moonshine writes them only where nobody speaks."""


def is_noise(answer: Answer) -> bool:
    """Whether the text alone shows that nobody speaks."""
    words = _bare(answer)
    if not words or _SIGNS & set(answer.text) or _is_loop(words) or _is_foreign(answer.text):
        return True
    # If someone says these words, Moonshine writes a punctuation mark after them.
    return _is_usual(words) and answer.text[-1].isalpha()


def is_doubted(answer: Answer) -> bool:
    """Whether the mean log probability is so low that the words are probably wrong."""
    return answer.avg_logprob < _lowest(_bare(answer))


def _bare(answer: Answer) -> list[str]:
    """The words in lower case without punctuation. Letters of other scripts are dropped."""
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
    """The lowest mean log probability at which a text counts as speech."""
    if " ".join(words) in THANKS:
        return MIN_THANKS_LOGPROB
    if set(words) <= FILLERS:
        return MIN_FILLER_LOGPROB
    return MIN_SHORT_LOGPROB if len(words) <= MAX_SHORT_WORDS else MIN_LOGPROB
