"""Clips for playback: each segment of a transcript as a small WAV file.

Needs the extra ``clips``: pydub fades the edges and writes the file. It gets only the samples of
one segment at a time, because it keeps everything in memory.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any, Final

from asr.config import check
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from pathlib import Path

    from asr.audio.recording import Recording
    from asr.types import Segment

FADE_MS: Final = 15
MAX_SECONDS: Final = 120.0
"""Longest clip in seconds; a longer segment is cut off."""


class ClipWriter:
    """Writes clips into a folder, and ``clips.jsonl`` with the text of each.

    Args:
        folder: created if it does not exist.
        padding: seconds of audio before and after each segment.

    Raises:
        InvalidOption: the extra is not installed, or the padding is out of range.
    """

    def __init__(self, folder: Path, padding: float) -> None:
        check(0 <= padding <= 10, "padding", "must be 0 to 10 seconds")
        self._pydub = load_pydub()
        self._folder = folder
        self._padding = round(padding * SAMPLE_RATE)
        folder.mkdir(parents=True, exist_ok=True)
        self._index = folder / "clips.jsonl"
        self._index.write_text("", encoding="utf-8")

    def write(self, segment: Segment, recording: Recording, n_samples: int) -> Path:
        """Cut one segment out of a recording of `n_samples`."""
        start = max(0, round(segment.start * SAMPLE_RATE) - self._padding)
        end = min(n_samples, round(segment.end * SAMPLE_RATE) + self._padding)
        end = min(end, start + round(MAX_SECONDS * SAMPLE_RATE))
        clip = self._pydub.AudioSegment(
            data=recording.read(start, end).pcm16(),
            sample_width=2,
            frame_rate=SAMPLE_RATE,
            channels=1,
        )
        path = self._folder / f"{segment.id + 1:05}.wav"
        faded(clip).export(path, format="wav").close()
        self._note(path, segment, start, end)
        return path

    def _note(self, path: Path, segment: Segment, start: int, end: int) -> None:
        record = {
            "file": path.name,
            "start": round(start / SAMPLE_RATE, 3),
            "end": round(end / SAMPLE_RATE, 3),
            "text": segment.text,
            "channel": segment.channel,
        }
        with self._index.open("a", encoding="utf-8") as index:
            index.write(json.dumps(record, ensure_ascii=False) + "\n")


def faded(clip: Any) -> Any:
    """A segment of pydub with short fades. pydub counts whole milliseconds, and fails with 0."""
    fade = min(FADE_MS, len(clip) // 2)
    return clip.fade_in(fade).fade_out(fade) if fade else clip


def load_pydub() -> Any:
    """The library pydub.

    Raises:
        InvalidOption: the extra is not installed.
    """
    try:
        with warnings.catch_warnings():
            # pydub warns that ffmpeg is missing, which WAV does not need, and that audioop is
            # deprecated; from Python 3.13 on, audioop-lts replaces it.
            warnings.simplefilter("ignore")
            import pydub
    except ImportError:
        check(False, "clips", "pydub is not installed; pip install 'asr-service[clips]'")
    return pydub
