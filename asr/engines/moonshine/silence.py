"""Rules against text where nobody speaks.

Moonshine almost never returns an empty text: it answers noise with "you" or "Thank you." Its log
probabilities tell most inventions from speech. `benchmarks.nonspeech` tuned the numbers on one half
of a generated set and measured them on the other half (docs/results.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.engines.moonshine.answer import Answer

MIN_LOGPROB: Final = -0.6
"""Next to nothing is right below this average: none of 45 clips of speech was."""
MIN_FILLER_LOGPROB: Final = -0.2
"""A text of nothing but fillers needs a higher average. "Okay." that is surely spoken has one."""
FILLERS: Final = frozenset(
    {
        "bye",
        "hmm",
        "mm-hmm",
        "oh my god",
        "okay",
        "thank you",
        "thank you for watching",
        "thanks for watching",
        "yeah",
    }
)
MUMBLES: Final = frozenset({"oh", "so", "uh", "um", "you"})
MAX_MUMBLES: Final = 3
"""Up to three of these words count as a filler, in any order."""
_MUSIC: Final = "\u266a"


def is_invented(answer: Answer) -> bool:
    """Whether the text is probably no speech: music, no letters, or words the model doubts."""
    bare = "".join(it for it in answer.text.lower() if it.isalnum() or it in "'- ").strip()
    if _MUSIC in answer.text or not bare:
        return True
    lowest = MIN_FILLER_LOGPROB if _is_filler(bare) else MIN_LOGPROB
    return answer.avg_logprob < lowest


def _is_filler(bare: str) -> bool:
    words = bare.split()
    return bare in FILLERS or (len(words) <= MAX_MUMBLES and set(words) <= MUMBLES)
