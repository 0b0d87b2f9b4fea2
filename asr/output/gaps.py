"""How gaps are shown in formats that have only text: ``[missing 12:00-16:00]``."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from asr.types import Gap, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.types import Transcript


def notice(gap: Gap) -> str:
    """The text that stands for a gap. Its whole seconds contain the gap."""
    first, last = math.floor(round(gap.start, 3)), math.ceil(round(gap.end, 3))
    return f"[missing {_clock(first)}-{_clock(last)}]"


def in_order(transcript: Transcript) -> Iterator[Segment | Gap]:
    """The segments and gaps by start; a gap comes before a segment that starts with it."""
    return heapq.merge(transcript.gaps, transcript.segments, key=lambda item: item.start)


def text_of(item: Segment | Gap) -> str:
    """The text of a segment, or the notice of a gap."""
    return notice(item) if isinstance(item, Gap) else item.text


def _clock(seconds: int) -> str:
    """M:SS, or H:MM:SS from one hour on."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
