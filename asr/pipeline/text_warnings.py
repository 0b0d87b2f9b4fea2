"""Warnings about a text that differs from its recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.align.mismatch import Mismatch, Span
    from asr.text.script import Script

SHOWN_WORDS: Final = 6
"""A longer passage is shown with this many words, from its start and its end."""


def text_warnings(script: Script, mismatch: Mismatch) -> Iterator[str]:
    """Describe each mismatch. Words and lines are counted from 1.

    Args:
        script: the text.
        mismatch: of the words that are said according to the text, in the same order.
    """
    if mismatch.is_other:
        yield "no passage of the text was recognised; does it belong to this recording?"
    for span in mismatch.unsaid:
        yield _unsaid(script, span)
    for start, end in mismatch.unwritten:
        yield f"speech from {start:.1f} to {end:.1f} s is not in the text"


def _unsaid(script: Script, span: Span) -> str:
    first, last = script.places[span.first], script.places[span.last - 1] + 1
    if last - first == 1:
        which = f"word {last} of the text was"
    else:
        which = f"words {first + 1} to {last} of the text were"
    start, end = f"{span.start:.1f}", f"{span.end:.1f}"
    place = f"at {start} s" if start == end else f"between {start} and {end} s"
    return f"{which} not said {place} ({_lines(script, first, last)}{_quoted(script, first, last)})"


def _lines(script: Script, first: int, last: int) -> str:
    if len(script.lines) == 1:
        return ""
    begin, end = (line.number for line in script.lines_of(first, last))
    return f"line {begin}: " if begin == end else f"lines {begin} to {end}: "


def _quoted(script: Script, first: int, last: int) -> str:
    if last - first <= SHOWN_WORDS:
        return f'"{script.text_of(first, last)}"'
    half = SHOWN_WORDS // 2
    begin, end = script.text_of(first, first + half), script.text_of(last - half, last)
    return f'"{begin} ... {end}"'
