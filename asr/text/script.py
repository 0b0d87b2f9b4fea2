"""A text to align: its tokens, its lines, and what in it is not said.

`read_script` accepts plain text, SRT, WebVTT and LRC. The pipeline times the tokens of `said`.
`Script.placed` then adds the other words (the names of speakers, descriptions of sounds).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Final

from asr.config import check
from asr.spacing import is_unspaced, separator, tokens_in
from asr.text.decoding import clean_text
from asr.text.spread import fill_missing
from asr.text.subtitle_files import Cue, read_cues
from asr.types import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_TEXT: Final = 2_000_000
"""Characters; reading so many aloud takes more than a day."""
_SOUND: Final = re.compile(r"\[[^\[\]\n]*\]|\([^()\n]*\)")
"""In subtitles: "[door slams]" or "(laughs)"."""
_HEADING: Final = re.compile(r"\s*\[[^\[\]]*\]\s*")
"""In any text, as a line of its own: "[Chorus]"."""
_NAME: Final = re.compile(
    r"^(?:[-\u2013\u2014>]+\s*)?"
    r"(?P<name>(?:[^\W\d_][\w.'\u2019-]*|\d+)(?: [\w.'\u2019&-]+){0,3})\s?:(?=\s)",
    re.MULTILINE,
)
"""The name of a speaker before a line: "JOHN: Hello" or "Speaker 1: Hello"."""


@dataclass(frozen=True, slots=True)
class Line:
    r"""A line of a text, or a cue.

    Attributes:
        text: as written; ``\n`` separates the lines of a cue.
        number: of its first line in the file, from 1.
        first: its first token.
        last: the token after its last one.
        speaker: the voice of a WebVTT cue, or None.
    """

    text: str
    number: int
    first: int
    last: int
    speaker: str | None = None


def _last(line: Line) -> int:
    return line.last


class Script:
    """A text to align.

    Attributes:
        tokens: all words, including those that are not said.
        lines: in order, without empty ones; their tokens follow each other.
        is_said: whether each token is said.
        is_timed: the text was a file with times (SRT, WebVTT or LRC).
    """

    def __init__(self, cues: Sequence[Cue], *, is_timed: bool) -> None:
        self.is_timed = is_timed
        self.tokens: list[str] = []
        self.lines: list[Line] = []
        self.is_said: list[bool] = []
        self._gaps: list[str] = []
        names = _names(cues, least=1 if is_timed else 2)
        for cue in cues:
            first, before = len(self.tokens), self.tokens[-1] if self.tokens else ""
            spans = _unsaid_spans(cue.text, names, has_sounds=is_timed)
            if spans or is_unspaced(cue.text):
                self._add(cue.text, spans)
            else:  # most lines; a text may have hundreds of thousands
                self.tokens += cue.text.split()
                self.is_said += [True] * (len(self.tokens) - first)
                self._gaps += [" "] * (len(self.tokens) - first)
            last = len(self.tokens)
            if last > first:
                self._gaps[first] = separator(before, self.tokens[first])
                self.lines.append(Line(cue.text, cue.line, first, last, cue.speaker))

    def _add(self, text: str, unsaid: Iterable[tuple[int, int]]) -> None:
        """Add the tokens of a line; what lies in the spans `unsaid` is not said."""
        hidden = bytearray(len(text))
        for start, end in unsaid:
            hidden[start:end] = b"\x01" * (end - start)
        for found in re.finditer(r"\S+", text):
            letters = [place for place in range(*found.span()) if text[place].isalnum()]
            is_said = not letters or not all(hidden[place] for place in letters)
            parts = tokens_in(found[0])
            self.tokens += parts
            self.is_said += [is_said] * len(parts)
            self._gaps += [" ", *[""] * (len(parts) - 1)]

    @cached_property
    def said(self) -> list[str]:
        """The tokens that are said."""
        return list(compress(self.tokens, self.is_said))

    @cached_property
    def places(self) -> list[int]:
        """For each token of `said` its place among all tokens."""
        return [place for place, is_said in enumerate(self.is_said) if is_said]

    def placed(self, words: Sequence[Word]) -> list[Word]:
        """Add the tokens that are not said to the words of `said`.

        A name gets no time of its own, so that its line appears when the speech begins. A line in
        which nothing is said fills the time between its neighbours.
        """
        if len(words) == len(self.tokens):
            return list(words)
        known: list[Word | None] = [None] * len(self.tokens)
        for place, word in zip(self.places, words, strict=True):
            known[place] = word
        for line in self.lines:
            inside = [word for word in known[line.first : line.last] if word is not None]
            if inside:
                part = _beside(self.tokens[line.first : line.last], known[line.first : line.last])
                known[line.first : line.last] = part
        end = words[-1].end if words else 0.0
        return fill_missing(self.tokens, known, 0.0, end)

    def text_of(self, first: int, last: int) -> str:
        """The text of the tokens [first, last) in one line, with the spaces of the user."""
        gaps = ["", *self._gaps[first + 1 : last]]
        pairs = zip(gaps, self.tokens[first:last], strict=True)
        return "".join(gap + token for gap, token in pairs)

    def lines_of(self, first: int, last: int) -> tuple[Line, Line]:
        """The lines of the first and of the last token of a range [first, last)."""
        begin, end = (bisect_right(self.lines, it, key=_last) for it in (first, last - 1))
        return self.lines[begin], self.lines[end]


def _beside(tokens: Sequence[str], known: Sequence[Word | None]) -> list[Word | None]:
    """Place unknown tokens at the end of the known word before, or at the first word's start."""
    first = next(word for word in known if word is not None)
    time, placed = first.start, list(known)
    for place, word in enumerate(known):
        if word is None:
            placed[place] = Word(tokens[place], time, time, None, "interpolated")
        else:
            time = word.end
    return placed


