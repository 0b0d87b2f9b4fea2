"""The acoustic model of pocketsphinx: the senones of each phone, and their score in each frame.

A senone is a tied state of a triphone. We compute the likelihoods ourselves
(`asr.align.hmm.cepstra` and `mixtures`), because pocketsphinx can only compute those of all senones
or of the senones in its beams. We also search ourselves (`asr.align.hmm.viterbi`): a search over a
known text can be exact. Without beams it cannot lose the best path. So pocketsphinx is used only
for its model.

Sources: the formats of ``bin_mdef.c`` and ``tmat.c`` in https://github.com/cmusphinx/pocketsphinx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pocketsphinx

from asr.align.hmm.cepstra import HOP, WINDOW, cepstra
from asr.align.hmm.mixtures import Mixtures, features
from asr.pcm import from_bytes

STATES: Final = 3
"""Emitting states of every phone of this model."""
FRAME_SECONDS: Final = 0.01
FRAME_SAMPLES: Final = HOP
SILENCE: Final = "SIL"
PAUSE_PHONES: Final = (SILENCE, "+NSN+", "+SPN+")
"""What may be heard in a pause: silence, noise, and noises that a speaker makes."""
INTERNAL, BEGIN, END, SINGLE = range(4)
"""Position of a phone in its word, as the model numbers them."""

Senones = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Phones:
    """The phones of a model and their senones.

    Attributes:
        names: of the context-independent phones (monophones).
        stay: log-probability of staying in a state, shape (n_phones, STATES).
        leave: log-probability of leaving a state, same shape.
        phone_of_senone: the phone that each senone belongs to, shape (n_senones,).
        _single: the number of the senone sequence of each monophone.
        _triphones: that of each triphone, by position, phone, left and right neighbour; negative if
            the model lacks it. In a dict, each look-up would write reference counts, and a forked
            child would copy the page.
        _sequences: the senones of each sequence, shape (n_sequences, STATES).
    """

    names: tuple[str, ...]
    stay: np.ndarray
    leave: np.ndarray
    phone_of_senone: np.ndarray
    _single: np.ndarray
    _triphones: np.ndarray
    _sequences: np.ndarray

    def index(self, name: str) -> int:
        """Return the number of a phone.

        Raises:
            ValueError: the model has no such phone.
        """
        return self.names.index(name)

    def monophone(self, phone: int) -> Senones:
        """Return the context-independent senones of a phone."""
        return self._senones(self._single[phone])

    @property
    def all_monophones(self) -> np.ndarray:
        """The senones of all monophones, shape (n_phones * STATES,)."""
        senones: np.ndarray = self._sequences[self._single].ravel().astype(np.int64)
        return senones

    def triphone(self, phone: int, left: int, right: int, position: int) -> Senones:
        """Return the senones of a phone between two others.

        If the model lacks this triphone, we try silence as the left neighbour, then silence as the
        right neighbour. If it lacks these too, we take the monophone.
        """
        silent = self.index(SILENCE)
        for context in ((left, right), (silent, right), (left, silent)):
            sequence = int(self._triphones[position, phone, *context])
            if sequence >= 0:
                return self._senones(sequence)
        return self.monophone(phone)

    def _senones(self, sequence: int) -> Senones:
        first, second, third = (int(senone) for senone in self._sequences[sequence])
        return first, second, third


def read_phones(folder: Path) -> Phones:
    """Read the definition of a model and its transition matrices.

    Raises:
        ValueError: the folder holds another kind of model.
    """
    data = (folder / "mdef").read_bytes()
    if data[:4] != b"BMDF":
        raise ValueError(f"{folder / 'mdef'} is not a binary model definition")
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
    triphones = np.full((SINGLE + 1, n_phones, n_phones, n_phones), -1, np.int32)
    triphones[tuple(phones["attributes"][n_phones:].T)] = phones["sequence"][n_phones:]
    stay, leave = _read_transitions(folder / "transition_matrices")
    matrices = phones["matrix"][:n_phones]
    return Phones(
        names=tuple(name.decode("ascii") for name in names),
        stay=stay[matrices],
        leave=leave[matrices],
        phone_of_senone=_owners(phones, n_phones, sequences),
        _single=phones["sequence"][:n_phones],
        _triphones=triphones,
        _sequences=sequences,
    )


def _owners(phones: np.ndarray, n_monophones: int, sequences: np.ndarray) -> np.ndarray:
    """Return the phone of each senone; `phones` lists the monophones first, then the triphones."""
    numbers = phones["attributes"][:, 1].astype(np.int64)
    numbers[:n_monophones] = range(n_monophones)
    owners = np.zeros(int(sequences.max()) + 1, np.int64)
    owners[sequences[phones["sequence"]]] = numbers[:, None]
    return owners


def _read_transitions(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of staying in each state of each matrix, and of leaving it."""
    _, _, body = file.read_bytes().partition(b"endhdr\n")
    _, n_matrices, n_from, n_to, n_values = np.frombuffer(body, "<i4", 5)
    counts = np.frombuffer(body, "<f4", n_values, 20).reshape(n_matrices, n_from, n_to)
    shares = counts / counts.sum(axis=2, keepdims=True)
    stay = shares[:, range(STATES), range(STATES)]
    return np.log(stay).astype(np.float32), np.log(1 - stay).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of some senones in every frame of some audio.

    Attributes:
        senones: their numbers, ascending.
        values: log-likelihoods in nats, up to an additive constant per frame; shape
            (n_frames, n_senones).
    """

    senones: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def columns(self, senones: np.ndarray) -> np.ndarray:
        """Return the columns of `values` that belong to senones; all must have been scored."""
        return np.searchsorted(self.senones, senones)


class Scorer:
    """Scores senones in every frame of some audio."""

    def __init__(self) -> None:
        folder = Path(pocketsphinx.get_model_path("en-us")) / "en-us"
        self.phones = read_phones(folder)
        self._mixtures = Mixtures(folder, self.phones.phone_of_senone)

    def score(self, pcm: bytes, senones: np.ndarray) -> Scores:
        """Score some senones; the list may have duplicates.

        Digital silence, and audio shorter than a frame, give no frames.
        """
        wanted = np.unique(senones)
        if len(pcm) < 2 * WINDOW or not pcm.strip(b"\0"):
            return Scores(wanted, np.zeros((0, len(wanted)), np.float32))
        heard = features(cepstra(from_bytes(pcm)))
        return Scores(wanted, self._mixtures.score(heard, wanted))
