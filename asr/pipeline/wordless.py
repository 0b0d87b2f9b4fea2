"""Why a transcript has no words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.types import Segment


def why_wordless(
    segments: Sequence[Segment], levels: Sequence[float | None], speech_seconds: float
) -> list[str]:
    """Return a warning that says why there are no words; none if there are words.

    Args:
        segments: of the transcript.
        levels: RMS of each channel in dBFS; None for digital silence.
        speech_seconds: seconds that the recogniser got.
    """
    if any(segment.text.strip() for segment in segments):
        return []
    return [f"nothing was recognised: {_reason(levels, speech_seconds)}"]


def _reason(levels: Sequence[float | None], speech_seconds: float) -> str:
    audible = [level for level in levels if level is not None]
    if not audible:
        return "the recording is silent, all samples are zero"
    level = f"the level is {max(audible):.0f} dBFS"
    if not speech_seconds:
        return f"no speech was found, {level} (vad=off sends everything to the recogniser)"
    return f"the recogniser heard no speech in {speech_seconds:.1f} s of audio, {level}"
