"""The Gaussian mixtures of pocketsphinx's acoustic model: how well its senones fit a frame.

All senones of a phone share 128 Gaussians in each of three streams: the cepstra, their differences,
and the differences of those. A senone weights them in a way of its own. pocketsphinx computes that
too, but for every senone of the model, one number after the other. A text has some thousand of the
5,126, and matrix products take a sixth of the time.

What pocketsphinx approximates, for speed that is not needed here, is approximated likewise: only
the best four Gaussians of a phone count, none counts as worse than `FLOOR`, and logarithms of the
Gaussians are cut to whole units. The prices of the search and the confidences of words were
measured with that. The two differ by what pocketsphinx rounds afterwards, some 0.1 nats.

Sources: the formats and the arithmetic of ``ms_gauden.c``, ``ptm_mgau.c``, ``feat.c`` and ``cmn.c``
in https://github.com/cmusphinx/pocketsphinx
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STREAMS: Final = 3
CEPSTRA: Final = 13
BEST: Final = 4
"""Gaussians of a phone that count in a frame."""
LOG_UNIT: Final = float(np.log(1.0001))
"""Nats; pocketsphinx counts in logarithms to the base 1.0001, and cuts those of Gaussians."""
WEIGHT_UNIT: Final = 1024 * LOG_UNIT
"""Nats; those of weights lack ten bits."""
FLOOR: Final = -96 * WEIGHT_UNIT
"""Nats below the best Gaussian of the stream, in any phone, below which none counts."""
MIN_VARIANCE: Final = 1e-4
BLOCK_FRAMES: Final = 64
"""Scored at once, so that what is computed stays in the cache."""


class Mixtures:
    """The Gaussians of a model, and the weights that its senones give them.

    Args:
        folder: of the model.
        phone_of_senone: whose Gaussians each senone weights, shape (n_senones,).

    Raises:
        ValueError: the folder holds another kind of model.
    """

    def __init__(self, folder: Path, phone_of_senone: np.ndarray) -> None:
        means = _read_parameters(folder / "means")
        variances = np.maximum(_read_parameters(folder / "variances"), MIN_VARIANCE)
        self._phone_of_senone = phone_of_senone
        self._shape = means.shape[0], means.shape[2]
        self._forms = [_forms(means[:, it], variances[:, it]) for it in range(STREAMS)]
        n_weights = STREAMS, self._shape[1], len(phone_of_senone)
        self._weights = _read_weights(folder / "sendump", n_weights)

    def score(self, features: Sequence[np.ndarray], senones: np.ndarray) -> np.ndarray:
        """Log-likelihoods in nats, but for a number in each frame; (n_frames, n_senones), float32.

        Args:
            features: of each stream, shape (n_frames, CEPSTRA).
            senones: numbers of those to be scored.
        """
        n_frames = len(features[0])
        scores = np.zeros((n_frames, len(senones)), np.float32)
        order = np.argsort(self._phone_of_senone[senones], kind="stable")
        phones, firsts = np.unique(self._phone_of_senone[senones[order]], return_index=True)
        ends = [*firsts[1:], len(senones)]
        weights = np.exp(-WEIGHT_UNIT * self._weights[:, :, senones[order]].astype(np.float32))
        for begin in range(0, n_frames, BLOCK_FRAMES):
            block = slice(begin, begin + BLOCK_FRAMES)
            for stream in range(STREAMS):
                fits = self._fits(features[stream][block], stream)
                mixed = np.empty((len(fits), len(senones)), np.float32)
                for phone, first, end in zip(phones, firsts, ends, strict=True):
                    mixed[:, first:end] = fits[:, phone] @ weights[stream][:, first:end]
                scores[block] += np.log(mixed, out=mixed)
        return scores[:, np.argsort(order)]

    def _fits(self, features: np.ndarray, stream: int) -> np.ndarray:
        """The density of each Gaussian, by the stream's best; 0 but for the best of each phone.

        Shape (n_frames, n_phones, n_gaussians).
        """
        ones = np.ones((len(features), 1), np.float32)
        terms = np.concatenate([features**2, features, ones], axis=1)
        fits: np.ndarray = (terms @ self._forms[stream]).reshape(-1, *self._shape)
        best = np.partition(fits, -BEST, axis=2)[:, :, -BEST:]
        counts = fits >= best[:, :, :1]
        fits -= best.max(axis=(1, 2))[:, None, None]
        np.maximum(fits, FLOOR, out=fits)
        np.exp(fits, out=fits)
        fits *= counts
        return fits


def features(cepstra: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the model sees of some audio: a stream each of shape (n_frames, CEPSTRA).

    Args:
        cepstra: shape (n_frames, CEPSTRA), of all of the audio, whose mean is taken off.
    """
    heard = cepstra[cepstra[:, 0] >= 0]  # the others have no energy at all
    level = cepstra - heard.mean(axis=0) if len(heard) else cepstra
    wide = np.pad(level, ((3, 3), (0, 0)), "edge")

    def shifted(frames: int) -> np.ndarray:
        return wide[3 + frames : 3 + frames + len(level)]

    rise = shifted(2) - shifted(-2)
    bend = (shifted(3) - shifted(-1)) - (shifted(1) - shifted(-3))
    return level, rise, bend


def _forms(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """By what squares, values and 1 are multiplied to give the log of each Gaussian.

    Args:
        means: shape (n_phones, n_gaussians, CEPSTRA).
        variances: likewise.

    Returns:
        Float32 of shape (2 * CEPSTRA + 1, n_phones * n_gaussians).
    """
    narrow = np.trunc(0.5 / variances / LOG_UNIT) * LOG_UNIT
    heights = np.trunc(-0.5 * np.log(2 * np.pi * variances) / LOG_UNIT) * LOG_UNIT
    constant = (heights - narrow * means**2).sum(axis=2)
    forms = np.concatenate([-narrow, 2 * narrow * means, constant[:, :, None]], axis=2)
    return np.ascontiguousarray(forms.reshape(-1, forms.shape[2]).T, np.float32)


def _read_parameters(file: Path) -> np.ndarray:
    """Means or variances, float64 of shape (n_phones, STREAMS, n_gaussians, CEPSTRA)."""
    _, _, body = file.read_bytes().partition(b"endhdr\n")
    n_phones, n_streams, n_gaussians = (int(it) for it in np.frombuffer(body, "<i4", 3, 4))
    sizes = np.frombuffer(body, "<i4", n_streams, 16).tolist()
    if sizes != [CEPSTRA] * STREAMS:
        raise ValueError(f"{file} has streams of {sizes} values, not {STREAMS} of {CEPSTRA}")
    shape = n_phones, n_streams, n_gaussians, CEPSTRA
    offset = 16 + 4 * n_streams + 4
    values = np.frombuffer(body, "<f4", int(np.prod(shape)), offset)
    return values.reshape(shape).astype(np.float64)


def _read_weights(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Negative logarithms in units of `WEIGHT_UNIT`: of each stream, Gaussian and senone; uint8."""
    data = file.read_bytes()
    position = 0
    fields = []
    while length := int.from_bytes(data[position : position + 4], "little"):
        fields.append(data[position + 4 : position + 4 + length].rstrip(b"\0"))
        position += 4 + length
    sizes = tuple(np.frombuffer(data, "<i4", 2, position + 4).tolist())
    if b"cluster_count 0" not in fields or sizes != shape[1:]:
        raise ValueError(f"{file} has weights of another kind, {sizes[0]} by {sizes[1]}")
    return np.frombuffer(data, "u1", int(np.prod(shape)), position + 12).reshape(shape)
