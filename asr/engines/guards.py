"""Find suspicious answers by their text and the duration of the speech. Pure functions.

A language model that transcribes may repeat itself endlessly, reply to the speech, follow
instructions in it, or return nothing. These guards prove none of that. A finding means that the
chunk should be recognised again, which `asr.pipeline.recognition` does. The acoustic check by the
aligner comes later.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.engines.reasoning import split_reasoning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asr.types import Chunk, Hypothesis

MAX_COMPRESSION: Final = 2.4
MIN_COMPRESSED: Final = 100
"""Whisper's limit for the ratio of text bytes to zlib bytes. English speech has 1.2 to 1.9. Texts
of fewer than `MIN_COMPRESSED` bytes compress too little for a decision."""
MAX_NGRAM: Final = 12
MIN_RUN: Final = 4
MIN_RUN_WORDS: Final = 8
"""A loop is a phrase of at most `MAX_NGRAM` words that occurs `MIN_RUN` times in a row, with at
least `MIN_RUN_WORDS` words in total. People do say "no, no, no, no, no"."""
MAX_WORDS_PER_SECOND: Final = 7.0
MAX_LETTERS_PER_SECOND: Final = 40.0
FREE_WORDS: Final = 4
FREE_LETTERS: Final = 30
"""The fastest speakers reach 6 words per second. Regions are not exact, so an answer may have
`FREE_WORDS` words and `FREE_LETTERS` letters more than these rates allow."""
MIN_WORDS_PER_SECOND: Final = 0.6
MIN_LETTERS_PER_SECOND: Final = 4.0
SLOW_SECONDS: Final = 3.0
"""An answer is too short if it is below both rates and the speech lasts `SLOW_SECONDS` or more. For
example, the answer "Hello!" may be a reply. The slowest of 29 recordings with references (digits
with pauses of 0.3 s, memos) have 1.27 words and 6 letters per second of speech. These are the
lowest rates over all levels of webrtcvad, in its regions of 3 s or more. A lone "um" in a region of
1.2 s has 0.8 words per second. Letters count too, because other languages say in one word what
English says in three. webrtcvad takes music for speech, so too little text is only a weak
finding."""
EMPTY_SECONDS: Final = 1.5
"""Speech of this length contains words. A shorter region may be noise: padding turns one voiced
burst into a region of 0.6 s."""

WITNESS: Final = 1
CUT: Final = 2
TOO_FEW: Final = 4
REMARK: Final = 8
EMPTY: Final = 16
LOOP: Final = 20
UNHEARD: Final = 24
REPLY: Final = 30
TOO_MANY: Final = 40
REASONING: Final = 50
"""Weights of the findings. The pipeline adds them, counting each guard once, and keeps the answer
with the lowest sum. On a tie it keeps the answer with fewer findings, then the one with the higher
average log-probability, then the earliest. From best to worst:

    WITNESS   1   the witness objects to an answer in which no guard found anything
    CUT       2   the answer reached its token limit
    TOO_FEW   4   few words; together with CUT (6) still better than a remark
    REMARK    8   a remark after words, or a long answer that begins like a reply; with CUT and
                  TOO_FEW (14) still better than nothing
    EMPTY    16   nothing, which is better than invented text
    LOOP     20   a loop, mostly music that was taken for speech
    UNHEARD  24   the aligner cannot find most of the words in the audio
    REPLY    30   a reply instead of a transcript
    TOO_MANY 40   more words than anyone can say in the time
    REASONING 50  thoughts about the task and nothing else, which never become text
