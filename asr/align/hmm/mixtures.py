"""The Gaussian mixtures of pocketsphinx's acoustic model: the likelihoods of its senones.

There are three feature streams: the cepstra, their differences, and the differences of these. In
each stream all senones of a phone share 128 Gaussians, and each senone has its own weights for
them. pocketsphinx computes the same likelihoods, but for all 5,126 senones of the model and one
number at a time. We compute only the senones that a text needs, about a thousand, with compiled
loops (`asr.align.hmm.compiled.mixing`) or, without numba, with matrix products.

pocketsphinx approximates to save time. We make the same approximations, because the prices of the
search and the confidences of words were measured with them: only the best four Gaussians of a phone
count, none counts less than `FLOOR`, and log-likelihoods of Gaussians are truncated to whole units.
Our results differ from pocketsphinx's by about 0.1 nats, because pocketsphinx rounds again later.

Sources: the formats and the arithmetic of ``ms_gauden.c``, ``ptm_mgau.c``, ``feat.c`` and ``cmn.c``
in https://github.com/cmusphinx/pocketsphinx
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from asr.align.hmm import compiled, memory
from asr.align.hmm.cepstra import CEPSTRA

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STREAMS: Final = 3
GAUSSIANS: Final = 128
"""Of each phone in each stream."""
BEST: Final = 4
"""How many Gaussians of a phone count in a frame."""
LOG_UNIT: Final = float(np.log(1.0001))
"""Nats; pocketsphinx uses integer logarithms to the base 1.0001."""
WEIGHT_UNIT: Final = 1024 * LOG_UNIT
"""Nats; the logarithms of weights are stored without their lowest ten bits."""
FLOOR: Final = -96 * WEIGHT_UNIT
"""Lowest score of a Gaussian, in nats relative to the best Gaussian of the stream (all phones)."""
MIN_VARIANCE: Final = 1e-4
BLOCK_FRAMES: Final = 64
"""How many frames numpy scores at once; intermediate results then stay in the CPU's cache."""
_WEIGHTS: Final = np.exp(-WEIGHT_UNIT * np.arange(256))
"""The weight that each code in the file stands for."""


