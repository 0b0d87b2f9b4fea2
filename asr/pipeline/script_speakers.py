"""Who says the words of an aligned text, by their voices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.pipeline.speakers import SpeakerTracker
from asr.types import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.align.longform import Piece
    from asr.audio.recording import Recording
    from asr.config import SpeakerOptions
    from asr.speakers.diariser import Diariser
    from asr.types import Audio, Hypothesis, Transcript

NAMED: Final = "speakers were not told apart by voice, because the text names them"


async def with_speakers(
    transcript: Transcript,
    diariser: Diariser,
    options: SpeakerOptions,
    recording: Recording,
    pieces: Iterable[tuple[Piece, Hypothesis]],
) -> Transcript:
    """The transcript with a speaker for each word, unless its text names the speakers.

    Args:
        transcript: of the text.
        diariser: tells the voices apart. If it fails, the transcript has a warning and no speakers.
        options: how many speakers there are, and which are known.
        recording: of the text.
        pieces: stretches of the recording, with the words that were found in them.
    """
    if any(segment.speaker for segment in transcript.segments):
        return replace(transcript, warnings=(*transcript.warnings, NAMED))

    async def read(_channel: int, chunk: Chunk) -> Audio:
        return await asyncio.to_thread(recording.read, chunk.start_sample, chunk.end_sample)

    tracker = SpeakerTracker(diariser, options, read=read)
    for number, (piece, found) in enumerate(pieces):
        chunk = Chunk(number, piece.start_sample, piece.end_sample)
        heard = await tracker.hear(await read(0, chunk), found)
        tracker.add(0, chunk, heard.voices, found.words)
    segments = await tracker.finish(transcript.segments)
    warnings = (*transcript.warnings, *tracker.warnings)
    return replace(transcript, segments=segments, warnings=warnings)
