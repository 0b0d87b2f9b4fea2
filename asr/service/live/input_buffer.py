"""OpenAI's "input audio buffer": converts the client's audio and cuts it into turns on disk.

The methods block on the processor and the disk. Call them in a thread, one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asr.service.live.formats import Converter
from asr.service.live.turns import CommittedTurns, SpokenTurns, Turns

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from asr.service.live.client_events import SessionConfig
    from asr.service.live.turns import InputEvent

STEP_SECONDS: Final = 10
"""Longer audio is converted in steps, so that memory does not grow with the size of messages."""


class InputBuffer:
    """The audio of one session.

    Args:
        config: of the session, until `configure` changes it.
        folder: for the files of turns.

    Attributes:
        n_samples: appended so far, at 16 kHz.
    """

    def __init__(self, config: SessionConfig, folder: Path) -> None:
        self._folder = folder
        self.n_samples = 0
        self._begin(config)

    def _begin(self, config: SessionConfig) -> None:
        self._config = config
        self._converter = Converter(config.format)
        self._turns = self._new_turns()

    def configure(self, config: SessionConfig) -> None:
        """Change the format or the way turns are found. An unfinished turn is discarded."""
        self._turns.clear()
        self._begin(config)

    def append(self, data: bytes) -> list[InputEvent]:
        """Append bytes in the client's format; returns the events that they cause."""
        step = self._config.format.bytes_per_second * STEP_SECONDS
        events: list[InputEvent] = []
        for start in range(0, len(data), step):
            events += self._push(self._converter.push(data[start : start + step]))
        return events

    def commit(self) -> list[InputEvent]:
        """End the current turn. The result contains its `Turn`, unless there was no turn."""
        return self._push(self._converter.finish()) + self._turns.commit()

    def clear(self) -> None:
        """Discard the unfinished turn and its file."""
        self.n_samples += len(self._converter.finish())
        self._turns.clear()
        self._turns = self._new_turns()

    def _new_turns(self) -> Turns:
        if self._config.turn_detection is None:
            return CommittedTurns(self._folder, self.n_samples)
        return SpokenTurns(self._config.vad_options, self._folder, self.n_samples)

    def _push(self, pcm: np.ndarray) -> list[InputEvent]:
        self.n_samples += len(pcm)
        return self._turns.push(pcm)
