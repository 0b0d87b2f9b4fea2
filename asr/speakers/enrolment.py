"""From a recording of one person to a known voice."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.recording import Recording, decode_recording
from asr.config import AudioLimits, KnownVoice, VadOptions, check
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from pathlib import Path

    from asr.speakers.diariser import Diariser
    from asr.speakers.windows import Span
    from asr.types import SpeechRegion
    from asr.workers.pool import ProcessPool

MIN_SECONDS: Final = 1.0
"""Of speech. An embedding of less says little about the voice."""
MAX_SECONDS: Final = 60.0
"""Of speech that are used."""
TOLERANCE: Final = 0.5
"""Seconds. Encoders add some silence to a recording."""
LIMITS: Final = AudioLimits(max_seconds=300.0, max_bytes=64 << 20, max_cpu_seconds=60)
"""For the recording."""
VAD: Final = VadOptions(padding=0.05)


async def embed_file(
    pool: ProcessPool,
    diariser: Diariser,
    source: Path,
    target: Path,
    name: str,
    length: tuple[float, float] | None = None,
) -> KnownVoice:
    """Decode a recording and embed the speech in it.

    Args:
        pool: decodes.
        diariser: embeds.
        source: the recording of one person.
        target: where the decoder writes its samples.
        name: of the person.
        length: the shortest and longest recording in seconds; None for no limits but `LIMITS`.

    Raises:
        AudioError: the recording cannot be used.
        InvalidOption: it has too little speech or several voices, or the name cannot be used.
    """
    regions: list[SpeechRegion] = []
    seconds = 0.0
    async with contextlib.aclosing(decode_recording(pool, source, target, VAD, LIMITS)) as reports:
        async for report in reports:
            regions += report.closed
            seconds = report.n_samples / SAMPLE_RATE
    field = "file" if length is None else "known_speaker_references"
    low, high = length or (0.0, LIMITS.max_seconds)
    is_fitting = low - TOLERANCE <= seconds <= high + TOLERANCE
    message = f"has {seconds:.1f} s; send {low:g} to {high:g} s"
    check(is_fitting, field, message)
    speech, stretches = await asyncio.to_thread(_speech, Recording(target), regions)
    message = f"has {speech.duration:.1f} s of speech; send at least {MIN_SECONDS:.0f} s"
    check(speech.duration >= MIN_SECONDS, field, message)
    embedding, n_voices = await diariser.embed_voice(speech, stretches)
    check(n_voices < 2, field, "has several voices; send a recording of this person alone")
    return KnownVoice(name, embedding, round(speech.duration, 2))


def _speech(recording: Recording, regions: list[SpeechRegion]) -> tuple[Audio, list[Span]]:
    """The speech without the pauses, at most `MAX_SECONDS`, and its parts in seconds."""
    left = round(MAX_SECONDS * SAMPLE_RATE)
    parts = [np.zeros(0, np.float32)]
    for region in regions:
        end = min(region.end_sample, region.start_sample + left)
        parts.append(recording.read(region.start_sample, end).samples)
        left -= end - region.start_sample
    edges = np.cumsum([len(part) for part in parts]) / SAMPLE_RATE
    return Audio(np.concatenate(parts)), list(pairwise(edges.tolist()))
