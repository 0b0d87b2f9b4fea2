"""The acoustic model of pocketsphinx: which senones make a phone, and how well each fits a frame.

pocketsphinx computes the likelihoods and writes them where its option ``senlogdir`` says. The
search for the words is ours (`asr.align.lattice`): an exact one over the text that is known needs
no beams, and so neither fails nor loses the path.

A senone is the tied state of a triphone. Scores are natural logarithms relative to the best senone
of the frame: 0 is the best, never above.

Sources: the formats of ``bin_mdef.c``, ``tmat.c`` and ``acmod.c`` in
https://github.com/cmusphinx/pocketsphinx
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pocketsphinx

from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Mapping

STATES: Final = 3
"""Emitting states of every phone of this model."""
FRAME_SECONDS: Final = 0.01
FRAME_SAMPLES: Final = SAMPLE_RATE // 100
WINDOW_BYTES: Final = 2 * 410
"""PCM16 of the shortest audio that has a frame."""
SILENCE: Final = "SIL"
FILLERS: Final = (SILENCE, "+NSN+", "+SPN+")
INTERNAL, BEGIN, END, SINGLE = range(4)
"""Where in its word a phone stands, as the model numbers it."""

NATS_PER_UNIT: Final = 1024 * float(np.log(1.0001))
"""pocketsphinx counts in logarithms to the base 1.0001, and drops ten bits of them in senones."""

Senones = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Phones:
    """The phones of a model and the senones behind them.

    Attributes:
        names: of the context-independent phones.
        stay: log-probability to stay in a state, shape (n_phones, STATES).
        leave: log-probability to go on, likewise.
    """

    names: tuple[str, ...]
    stay: np.ndarray
    leave: np.ndarray
    _single: np.ndarray
    _triphones: Mapping[tuple[int, int, int, int], int]
    _sequences: np.ndarray

    @property
    def n_senones(self) -> int:
        """How many a frame is scored with."""
        return int(self._sequences.max()) + 1

    def index(self, name: str) -> int:
        """The number of a phone.

        Raises:
            ValueError: the model has no such phone.
        """
        return self.names.index(name)

    def alone(self, phone: int) -> Senones:
        """The senones of a phone whatever stands around it."""
        return self._senones(self._single[phone])

    def between(self, phone: int, left: int, right: int, position: int) -> Senones:
        """The senones of a phone between two others; those of the phone alone if never heard."""
        silent = self.index(SILENCE)
        for context in ((left, right), (silent, right), (left, silent)):
            sequence = self._triphones.get((position, phone, *context))
            if sequence is not None:
                return self._senones(sequence)
        return self.alone(phone)

    def _senones(self, sequence: int) -> Senones:
        first, second, third = (int(senone) for senone in self._sequences[sequence])
        return first, second, third


def read_phones(folder: Path) -> Phones:
    """Read the definition of a model and its transition matrices."""
    data = (folder / "mdef").read_bytes()
    if data[:4] != b"BMDF":
        raise ValueError(f"{folder / 'mdef'} is no binary model definition")
    position = 12 + int.from_bytes(data[8:12], "little")
    header = np.frombuffer(data, "<i4", 10, position)
    n_phones, n_all, n_states, tree = int(header[0]), int(header[1]), header[2], int(header[8])
    if n_states != STATES:
        raise ValueError(f"a phone has {n_states} states, not {STATES}")
    position += header.nbytes
    names = tuple(data[position:].split(b"\0", n_phones)[:n_phones])
    length = sum(len(name) + 1 for name in names)
    position += -(-length // 4) * 4 + 8 * tree
    layout = np.dtype([("sequence", "<i4"), ("matrix", "<i4"), ("attributes", "u1", 4)])
    phones = np.frombuffer(data, layout, n_all, position)
    position += phones.nbytes
    n_senones = int.from_bytes(data[position : position + 4], "little")
    sequences = np.frombuffer(data, "<u2", n_senones, position + 4).reshape(-1, STATES)
    keys = map(tuple, phones["attributes"][n_phones:].tolist())
    triphones = dict(zip(keys, phones["sequence"][n_phones:].tolist(), strict=True))
    stay, leave = _read_transitions(folder / "transition_matrices")
    matrices = phones["matrix"][:n_phones]
    return Phones(
        names=tuple(name.decode("ascii") for name in names),
        stay=stay[matrices],
        leave=leave[matrices],
        _single=phones["sequence"][:n_phones],
        _triphones=triphones,
        _sequences=sequences,
    )


def _read_transitions(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities to stay in each state of each matrix, and to leave it."""
    _, _, body = file.read_bytes().partition(b"endhdr\n")
    _, n_matrices, n_from, n_to, n_values = np.frombuffer(body, "<i4", 5)
    counts = np.frombuffer(body, "<f4", n_values, 20).reshape(n_matrices, n_from, n_to)
    shares = counts / counts.sum(axis=2, keepdims=True)
    stay = shares[:, range(STATES), range(STATES)]
    return np.log(stay).astype(np.float32), np.log(1 - stay).astype(np.float32)


class Scorer:
    """How well every senone fits every frame of some audio.

    It goes into a folder of its own to score, so other threads must not rely on the current one.
    """

    def __init__(self) -> None:
        self.phones = read_phones(Path(pocketsphinx.get_model_path("en-us")) / "en-us")
        options: dict[str, Any] = {"lm": None, "loglevel": "FATAL", "cmn": "batch"}
        options |= {"compallsen": True, "senlogdir": ".", "samprate": SAMPLE_RATE}
        self._decoder = pocketsphinx.Decoder(**options)
        self._decoder.set_align_text("a")  # it scores only while it searches for something
        self._n_done = 0

    def score(self, pcm: bytes) -> np.ndarray:
        """Costs of the senones in units of `NATS_PER_UNIT`, int16 of shape (n_frames, n_senones).

        No frames if there is nothing to hear. The array lies in a file that has no name any more,
        and so vanishes with the process.
        """
        if len(pcm) < WINDOW_BYTES or not pcm.strip(b"\0"):
            return np.zeros((0, self.phones.n_senones), np.int16)
        with self._start() as scores:
            self._decoder.process_raw(pcm, full_utt=True)
            self._decoder.end_utt()
            ctypes.CDLL(None).fflush(None)  # the file is C's, and only a next utterance ends it
            return _read_scores(scores)

    def _start(self) -> io.BufferedReader:
        """Begin an utterance; return the file of its scores, which nobody else can find."""
        self._decoder.reinit_feat()  # else the estimate of the noise is carried along
        with tempfile.TemporaryDirectory(prefix="asr-senones-") as name, contextlib.chdir(name):
            self._decoder.start_utt()
            file = Path(f"{self._n_done:09d}.sen")
            self._n_done += 1
            return file.open("rb")


def _read_scores(file: io.BufferedReader) -> np.ndarray:
    """Map the score file, which holds for each frame the number of senones and their scores."""
    head = file.read(4096)
    offset = head.index(b"endhdr\n") + len(b"endhdr\n") + 4
    n_senones = int(head.partition(b"n_sen ")[2].split()[0])
    n_frames = (file.seek(0, io.SEEK_END) - offset) // (2 * (n_senones + 1))
    if n_frames == 0:
        return np.zeros((0, n_senones), np.int16)
    rows = np.memmap(file, "<i2", "r", offset, (n_frames, n_senones + 1))
    return rows[:, 1:]
