"""The audio of a session, from the client's bytes to turns on disk.

Its methods work on the processor and the disk and are called in a thread, one at a time.
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
"""Longer audio is taken apart, so that memory does not follow the size of messages."""


class Intake:
    """Converts what comes and cuts it into turns.

    Args:
        config: of the session, until `configure` changes it.
        folder: for the turns.

    Attributes:
        n_samples: at 16 kHz, so far.
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
        """Begin anew with another format or other turns; what was not a turn yet is forgotten."""
        self._turns.clear()
        self._begin(config)

    def take(self, data: bytes) -> list[InputEvent]:
        """Take bytes as the client sent them; return what began and ended in them."""
        step = self._config.format.bytes_per_second * STEP_SECONDS
        events: list[InputEvent] = []
        for start in range(0, len(data), step):
            events += self._push(self._converter.push(data[start : start + step]))
        return events

    def end_turn(self) -> list[InputEvent]:
        """End the turn here; no `Turn` comes back when there is none."""
        return self._push(self._converter.finish()) + self._turns.commit()

    def forget(self) -> None:
        """Forget what is not a turn yet."""
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