class Mixtures:
    """The Gaussians of a model, and the weights of its senones.

    Args:
        folder: of the model.
        phone_of_senone: the phone whose Gaussians each senone uses, shape (n_senones,).

    Raises:
        ValueError: the folder holds another kind of model.
    """

    def __init__(self, folder: Path, phone_of_senone: np.ndarray) -> None:
        means = _read_parameters(folder / "means")
        variances = np.maximum(_read_parameters(folder / "variances"), MIN_VARIANCE)
        self._phone_of_senone = phone_of_senone
        self._n_phones = means.shape[0]
        self._forms = np.stack([_forms(means[:, it], variances[:, it]) for it in range(STREAMS)])
        n_weights = STREAMS, GAUSSIANS, len(phone_of_senone)
        codes = _read_weights(folder / "sendump", n_weights)
        self._codes = np.ascontiguousarray(codes.transpose(2, 0, 1))
        compiled.load("mixing")

    def score(self, features: Sequence[np.ndarray], senones: np.ndarray) -> np.ndarray:
        """Compute log-likelihoods in nats, up to an additive constant per frame.

        Args:
            features: of each stream, shape (n_frames, CEPSTRA).
            senones: numbers of the senones to score.

        Returns:
            Float32, shape (n_frames, n_senones).
        """
        order = np.argsort(self._phone_of_senone[senones], kind="stable")
        phones, counts = np.unique(self._phone_of_senone[senones], return_counts=True)
        streams = np.stack(features).astype(np.float32, order="C", copy=False)
        loops = compiled.load("mixing")
        if loops is None:
            return self._score(streams, senones[order], phones, counts)[:, np.argsort(order)]
        weights = _padded_weights(phones, counts, order, loops.LANES)
        table = (_WEIGHTS * loops.WEIGHT_SCALE).astype(np.float32)
        loops.lay_out_weights(self._codes, table, senones[order], np.cumsum(counts), weights)
        scores = memory.zeros((streams.shape[1], len(senones)), np.float32)
        loops.score(streams, self._forms, weights, scores)
        return scores

    def _score(
        self, streams: np.ndarray, senones: np.ndarray, phones: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """Score senones that are sorted by their phones, with numpy."""
        scores = np.zeros((streams.shape[1], len(senones)), np.float32)
        weights = _WEIGHTS.astype(np.float32)[self._codes[senones].transpose(1, 2, 0)]
        ends = np.cumsum(counts)
        for begin in range(0, len(scores), BLOCK_FRAMES):
            block = slice(begin, begin + BLOCK_FRAMES)
            for stream in range(STREAMS):
                fits = self._fits(streams[stream, block], stream)
                mixed = np.empty((len(fits), len(senones)), np.float32)
                for phone, first, end in zip(phones, ends - counts, ends, strict=True):
                    mixed[:, first:end] = fits[:, phone] @ weights[stream][:, first:end]
                scores[block] += np.log(mixed, out=mixed)
        return scores

    @functools.cached_property
    def _factors(self) -> list[np.ndarray]:
        """The coefficients of the squares, of the values, and of 1, for matrix products."""
        factors = []
        for forms in self._forms:
            narrow, shift, height = np.split(forms.T, (CEPSTRA, 2 * CEPSTRA))
            constant = height - (shift**2).sum(axis=0)
            factors.append(np.concatenate([-(narrow**2), 2 * narrow * shift, constant]))
        return factors

    def _fits(self, features: np.ndarray, stream: int) -> np.ndarray:
        """Compute the density of each Gaussian relative to the best Gaussian of the stream.

        Returns:
            Shape (n_frames, n_phones, GAUSSIANS); 0 for all but the best `BEST` of each phone.
        """
        terms = np.concatenate([features**2, features, np.ones_like(features[:, :1])], axis=1)
        fits: np.ndarray = (terms @ self._factors[stream]).reshape(-1, self._n_phones, GAUSSIANS)
        # The compiled loops replace the lowest bits in the same way. So no two Gaussians are equal.
        numbered = fits.view(np.int32)
        numbered &= ~np.int32(GAUSSIANS - 1)
        numbered |= np.arange(GAUSSIANS, dtype=np.int32)
        best = np.partition(fits, -BEST, axis=2)[:, :, -BEST:]
        counts = fits >= best[:, :, :1]
        fits -= best.max(axis=(1, 2))[:, None, None]
        np.maximum(fits, FLOOR, out=fits)
        np.exp(fits, out=fits)
        fits *= counts
        return fits


class Weights(NamedTuple):
    """The weights of some senones, for the compiled loops.

    The senones of each phone are padded to a multiple of the vector lanes. Their weights are a
    matrix of shape (STREAMS * GAUSSIANS, n_padded).

    Attributes:
        values: of the matrices of all phones.
        phones: ascending.
        starts: the first padded senone of each phone, and the number of padded senones.
        places: of each senone that is to be scored among the padded ones.
    """

    values: np.ndarray
    phones: np.ndarray
    starts: np.ndarray
    places: np.ndarray


def _padded_weights(
    phones: np.ndarray, counts: np.ndarray, order: np.ndarray, n_lanes: int
) -> Weights:
    """Lay out weights that are all 0.

    Args:
        phones: ascending.
        counts: how many senones each phone has.
        order: sorts the senones by their phones.
        n_lanes: the senones of each phone are padded to a multiple of this.
    """
    starts = np.concatenate(([0], np.cumsum(-(-counts // n_lanes) * n_lanes)))
    places = np.empty(len(order), np.int64)
    shifts = starts[:-1] - (np.cumsum(counts) - counts)
    places[order] = np.arange(len(order)) + np.repeat(shifts, counts)
    values = memory.zeros((STREAMS * GAUSSIANS * int(starts[-1]),), np.float32)
    return Weights(values, phones, starts, places)


def features(cepstra: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute the three feature streams, each of shape (n_frames, CEPSTRA).

    Args:
        cepstra: of the whole audio, shape (n_frames, CEPSTRA); their mean is subtracted.
    """
    heard = cepstra[cepstra[:, 0] >= 0]  # other frames are digital silence and would bias the mean
    level = cepstra - heard.mean(axis=0) if len(heard) else cepstra
    wide = np.pad(level, ((3, 3), (0, 0)), "edge")

    def shifted(frames: int) -> np.ndarray:
        return wide[3 + frames : 3 + frames + len(level)]

    rise = shifted(2) - shifted(-2)
    bend = (shifted(3) - shifted(-1)) - (shifted(1) - shifted(-3))
    return level, rise, bend


def _forms(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Compute the coefficients of each Gaussian.

    The log-density at x is the last coefficient minus the sum of the squares of (a * x - b), where
    the first `CEPSTRA` coefficients are a and the next are b.

    Args:
        means: shape (n_phones, GAUSSIANS, CEPSTRA).
        variances: same shape.

    Returns:
        Float32 of shape (n_phones * GAUSSIANS, 2 * CEPSTRA + 1).
    """
    narrow = np.sqrt(np.trunc(0.5 / variances / LOG_UNIT) * LOG_UNIT)
    heights = np.trunc(-0.5 * np.log(2 * np.pi * variances) / LOG_UNIT) * LOG_UNIT
    forms = np.concatenate([narrow, narrow * means, heights.sum(axis=2, keepdims=True)], axis=2)
    return forms.reshape(-1, forms.shape[2]).astype(np.float32)


def _read_parameters(file: Path) -> np.ndarray:
    """Read means or variances, float64 of shape (n_phones, STREAMS, n_gaussians, CEPSTRA)."""
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
    """Read mixture weights as uint8: negative logarithms in units of `WEIGHT_UNIT`.

    Args:
        file: ``sendump``.
        shape: (STREAMS, n_gaussians, n_senones), of the result too.

    Raises:
        ValueError: the file holds weights of another kind.
    """
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
