"""What all readers of recordings share: limits of the layout, blocks, warnings and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from asr.errors import DamagedAudio, UnsupportedAudio

ACCEPTED: Final = (
    "Accepted are wav, flac, mp3, ogg, opus, m4a, mp4, mov, webm, mkv, aac, wma and amr, "
    "of 8 to 192 kHz"
)
MIN_RATE: Final = 8_000
MAX_RATE: Final = 192_000
MAX_CHANNELS: Final = 64
HEADER_SLACK: Final = 1.0
"""Seconds. A header that promises this much more than the file holds causes no warning."""

EXACT_SLACK: Final = 0.05
"""The same for a FLAC, whose header counts samples."""

RatedBlocks = Iterator[tuple[int, np.ndarray]]
"""Pairs of a rate in Hz and a block of shape (n_frames, n_channels)."""


class Readable(Protocol):
    """A file that is read from start to end, in pieces of any length."""

    def read(self, n_bytes: int, /) -> bytes:
        """Return at most `n_bytes` of the next bytes, none at the end."""
        ...


@dataclass(slots=True)
class Decoding:
    """A recording being decoded. Iterate over `blocks` once; `warnings` is complete after that.

    Attributes:
        blocks: float32 samples.
        promised_seconds: the length that the header states, or None. For a progress bar.
        is_promise_of_audio: the promise describes the sound, so less sound deserves a warning.
            Otherwise it is the length of the whole container, perhaps of its picture.
        is_promise_exact: the promise counts samples, so it also tells small losses.
        is_damaged: packets were damaged.
        last: when the last packet ends according to its timestamp, in seconds, or None.
        warnings: defects that were repaired, and audio that was not decoded.
        labels: a name of each channel, if the channels are the audio tracks of the recording.
        position: offset of the packet that FFmpeg decoded last, from the beginning of a recording.
        seconds_before: of audio in the file before the recording that is being opened.
    """

    blocks: Iterator[np.ndarray] = field(default_factory=lambda: iter(()))
    promised_seconds: float | None = None
    is_promise_of_audio: bool = True
    is_promise_exact: bool = False
    is_damaged: bool = False
    last: float | None = None
    warnings: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    position: int = 0
    seconds_before: float = 0.0

    def begin_next(self, seconds_before: float) -> None:
        """Forget what the header of the earlier recording stated."""
        self.seconds_before = seconds_before
        self.position, self.promised_seconds = 0, None
        self.is_promise_exact = self.is_damaged = False
        self.last = None

    def check_damage(self, seconds: float) -> None:
        """Check that damaged packets are not all that there is at the end of a recording.

        Damage in the middle only makes a recording shorter. A warning says so.

        Args:
            seconds: that were decoded of the recording.

        Raises:
            DamagedAudio: its end is missing.
        """
        is_checked = self.is_damaged and self.is_promise_exact
        promised = (self.promised_seconds or 0.0) - self.seconds_before
        if is_checked and promised > max(seconds, self.last or 0.0) + EXACT_SLACK:
            raise damaged(seconds, f"the header promises {promised:.1f} s")

    def check_promise(self, seconds: float) -> None:
        """Warn if the header promises more than the given seconds of audio."""
        promised = self.promised_seconds if self.is_promise_of_audio else None
        slack = EXACT_SLACK if self.is_promise_exact else max(HEADER_SLACK, 0.01 * seconds)
        if promised is not None and promised > seconds + slack:
            message = f"the header promises {promised:.1f} s of audio, the file holds {seconds:.1f}"
            self.warnings.append(f"{message} s")


def check_layout(rate: int, channels: int) -> None:
    """Check the sample rate in Hz and the number of channels.

    Raises:
        UnsupportedAudio: one of them is out of range.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnsupportedAudio(f"the sample rate is {rate} Hz. {ACCEPTED}.")
    if not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedAudio(f"the recording has {channels} channels; 1 to {MAX_CHANNELS} work")


def damaged(seconds: float, cause: object) -> DamagedAudio:
    """The error for a recording that can be decoded for `seconds` only."""
    message = f"the recording is damaged or cut off after {seconds:.1f} s"
    return DamagedAudio(f"{message} ({str(cause).strip()})", seconds)
