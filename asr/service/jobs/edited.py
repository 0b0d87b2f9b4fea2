"""Corrected transcripts as text: one JSON object in each line.

The first line has the names of the speakers. Every further line is a segment, exactly as the
routes of the page show it, so that a transcript is shown without parsing it. The text is stored
compressed: ten hours of speech take about 10 MB as text.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from asr.output.openai import is_channel_label
from asr.types import LineSegment, Segment, Timing, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EDITED: Final = "edited"
"""The timing of a word whose time a person has set."""
TIMINGS: Final = (*get_args(Timing), EDITED)
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Edited:
    """A corrected transcript.

    Attributes:
        lines: the segments, each as JSON.
        speakers: for each speaker that has another name, this name.
    """

    lines: list[str]
    speakers: Mapping[str, str] = field(default_factory=dict)

    def segments(self) -> Iterator[Segment]:
        """The segments for an export, with the names of the speakers."""
        for line in self.lines:
            yield _segment(json.loads(line), self.speakers)


def line_of(record: Mapping[str, Any]) -> str:
    """One record as a line."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def text_of(segments: Iterable[Mapping[str, Any]], speakers: Mapping[str, str]) -> str:
    """A corrected transcript as text."""
    return "\n".join([line_of({"speakers": speakers}), *map(line_of, segments)])


def pack(text: str) -> bytes:
    """Compress a text."""
    return zlib.compress(text.encode(), _LEVEL)


def unpack(content: bytes) -> Edited:
    """Read a stored transcript."""
    first, *lines = zlib.decompress(content).decode().split("\n")
    return Edited(lines, json.loads(first)["speakers"])


def _segment(record: dict[str, Any], names: Mapping[str, str]) -> Segment:
    speaker = record["speaker"]
    name = names.get(speaker, speaker)
    # Words have the speaker of their segment, unless it only repeats the channel.
    of_words = None if is_channel_label(name, record["channel"]) else name
    kind = LineSegment if record.get("line") else Segment  # a line is one subtitle cue
    return kind(
        id=record["id"],
        start=record["start"],
        end=record["end"],
        text=record["text"],
        words=tuple(_word(word, of_words) for word in record["words"]),
        warnings=tuple(record["doubts"]),
        channel=record["channel"],
        speaker=name,
    )


def _word(record: dict[str, Any], speaker: str | None) -> Word:
    # The schema of exports has no fourth timing. A time that a person set is an estimate there.
    timing: Timing = "interpolated" if record["timing"] == EDITED else record["timing"]
    return Word(
        record["word"], record["start"], record["end"], record["confidence"], timing, speaker
    )
