"""Find where a language model thinks aloud before a transcript, or instead of one. Pure functions.

"The user wants me to transcribe the audio. It says: ..." is how such an answer begins. But a person
may say the same words. The text alone cannot tell, so nothing is removed here: a guard reports the
finding, and `asr.pipeline.recognition` asks the aligner whether the words were said.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_SENTENCES: Final = 40
"""At most this many sentences are examined; the thoughts of a model can be long."""

_OPENER: Final = (
    r"\W{0,9}(?:(?:okay|ok|alright|all\s+right|hmm+|well|right|so|now|first|sure|wait|got\s+it|"
    r"we\s+have|thinking|therefore|thus)\b[\s,.:;!\u2026-]{1,5}){0,3}"
)
_TASK: Final = (
    r"(?:transcri\w+|audio|recording|clip|speech|spoken|speaker|punctuat\w+|capitali[sz]\w+|"
    r"written\s+(?:\w+\s+)?text|instructions?|verbatim|word\s+for\s+word)\b"
)
_ASKED: Final = (
    r"(?:wants?|wanted|asks?|asked|is\s+asking|has\s+asked|needs?|would\s+like|requests?|requested|"
    r"is\s+requesting|gave|has\s+given|provided|has\s+provided|sent|uploaded|expects?)"
)
_MUST: Final = (
    r"(?:need|have|should|must|will|am|are|was|were|can|could|'?ll|'?m|'?re|\u2019ll|\u2019m|\u2019re)"
    r"(?:\s+(?:to|going|asked|supposed|being|just|now|only|simply|be|required))*"
)
_DO: Final = (
    r"(?:transcribe|transcribing|listen|write|writing|output|produce|provide|process|analy[sz]e|"
    r"convert|give|start|think|parse|ensure|make\s+sure|follow|add|focus|capture)"
)
_STRONG: Final = re.compile(
    rf"""{_OPENER}(?:
      the\s+user(?:'s|\u2019s)?\s+(?:request|message|prompt)\b
      |the\s+user\s+{_ASKED}\b(?=.{{0,200}}?{_TASK}|\W*\Z|\s+(?:me|us)\W*(?:to)?\W*\Z)
      |(?:i|we)(?:\s+|(?='|\u2019)){_MUST}\s+{_DO}\b(?=.{{0,200}}?{_TASK})
      |let(?:\s+me|'s|\u2019s|\s+us)\s+(?:\w+\s+)?{_DO}\b(?=.{{0,200}}?{_TASK})
      |(?:the|my|our)\s+(?:task|instruction|request|prompt|goal|job)s?\s+(?:here\s+)?
        (?:is|says?|asks?|requires?|states?|are)\b(?=.{{0,200}}?{_TASK})
      |.{{0,60}}?transcribe\s+the\s+spoken\s+content\s+to\s+written\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How thoughts about the task begin."""
_FURTHER: Final = re.compile(
    rf"""{_OPENER}(?:
      (?:i|we)(?:\s+|(?='|\u2019))(?:{_MUST}|hear|heard|think|see|cannot|do\s+not|don.t)\b
        (?=.{{0,200}}?(?:{_TASK}|only\s+the\s+(?:text|words)\b))
      |let(?:\s+me|'s|\u2019s)\s+(?:\w+\s+)?(?:{_DO}|see|check)\b
      |the\s+user\s+{_ASKED}\b
      |the\s+(?:audio|recording|clip|speaker|speech)\s+
        (?:is|was|says?|said|seems?|sounds?|appears?|contains?|starts?|begins?|mentions?)\b
      |(?:my|our|the)\s+(?:final\s+)?(?:answer|output|response|transcript\w*|instructions?)\s+
        (?:is|are|should|will|would|must|says?)\b
      |(?:it|this|that|there)(?:\s+|'|\u2019)(?:is|s|was|seems|sounds|appears|should)\b
        (?:\s+in\s+\w+\W*\Z|(?=.{{0,200}}?{_TASK}))
      |(?:no|only|just|including|make\s+sure|ensure|output|with)\b(?=.{{0,80}}?{_TASK})
      |(?:okay|ok|alright|hmm+|wait|got\s+it|sure)\W*\Z
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How such thoughts go on. These alone are no finding. They are narrow, because speech follows."""
_ANNOUNCES: Final = re.compile(
    rf"""{_OPENER}(?:
      (?:i|we)(?:\s+|(?='|\u2019)){_MUST}\s+{_DO}\b
      |(?:it|he|she|they)\s+(?:says?|said|is|goes)\b
      |(?:the|my|our)\s+(?:text|content|words?|final\s+\w+)\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Begins a sentence that announces the transcript with a colon."""
_LABEL: Final = re.compile(
    r"\b(?:says?|said|transcri(?:pt|ption|be)|output|answer|response|text|heard|hear|write|content)"
    r"(?:\s+(?:is|are|should\s+be|would\s+be|will\s+be|must\s+be|as\s+follows|follows))?\s*:\s*",
    re.IGNORECASE,
)
"""Announces the transcript inside a thought."""
_END: Final = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+|\n+")
_QUOTES: Final = {'"': '"', "\u201c": "\u201d", "'": "'", "\u2018": "\u2019"}


class Split(NamedTuple):
    """An answer that begins with thoughts.

    Attributes:
        n_words: words of the thoughts.
        rest: the text after them; empty if there is nothing else.
        is_apart: whether the rest is on a line of its own.
    """

    n_words: int
    rest: str
    is_apart: bool


def split_reasoning(text: str) -> Split | None:
    """Separate the thoughts at the start of a text from the rest; None if there are none."""
    if not _STRONG.match(text):
        return None
    end = _end_of_thoughts(text)
    labels = [match.end() for match in _LABEL.finditer(text) if _is_thought_before(text, match)]
    if labels:
        end = labels[-1]
    rest = text[end:].strip()
    if _QUOTES.get(rest[:1]) == rest[-1:] and len(rest) > 1:
        rest = rest[1:-1].strip()
    is_apart = "\n" in text[len(text[:end].rstrip()) : end]
    return Split(len(text[:end].split()), rest, is_apart)


def _sentences(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _END.finditer(text)][:MAX_SENTENCES]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


def _end_of_thoughts(text: str) -> int:
    end = 0
    for start, stop in _sentences(text):
        sentence = text[start:stop]
        if sentence.strip() and not (_STRONG.match(sentence) or _FURTHER.match(sentence)):
            break
        end = stop
    return end


def _is_thought_before(text: str, label: re.Match[str]) -> bool:
    """Whether the sentence with the label is a thought, and not speech that has a colon."""
    for start, stop in _sentences(text):
        if start <= label.start() < stop:
            sentence = text[start : label.end()]
            kinds = (_STRONG, _FURTHER, _ANNOUNCES)
            return any(kind.match(sentence) for kind in kinds)
    return False
