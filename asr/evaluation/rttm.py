"""Read who speaks when from RTTM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.errors import InvalidOption
from asr.output.rttm import Turn

if TYPE_CHECKING:
    from pathlib import Path

N_FIELDS = 8


def read_rttm(path: Path, recording: str | None = None) -> tuple[Turn, ...]:
    """The turns of one recording, ordered by start.

    Args:
        path: the file. Lines of other types than SPEAKER, and comments, are ignored.
        recording: only the turns of the recording with this name; None for all turns, unless the
            file has turns of several recordings.

    Raises:
        InvalidOption: the file cannot be read, or a line is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("rttm", f"cannot read {path}: {error}") from error
    named = [
        _read_line(line.split(), f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.split()[:1] == ["SPEAKER"]
    ]
    names = {name for name, _ in named}
    wanted = names if recording is None or len(names) < 2 else {recording}
    return tuple(sorted(turn for name, turn in named if name in wanted))


def _read_line(fields: list[str], where: str) -> tuple[str, Turn]:
    if len(fields) < N_FIELDS:
        raise InvalidOption("rttm", f"{where}: must have at least {N_FIELDS} fields")
    try:
        start, seconds = float(fields[3]), float(fields[4])
    except ValueError as error:
        raise InvalidOption("rttm", f"{where}: start and duration must be numbers") from error
    if not (0 <= start < float("inf") and 0 <= seconds < float("inf")):
        raise InvalidOption("rttm", f"{where}: start and duration must not be negative")
    return fields[1], Turn(start, start + seconds, fields[7])
