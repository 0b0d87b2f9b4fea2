"""OpenAI's "input audio buffer": converts the client's audio and cuts it into turns on disk.

The methods block on the processor and the disk. Call them in a thread, one at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.service.live.formats import Converter
from asr.service.live.turns import CommittedTurns, SpokenTurns, Turns
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from pathlib import Path

    from asr.service.live.session_config import SessionConfig
    from asr.service.live.turns import InputEvent, OpenTurn

KEPT_SECONDS: Final = 26
"""Audio that is kept in memory for partial results."""
STEP_SECONDS: Final = 10
"""Longer audio is converted in steps, so that memory does not grow with the size of messages."""


class RecentAudio:
    """The last `KEPT_SECONDS` of a session. One thread writes while another reads."""

    def __init__(self) -> None:
        self._blocks: deque[np.ndarray] = deque()
        self._start = self._end = 0
        self._lock = threading.Lock()

    def push(self, pcm: np.ndarray, end_sample: int) -> None:
        """Append int16 samples.

        Args:
            pcm: the samples.
            end_sample: of the session, after these samples. Samples before them may be missing.
        """
        with self._lock:
            if end_sample - len(pcm) != self._end:
                self._blocks.clear()
                self._start = end_sample - len(pcm)
            self._blocks.append(pcm)
            self._end = end_sample
            while self._end - self._start - len(self._blocks[0]) > KEPT_SECONDS * SAMPLE_RATE:
                self._start += len(self._blocks.popleft())

    def read(self, start_sample: int, end_sample: int) -> np.ndarray | None:
        """The samples in [start_sample, end_sample), or None if some of them are not kept."""
        with self._lock:
            if start_sample < self._start or end_sample > self._end:
                return None
            start, blocks = self._start, list(self._blocks)
        return np.concatenate([np.zeros(0, np.int16), *blocks])[
            start_sample - start : end_sample - start
        ]


class InputBuffer:
    """The audio of one session.

    Args:
        config: of the session, until `configure` changes it.
        folder: for the files of turns.

    Attributes:
        n_samples: appended so far, at 16 kHz.
        recent: the last seconds of audio; empty without partial results.
    """

    def __init__(self, config: SessionConfig, folder: Path) -> None:
        self._folder = folder
        self.n_samples = 0
        self.recent = RecentAudio()
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
        config, origin = self._config, self.n_samples
        has_partials = config.partials is not None
        if config.turn_detection is None:
            vad = config.vad_options if has_partials else None
            return CommittedTurns(self._folder, origin, vad)
        return SpokenTurns(config.vad_options, self._folder, origin, has_partials=has_partials)

    def _push(self, pcm: np.ndarray) -> list[InputEvent]:
        self.n_samples += len(pcm)
        if self._config.partials is not None:
            self.recent.push(pcm, self.n_samples)
        return self._turns.push(pcm)

    @property
    def open_turn(self) -> OpenTurn | None:
        """The unfinished turn, if there is one with speech."""
        return self._turns.open_turn