def read_script(text: str) -> Script:
    """Read a text to align: plain text, SRT, WebVTT or LRC.

    Raises:
        InvalidOption: it is empty, too long, malformed, or in a wrong encoding or format.
    """
    check(len(text) <= MAX_TEXT, "text", f"has {len(text)} characters; the limit is {MAX_TEXT}")
    clean = clean_text(text)
    cues = read_cues(clean)
    is_timed = cues is not None
    if cues is None:
        cues = [Cue(" ".join(line.split()), n) for n, line in enumerate(clean.split("\n"), 1)]
    script = Script(cues, is_timed=is_timed)
    check(bool(script.tokens), "text", "is empty; send the words of the recording")
    message = "has only names of speakers and descriptions of sounds; send the words"
    check(bool(script.said), "text", message)
    return script


def _names(cues: Sequence[Cue], least: int) -> frozenset[str]:
    """Find the names of speakers before lines.

    A name in capitals or with a number counts if `least` lines begin with one. Any other word
    counts if it stands before several lines, since "Remember: ..." may be said.
    """
    matches = (match for cue in cues if ":" in cue.text for match in _NAME.finditer(cue.text))
    found = Counter(match["name"] for match in matches)
    plain = [name for name in found if name.isupper() or re.fullmatch(r"\D+ \d+", name)]
    sure = plain if sum(found[name] for name in plain) >= least else []
    often = [name for name, count in found.items() if count >= 2 and name[:1].isupper()]
    return frozenset([*sure, *often])


def _unsaid_spans(text: str, names: frozenset[str], *, has_sounds: bool) -> list[tuple[int, int]]:
    """The names of speakers and the descriptions of sounds in a line."""
    spans = []
    if names and ":" in text:
        spans += [found.span() for found in _NAME.finditer(text) if found["name"] in names]
    if "[" in text and _HEADING.fullmatch(text):
        spans.append((0, len(text)))
    if has_sounds:
        spans += [found.span() for found in _SOUND.finditer(text)]
    return spans
