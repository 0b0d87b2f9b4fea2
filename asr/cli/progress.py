"""The progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from asr.pipeline.run import Progress

if TYPE_CHECKING:
    from asr.pipeline.run import Event


class Bar:
    """A progress bar in seconds of audio, with RTFx and the time left. Drawn only on a terminal."""

    FORMAT = (
        "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s of audio"
        "{postfix}, {remaining} left"
    )

    def __init__(self, name: str, *, hidden: bool) -> None:
        off = True if hidden else None  # None: tqdm draws only on a terminal
        self._tqdm = tqdm(
            total=1.0, desc=Path(name).name, bar_format=self.FORMAT, postfix="", disable=off
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def on_event(self, event: Event) -> None:
        """Show the progress of a transcription."""
        if not isinstance(event, Progress) or self._tqdm.disable:
            return
        self._tqdm.total = event.total or max(event.decoded, 1.0)
        self._tqdm.n = min(event.transcribed, self._tqdm.total)
        elapsed = self._tqdm.format_dict["elapsed"]
        rtfx = self._tqdm.n / elapsed if elapsed else 0.0
        self._tqdm.set_postfix_str(f"RTFx {rtfx:.1f}")
