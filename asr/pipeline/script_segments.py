"""Segments of an aligned text: about a sentence long, or one for each line of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.pipeline.stitch import Stitcher
from asr.types import Chunk, Hypothesis, LineSegment, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.text.script import Script
    from asr.types import Word


def script_segments(
    script: Script, words: Sequence[Word], n_samples: int, *, keep_lines: bool
) -> tuple[Segment, ...]:
    """Divide the words of a text into segments.

    Args:
        script: the text.
        words: of `script.said`, with times in the recording.
        n_samples: length of the recording; no word ends after it.
        keep_lines: make each line one segment.
    """
    placed = script.placed(words)
    whole = Hypothesis(0, " ".join(word.text for word in placed), tuple(placed))
    stitcher = Stitcher()
    found = [*stitcher.push(Chunk(0, 0, n_samples), whole), *stitcher.finish()]
    if keep_lines:
        return _lines(script, [word for segment in found for word in segment.words])
    segments: list[Segment] = []
    first = 0
    for segment in found:
        last = first + len(segment.words)
        text = script.text_of(first, last)
        segments.append(Segment(segment.id, segment.start, segment.end, text, segment.words))
        first = last
    return tuple(segments)


def _lines(script: Script, words: Sequence[Word]) -> tuple[Segment, ...]:
    segments = []
    for number, line in enumerate(script.lines):
        inside = tuple(words[line.first : line.last])
        start, end = inside[0].start, max(word.end for word in inside)
        segments.append(LineSegment(number, start, end, line.text, inside, speaker=line.speaker))
    return tuple(segments)