"""
THOUGHTS_ALONE: Final = "it thinks aloud instead of transcribing"
MAX_REPLY_WORDS: Final = 25
"""A longer answer that begins like a reply may be real speech, so it gets `REMARK`, not `REPLY`."""

_CANNOT: Final = (
    r"(?:can['\u2019]?t|cannot|could\s?n['\u2019]t|could\s+not|am\s+unable\s+to|['\u2019]m\s+unable\s+to|"
    r"unable\s+to|(?:am\s+|['\u2019]m\s+)?not\s+able\s+to|do\s?n['\u2019]t\s+have|do\s+not\s+have)"
)
# People say some of these things in real speech. The more common a phrase is, the fewer places are
# searched: refusals at the start of every line and sentence, remarks at the start of the first and
# the last one, and replies only at the start of the first.
_REFUSAL: Final = re.compile(
    rf"""\W{{0,9}}+(?:unfortunately\W+|i(?:['\u2019]m|\s+am)\s+afraid\s+(?:that\s+)?)?(?:
      (?:i['\u2019]?m\s+|i\s+am\s+|i\s+|we\s+)?(?:sorry|apologi[sz]e)\W+(?:but\s+)?(?:i|we)\b\s*{_CANNOT}\b.{{0,40}}?
        \b(?:assist|help\s+(?:you\s+)?with|transcri\w+|audio|process|listen\s+to|comply|fulfil\w*|request)
      |i\s*{_CANNOT}\b.{{0,40}}?\b(?:transcri\w+|audio|listen\s+to|hear\s+any\s+speech)
      |i\s*{_CANNOT}\s+(?:(?:assist|help)(?:\s+you)?\s+with|comply\s+with|fulfil\w*)\s+(?:that|this|your)\s+request
      |i\s*{_CANNOT}\s+assist(?:\s+you)?\s+with\s+(?:that|this)\b
      |you\s+(?:have|did)(?:\s?n['\u2019]t|\s+not)\s+(?:provided?|upload(?:ed)?|attach(?:ed)?|shared?|included?)\b
        .{{0,30}}?\b(?:audio|recording|clip)
      |as\s+an?\s+(?:ai|artificial|large\s+language|language)\b
      |(?:please\s+provide|could\s+you\s+(?:please\s+)?provide)\b.{{0,40}}?\b(?:audio|recording|transcri\w+)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_REMARK: Final = re.compile(
    r"""\W{0,9}+(?:note\s*:\s*)?(?:
      (?:there\s+is|there['\u2019]s|i\s+(?:hear|detect))\s+no\s+(?:speech|audio|discernible|audible|spoken)
      |no\s+(?:speech|audio|spoken\s+words?)\s+(?:is|was|were|has|detected|present|found|in)\b
      |(?:the|this)\s+(?:audio|recording|clip|sound)(?:\s+(?:clip|file|recording|segment))?\s+
        (?:contains?|features?|appears|seems|consists|includes|does\s+not\s+contain|(?:ends|cuts\s+off)\s+abruptly
          |(?:is|was|has)\s+(?:of|in\s+(?!the\b)\w+|silent|empty|too|not|unclear|inaudible|no\s+|just
            |an?\s+(?:\w+\s+)?(?:clip|conversation|monologue|speech|man|woman|person|speaker)))\b
      |(?:this|that|the\s+above)\s+is\s+(?:the|a)\s+(?:\w+\s+)?transcript(?:ion)?\s+of\s+(?:the|this)\s+(?:audio|recording|clip)
      |if\s+you\s+(?:need|have|would\s+like)\b.{0,60}?\btranscri\w+
      |let\s+me\s+know\s+if\b.{0,60}?\b(?:transcri\w+|translat\w+|summar\w+)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_REPLY: Final = re.compile(
    r"""\W{0,9}+(?:
      (?:the|a)\s+(?:speaker|narrator|man|woman|voice)\s+(?:is|seems|appears)\s+
        (?:speaking|talking|saying|discussing|describing|explaining|asking)\b
      |(?:sure|certainly|of\s+course|absolutely)\W+(?:here(?:['\u2019]s|\s+is|\s+are)\s+(?:a|an|the|your|my)
        |i\s+can\s+(?:help\s+you|assist|transcribe|write))\b
      |here(?:['\u2019]s|\s+is|\s+are)\s+(?:a|an|the|your|my)\s+(?:\w+\s+){0,2}?(?:
        (?:poem|haiku|summary|translation|transcri\w+)\b|(?:story|song|answer|list|joke|code|essay)\b[^.]{0,40}:)
      |transcrib(?:e|ing)\s+the\s+speech\s+in\s+this\s+audio
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END: Final = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s|\n")

_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)
"""Scripts without spaces: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
_FURTHER_DIGIT: Final = re.compile(r"(?<=\d)\d")


@dataclass(frozen=True, slots=True)
class Finding:
    """A suspicion of one guard.

    Attributes:
        guard: name of the guard, for the counters.
        says: message for people, without any text of the answer.
        weight: how bad it is; see the table above.
    """

    guard: str
    says: str
    weight: int


def findings(hypothesis: Hypothesis, chunk: Chunk) -> tuple[Finding, ...]:
    """Return the findings on the answer to a chunk, at most one per guard."""
    found = (guard(hypothesis, chunk) for guard in GUARDS)
    return tuple(finding for finding in found if finding is not None)


def loop(hypothesis: Hypothesis, _: Chunk) -> Finding | None:
    """Find text that repeats itself."""
    is_loop = compression(hypothesis.text) > MAX_COMPRESSION or has_run(hypothesis.text.split())
    return Finding("loop", "it repeats itself", LOOP) if is_loop else None


def cut(hypothesis: Hypothesis, _: Chunk) -> Finding | None:
    """Find an answer that reached its token limit. A transcript of real speech should not."""
    return Finding("cut", "it was cut at its token limit", CUT) if hypothesis.is_cut else None


def too_many_words(hypothesis: Hypothesis, chunk: Chunk) -> Finding | None:
    """Find more text than anyone can say in the time. It is invented or follows an instruction."""
    seconds = chunk.duration if chunk.speech_seconds is None else chunk.speech_seconds
    n_words = len(hypothesis.text.split())
    n_letters = len(hypothesis.text)
    is_much = (
        n_words > FREE_WORDS + MAX_WORDS_PER_SECOND * seconds
        or n_letters > FREE_LETTERS + MAX_LETTERS_PER_SECOND * seconds
    )
    says = f"it has {n_words} words for {seconds:.1f} s of speech"
    return Finding("too_many_words", says, TOO_MANY) if is_much else None


def too_few_words(hypothesis: Hypothesis, chunk: Chunk) -> Finding | None:
    """Find an answer with words, but fewer than the slowest speakers say in the time."""
    seconds, n_words = chunk.speech_seconds, _n_words(hypothesis.text)
    if seconds is None or seconds < SLOW_SECONDS or not n_words:
        return None
    says = f"it has {n_words} words for {seconds:.1f} s of speech"
    is_little = (
        n_words < MIN_WORDS_PER_SECOND * seconds
        and len(hypothesis.text) < MIN_LETTERS_PER_SECOND * seconds
    )
    return Finding("too_few_words", says, TOO_FEW) if is_little else None


def empty(hypothesis: Hypothesis, chunk: Chunk) -> Finding | None:
    """Find an empty answer where the VAD found speech."""
    seconds = chunk.speech_seconds
    if seconds is None or seconds < EMPTY_SECONDS or hypothesis.text.strip():
        return None
    return Finding("empty", f"it is empty, for {seconds:.1f} s that sound like speech", EMPTY)


def commentary(hypothesis: Hypothesis, _: Chunk) -> Finding | None:
    """Find a refusal, a description or a reply, instead of a transcript or after one."""
    text = hypothesis.text.rstrip()
    if any(kind.match(text) for kind in (_REFUSAL, _REMARK, _REPLY)):
        weight = REPLY if len(text.split()) <= MAX_REPLY_WORDS else REMARK
        return Finding("commentary", "it reads like a reply, not like a transcript", weight)
    begins = [match.end() for match in _SENTENCE_END.finditer(text)]
    is_remarked = any(_REFUSAL.match(text, begin) for begin in begins)
    if is_remarked or (begins and _REMARK.match(text, begins[-1])):
        return Finding("commentary", "a part of it reads like a reply", REMARK)
    return None


def reasoning(hypothesis: Hypothesis, _: Chunk) -> Finding | None:
    """Find a model that thinks aloud. A person may say the same; the aligner can tell."""
    found = split_reasoning(hypothesis.text)
    if found is None:
        return None
    if not found.rest:
        return Finding("reasoning", THOUGHTS_ALONE, REASONING)
    return Finding("reasoning", "it begins like a model that thinks aloud", REMARK)


GUARDS: Final[tuple[Callable[[Hypothesis, Chunk], Finding | None], ...]] = (
    loop,
    cut,
    too_many_words,
    too_few_words,
    empty,
    commentary,
    reasoning,
)


def compression(text: str) -> float:
    """Return the ratio of text bytes to zlib bytes, or 1 for texts that are too short.

    A letter of any script counts as one byte; in a text with more than 128 different non-ASCII
    letters it counts as two. In UTF-8 most scripts use two or three bytes with the same beginning,
    which compress so well that normal Hindi or Thai looks like a loop.
    """
    others = dict.fromkeys(letter for letter in text if not letter.isascii())
    if len(others) <= 128:
        codes = {ord(letter): 128 + number for number, letter in enumerate(others)}
        data = text.translate(codes).encode("latin-1")
    else:
        data = text.encode("utf-16-le", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if len(data) >= MIN_COMPRESSED else 1.0


def _n_words(text: str) -> int:
    """Count spoken words. A digit is one word; two letters of a script without spaces are one."""
    n_unspaced = len(_UNSPACED.findall(text))
    n_further_digits = len(_FURTHER_DIGIT.findall(text))
    return len(text.split()) + n_unspaced // 2 + n_further_digits


def has_run(words: Sequence[str]) -> bool:
    """Return whether a phrase repeats often enough to be a loop."""
    bare = [re.sub(r"\W+", "", word).casefold() for word in words]
    return any(_longest_run(bare, size) >= MIN_RUN for size in range(1, MAX_NGRAM + 1))


def _longest_run(words: Sequence[str], size: int) -> int:
    """Return how often a phrase of `size` words occurs in the longest run of such a phrase.

    Return 0 if the run has fewer than `MIN_RUN_WORDS` words in total.
    """
    best = same = 0
    for here in range(size, len(words)):
        same = same + 1 if words[here] == words[here - size] else 0
        best = max(best, same)
    n_words = best + size
    return n_words // size if best and n_words >= MIN_RUN_WORDS else 0
