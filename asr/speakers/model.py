"""A speaker model on ONNX Runtime: samples in, one embedding for each window out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from asr.errors import SpeakersUnavailable
from asr.onnx_runtime import load_session
from asr.speakers.clustering import unit
from asr.speakers.fbank import FRAMES_PER_SECOND, N_MELS, fbank

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asr.speakers.windows import Span

BATCH: Final = 16
"""Windows of one length that are computed at once."""
MIN_FRAMES: Final = 10
PIECE_SECONDS: Final = 10.0
"""A known voice longer than this is embedded in pieces, whose mean is its embedding."""


class SpeakerModel:
    """A loaded model. The same samples give the same embeddings.

    Args:
        path: the ONNX file. It has one input of shape (batch, frames, 80) for log-mel features
            without their mean, and one output of shape (batch, size).

    Attributes:
        size: numbers of an embedding.

    Raises:
        SpeakersUnavailable: the file is of another kind of model.
    """

    def __init__(self, path: Path) -> None:
        self._session = load_session(path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = inputs[0].shape, outputs[0].shape
        is_fitting = len(inputs) == 1 and [len(shape) for shape in shapes] == [3, 2]
        if not is_fitting or shapes[0][2] != N_MELS:
            raise SpeakersUnavailable(
                f"{path.name} is no speaker model: it must turn (batch, frames, {N_MELS}) into "
                f"(batch, size), not {shapes[0]} into {shapes[1]}"
            )
        self._input = inputs[0].name
        self.size = self._run(np.zeros((1, FRAMES_PER_SECOND, N_MELS), np.float32)).shape[1]

    def embed(self, samples: np.ndarray, windows: Sequence[Span]) -> np.ndarray:
        """The embedding of each window, as float32 unit vectors of shape (n, size).

        Args:
            samples: at 16 kHz.
            windows: start and end in seconds from the first sample.
        """
        features = fbank(samples)
        cut = [_frames_of(features, window) for window in windows]
        by_length: dict[int, list[int]] = {}
        for number, frames in enumerate(cut):
            by_length.setdefault(len(frames), []).append(number)
        embeddings = np.zeros((len(cut), self.size), np.float32)
        for numbers in by_length.values():
            for start in range(0, len(numbers), BATCH):
                batch = numbers[start : start + BATCH]
                embeddings[batch] = self._run(np.stack([cut[number] for number in batch]))
        return unit(embeddings)

    def embed_voice(self, samples: np.ndarray) -> np.ndarray:
        """One embedding of a known voice, a unit vector. All samples should be speech."""
        features = fbank(samples)
        n_pieces = max(1, round(len(features) / FRAMES_PER_SECOND / PIECE_SECONDS))
        pieces = [piece - piece.mean(axis=0) for piece in np.array_split(features, n_pieces)]
        return unit(unit(np.concatenate([self._run(piece[None]) for piece in pieces])).mean(axis=0))

    def _run(self, features: np.ndarray) -> np.ndarray:
        (embeddings,) = self._session.run(None, {self._input: features})
        found: np.ndarray = embeddings
        return found


def _frames_of(features: np.ndarray, window: Span) -> np.ndarray:
    """The frames that lie inside a window, without their mean.

    The mean is the loudness and the line, which say nothing about the voice.
    """
    first = min(round(window[0] * FRAMES_PER_SECOND), max(0, len(features) - MIN_FRAMES))
    # A frame reaches 25 ms from its start, so the last two starts lie too late.
    last = max(first + MIN_FRAMES, round(window[1] * FRAMES_PER_SECOND) - 2)
    frames = features[first:last]
    centred: np.ndarray = frames - frames.mean(axis=0)
    return centred
