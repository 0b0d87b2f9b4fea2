"""A span of a prepared recording as a file to download.

Needs the extra ``clips``: pydub cuts and fades. It runs in a child process of `asr.workers`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import soundfile

from asr import pcm
from asr.audio.prepared import read_span
from asr.pictures.clips import faded, load_pydub
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.workers.template import Channel

MAX_SECONDS: Final = 600.0
SUBTYPES: Final = {
    "wav": "PCM_16",
    "flac": "PCM_16",
    "mp3": "MPEG_LAYER_III",
    "ogg": "VORBIS",
}
"""The formats of clips with libsndfile's name of their coding. pydub would call FFmpeg."""


def clip_job(channel: Channel) -> None:
    """Write a clip to a file, and answer with its seconds."""
    request, _ = channel.receive()
    samples = read_span(Path(request["folder"]), request["start"], request["end"])
    clip = np.frombuffer(_faded(samples).raw_data, "<i2")
    kind = request["format"]
    soundfile.write(
        request["target"], clip, SAMPLE_RATE, subtype=SUBTYPES[kind], format=kind.upper()
    )
    channel.send({"seconds": len(clip) / SAMPLE_RATE})


def _faded(samples: np.ndarray) -> Any:
    """The samples as pydub's segment, with short fades so that the cuts do not click."""
    clip = load_pydub().AudioSegment(
        data=pcm.to_bytes(samples), sample_width=2, frame_rate=SAMPLE_RATE, channels=1
    )
    return faded(clip)
