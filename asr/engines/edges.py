"""Which sentences at the edges of an answer a model may have written to its user. Pure functions.

Models announce a transcript, comment on it, or add to it in more wordings than anyone can list. So
these patterns are broad, and a finding proves nothing: people talk about audio and users, too. It
says where to look. `asr.pipeline.remarks` removes such a sentence only if the aligner did not hear
it and the recording has no time for it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

MAX_SENTENCES: Final = 12
"""At most this many sentences at each edge are examined."""

_SENTENCE_END: Final = re.compile(
    r"(?:(?<=[.!?\u2026:\])>])[\"'\u201d\u2019)\]*]{0,3}\s|(?<=[\u3002\uff01\uff1f\uff1a])|\n|\s(?=[\[(<]))"
)
_ABOUT: Final = re.compile(
    r"""(?<!\w)(?:
      trans[ck]ri\w*|trascri\w*|verbatim|captions?|subtitles?|translat\w+|summar\w+|explanation
      |audio|recording|clip|speakers?|speech|spoken|speaking|unintelligible|inaudible|background
      |users?|assistant\w*|analysis|reasoning|thoughts?|thinking|final|answer|output|response
      |text|language|english|instructions?|tasks?|requests?\w*|prompt|punctuat\w+|capitali[sz]\w+
      |hears?|heard|hearing|listen\w*|says?|said|saying|reads|states
      |as\s+follows|(?:the\s+)?following|here(?:['\u2019]s|\s+(?:is|are|you|we|it))|below
      |anything\s+else|further|happy\s+to|glad\s+to|help(?:s|ful)?|assist\w*|feel\s+free|let\s+me
      |would\s+you\s+like|do\s+you\s+want|thank(?:s|\s+you)\s+for|please|sorry|note
      |double[-\s]check|(?:i|we)\s+(?:will|need|should|must|have|can(?:not)?)|i['\u2019](?:ll|ve|m)
    )(?!\w)|\u8f6c\u5f55|\u8f6c\u5199|\u8f49\u9304|\u6587\u5b57|\u66f8\u304d\u8d77|\u7528\u6237""",
    re.IGNORECASE | re.VERBOSE,
)
_BRIEF: Final = re.compile(
    r"\W*(?:sure(?:\s+thing)?|certainly|of\s+course|absolutely|understood|got\s+it|ok(?:ay)?|"
    r"all\s?right|hmm+|wait|done|no\s+problem|that['\u2019]s\s+(?:all|it)|(?:the\s+)?end)\W*\Z",
    re.IGNORECASE,
)


_MARKED: Final = re.compile(
    r"\s*(?:[\[(<][^\[\]()<>]{1,80}[\])>]\W*|\w+(?:\W{1,2}\w+){0,2}\s*:\W*)\Z"
)
"""Text in brackets, and a short heading or label: "[English]", "(sighs)", "Host:"."""


def may_be_the_models(sentence: str) -> bool:
    """Whether a model may say this to its user."""
    return bool(_ABOUT.search(sentence) or _BRIEF.match(sentence) or _MARKED.match(sentence))


def first_sentences(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the first sentences in order; colons and brackets end one, too."""
    return _sentences(text)[:MAX_SENTENCES]


def last_sentences(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the last sentences, the last one first."""
    return _sentences(text)[: -MAX_SENTENCES - 1 : -1]


def may_have_remarks(text: str) -> bool:
    """Whether a sentence near the start or the end may be the model's."""
    near = (*first_sentences(text), *last_sentences(text))
    return any(may_be_the_models(text[start:end]) for start, end in near)


def _sentences(text: str) -> list[tuple[int, int]]:
    edges = (0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text))
    return [(start, end) for start, end in pairwise(edges) if text[start:end].strip()]
