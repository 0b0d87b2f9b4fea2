"""The numbers by which voices are told apart. They belong to one embedding model.

A model is an ONNX file; a JSON file of the same name beside it may replace any of the numbers:
``{"thresholds": {"relative": 0.6}}``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from asr.errors import SpeakersUnavailable

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 65536
"""A longer file of thresholds is refused."""


RANGES: Final = {
    "shortest": (0.05, 10.0),
    "pause": (0.0, 10.0),
    "reliable": (0.0, 10.0),
    "pure": (-1.0, 1.0),
    "relative": (0.0, 1.0),
    "smallest": (1, 1000),
    "smallest_share": (0.0, 1.0),
    "smallest_most": (1, 1000),
    "change": (0.0, 1000.0),
    "known_short": (-1.0, 1.0),
    "known_long": (-1.0, 1.0),
    "long_reference": (0.0, 300.0),
    "known_margin": (0.0, 2.0),
    "loose": (-1.0, 1.0),
    "fine_reliable": (0.0, 10.0),
    "fine_relative": (0.0, 1.0),
    "overlap": (0.0, 2.0),
}
"""The least and the greatest value of each number that no other number bounds."""
_TOP_LEVEL: Final = ("source", "sha256", "thresholds")
"""What a file may have."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers for CAM++, measured on the development conversations of docs/speakers.md.

    Cosines are those of the embeddings of two windows, or the mean over the windows of clusters.

    Attributes:
        window: seconds of a window, for which one embedding is computed.
        hop: seconds from one window to the next one.
        shortest: seconds; a shorter stretch of speech gets no window.
        pause: seconds between two words at which a window ends, because a speaker may change there.
        reliable: seconds; shorter windows do not found a speaker.
        pure: the first step joins windows and clusters above this cosine. They are one voice.
        relative: the second step joins two clusters while the mean cosine between them is more than
            this part of the mean cosine inside them. A telephone or a room raises all cosines, so
            a fixed number would fail.
        smallest: windows; smaller clusters go to the nearest voice. Overlapping speech makes such
            clusters.
        smallest_share: the same as a part of all windows, for longer recordings.
        smallest_most: windows; a cluster of this size is always a voice.
        change: what a change of the speaker between two words costs, in cosines summed over the
            10 ms frames of a word.
        known_short: least cosine of a voice and a known voice whose recording is shorter than
            `long_reference` seconds.
        known_long: likewise for longer recordings.
        long_reference: seconds.
        known_margin: how much nearer than the second nearest a known voice must be.
        loose: if the mean cosine inside a voice is less than this, it may be several, because the
            turns are short, and the recording is labelled again with fine windows.
        fine_window: seconds of a fine window.
        fine_hop: seconds from one fine window to the next one.
        fine_reliable: as `reliable`, for fine windows.
        fine_relative: as `relative`, for fine windows.
        overlap: a word whose voice leads the next one by a smaller cosine than this may be spoken
            by both, if the other voice speaks just before or after it.
        margins: by how much the cosine of a word's voice exceeds that of the next voice, ascending.
        confidences: the part of the words with each of these margins whose voice is right.
    """

    window: float = 1.5
    hop: float = 0.75
    shortest: float = 0.3
    pause: float = 0.15
    reliable: float = 0.75
    pure: float = 0.45
    relative: float = 0.63
    smallest: int = 3
    smallest_share: float = 0.02
    smallest_most: int = 5
    change: float = 3.0
    known_short: float = 0.50
    known_long: float = 0.40
    long_reference: float = 5.0
    known_margin: float = 0.10
    loose: float = 0.42
    fine_window: float = 1.0
    fine_hop: float = 0.5
    fine_reliable: float = 0.5
    fine_relative: float = 0.60
    overlap: float = 0.15
    margins: tuple[float, ...] = (-0.1, 0.0, 0.05, 0.1, 0.15, 0.3, 0.4)
    confidences: tuple[float, ...] = (0.5, 0.7, 0.78, 0.86, 0.94, 0.97, 0.99)

    def least_windows(self, n_windows: int) -> int:
        """The least windows of a cluster that is a voice, in a recording with `n_windows`."""
        share = math.ceil(self.smallest_share * n_windows)
        return max(self.smallest, min(share, self.smallest_most))

    def fine(self) -> Thresholds:
        """The thresholds for fine windows."""
        return replace(
            self,
            window=self.fine_window,
            hop=self.fine_hop,
            reliable=self.fine_reliable,
            relative=self.fine_relative,
        )

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low:g} to {high:g}")
        if not 0 < self.hop <= self.window <= 10:
            raise ValueError("hop and window must be 0 < hop <= window <= 10 seconds")
        if not 0 < self.fine_hop <= self.fine_window <= 10:
            raise ValueError("fine_hop and fine_window must be 0 < hop <= window <= 10 seconds")
        if len(self.margins) != len(self.confidences) or not self.margins:
            raise ValueError("margins and confidences must have as many numbers as each other")
        if list(self.margins) != sorted(self.margins):
            raise ValueError("margins must ascend")
        if any(not 0 <= confidence <= 1 for confidence in self.confidences):
            raise ValueError("confidences must lie between 0 and 1")


def read_thresholds(path: Path) -> Thresholds:
    """The thresholds of a file, with the defaults for numbers that it lacks.

    Raises:
        SpeakersUnavailable: the file is damaged, or names something unknown.
    """
    if not path.is_file():
        return Thresholds()
    try:
        given = _given(json.loads(path.read_text("utf-8")[:MAX_BYTES]))
        return Thresholds(**{name: _value(name, value) for name, value in given.items()})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SpeakersUnavailable(f"{path} is no file of thresholds: {error}") from error


def _given(found: Any) -> Any:
    """The thresholds of a file."""
    if unknown := [name for name in found if name not in _TOP_LEVEL]:
        raise ValueError(f"{unknown[0]} is not known; it may have {', '.join(_TOP_LEVEL)}")
    return found.get("thresholds", {})


def _value(name: str, value: Any) -> Any:
    default = {item.name: item.default for item in fields(Thresholds)}.get(name)
    if default is None:
        raise ValueError(f"{name} is not known")
    if not isinstance(default, tuple):
        return _number(name, value, int if isinstance(default, int) else float)
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list of numbers")
    return tuple(_number(name, item, float) for item in value)


def _number(name: str, value: Any, kind: type) -> Any:
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number")
    return value
