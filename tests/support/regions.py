"""Voice activity detection on samples in memory, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.audio.vad import SpeechDetector
from asr.pcm import to_int16

if TYPE_CHECKING:
    from asr.config import VadOptions
    from asr.types import Audio, SpeechRegion


def find_speech(audio: Audio, options: VadOptions) -> list[SpeechRegion]:
    """Return the speech regions: ordered, disjoint, inside the audio."""
    detector = SpeechDetector(options)
    return detector.push(to_int16(audio.samples)) + detector.finish()
