"""Recordings in, transcripts with a time for every word out.

    import asr
    transcript = asr.transcribe("meeting.wav")
    print(asr.render(transcript, "srt"))

The web service is `asr.service`, the command line is ``asr`` (`asr.cli`). Importing this package
imports neither of them, and neither vLLM nor torch.
"""

from asr.config import (
    AudioLimits,
    ChunkOptions,
    DecodeOptions,
    Options,
    SpeakerOptions,
    SubtitleOptions,
    VadOptions,
)
from asr.errors import AsrError
from asr.output.formats import render
from asr.pipeline.known_text import align_text
from asr.pipeline.run import Progress
from asr.pipeline.transcriber import Transcriber, transcribe
from asr.settings import Settings
from asr.types import Audio, Chunk, Gap, Hypothesis, Segment, SpeechRegion, Transcript, Word

__all__ = [
    "AsrError",
    "Audio",
    "AudioLimits",
    "Chunk",
    "ChunkOptions",
    "DecodeOptions",
    "Gap",
    "Hypothesis",
    "Options",
    "Progress",
    "Segment",
    "Settings",
    "SpeakerOptions",
    "SpeechRegion",
    "SubtitleOptions",
    "Transcriber",
    "Transcript",
    "VadOptions",
    "Word",
    "align_text",
    "render",
    "transcribe",
]
