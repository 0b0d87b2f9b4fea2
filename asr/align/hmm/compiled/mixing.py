"""The inner loops of the aligner, compiled by numba.

`asr.align.hmm.mixtures` and `asr.align.hmm.viterbi` use this module if numba can be imported, and
compute the same with numpy if not. numba compiles when this module is imported, once for each kind
of CPU and each version of this file, and keeps the result in ``__pycache__`` or in the user's cache
folder.

numpy writes every intermediate result to memory and then reads it again. Here a block of frames
stays in the cache of the core from the features to the scores. This also matters if all cores are
busy, because they share the memory.

The innermost loops run over frames or senones, so that the compiler can use vector instructions. No
function here starts threads, so a process that imported this module can fork.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import intrinsic

from asr.align.hmm.cepstra import CEPSTRA
from asr.align.hmm.compiled.compiler import compiled, inlined
from asr.align.hmm.mixtures import BEST, FLOOR, GAUSSIANS, STREAMS, Weights

BLOCK_FRAMES: Final = 128
"""How many frames are scored at once."""
LANES: Final = 8
"""A multiple of the number of vector lanes. Loops of such a length need no remainder."""
WEIGHT_SCALE: Final = 2.0**29
"""Keeps the product of three likelihoods, one from each stream, inside the range of float32."""

_FLOATS: Final = types.float32[::1]
_INTEGERS: Final = types.int64[::1]
_FEATURES: Final = types.float32[:, :, ::1]
_WEIGHTS: Final = types.NamedTuple((_FLOATS, _INTEGERS, _INTEGERS, _INTEGERS), Weights)
_ROWS: Final = STREAMS * GAUSSIANS
_N: Final = BLOCK_FRAMES
_LOWEST: Final = np.float32(-3e38)
_FLOOR: Final = np.float32(FLOOR)
_INDEX_BITS: Final = np.int32(GAUSSIANS - 1)
_LOG2_E: Final = np.float32(np.log2(np.e))
_LN_2: Final = np.float32(np.log(2))
_MANTISSA: Final = np.int32(0x7FFFFF)
_TWO_THIRDS: Final = np.int32(0x3F2AAAAB)
"""The bits of 2/3 as float32."""
_UNSCALE: Final = np.float32(-STREAMS * np.log(WEIGHT_SCALE))


@intrinsic  # type: ignore[untyped-decorator]
def _bits(_typing: Any, _value: Any) -> Any:
    """Return the bits of a float32 as int32."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _from_bits(_typing: Any, _value: Any) -> Any:
    """Return the float32 that has these bits."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@inlined
def _exp(value: Any) -> Any:
    """Compute the exponential function of a number from -80 to 0, in float32 without a branch."""
    power = value * _LOG2_E
    whole = np.int32(power - np.float32(0.5))
    rest = power - np.float32(whole)
    series = np.float32(0.0013266971)
    series = series * rest + np.float32(0.00967546)
    series = series * rest + np.float32(0.055507425)
    series = series * rest + np.float32(0.24022122)
    series = series * rest + np.float32(0.69314694)
    series = series * rest + np.float32(1.0)
    return series * _from_bits((whole + np.int32(127)) << np.int32(23))


@inlined
def _log(value: Any) -> Any:
    """Compute the natural logarithm of a normal positive number, in float32 without a branch."""
    bits = _bits(value) - _TWO_THIRDS
    rest = _from_bits((bits & _MANTISSA) + _TWO_THIRDS) - np.float32(1.0)
    series = np.float32(-0.15403156)
    series = series * rest + np.float32(0.17111227)
    series = series * rest + np.float32(-0.1641280)
    series = series * rest + np.float32(0.1979503)
    series = series * rest + np.float32(-0.25008026)
    series = series * rest + np.float32(0.3333799)
    series = series * rest + np.float32(-0.4999993)
    series = series * rest + np.float32(0.9999998)
    return series * rest + np.float32(bits >> np.int32(23)) * _LN_2


@inlined
def _insert_gaussian(values: Any, form: Any, number: Any, n_frames: Any, best: Any) -> None:
    """Score a Gaussian in each frame, and insert it into the best four of the phone.

    The number of the Gaussian replaces the lowest seven bits of its score. So one comparison moves
    both. This changes the score by less than a 65,000th.
    """
    for frame in range(n_frames):
        score = form[2 * CEPSTRA]
        for value in range(CEPSTRA):
            distance = form[value] * values[value * _N + frame] - form[CEPSTRA + value]
            score -= distance * distance
        new = _from_bits((_bits(score) & ~_INDEX_BITS) | number)
        first, second = best[frame], best[frame + _N]
        third, fourth = best[frame + 2 * _N], best[frame + 3 * _N]
        best[frame] = max(new, first)
        new = min(new, first)
        best[frame + _N] = max(new, second)
        new = min(new, second)
        best[frame + 2 * _N] = max(new, third)
        new = min(new, third)
        best[frame + 3 * _N] = max(new, fourth)


@inlined
def _find_best(values: Any, forms: Any, n_frames: Any, best: Any) -> None:
    """Find the best four Gaussians of each phone in each frame.

    Args:
        values: the features, shape (CEPSTRA * BLOCK_FRAMES,).
        forms: of one stream, shape (n_phones * GAUSSIANS, 2 * CEPSTRA + 1).
        n_frames: how many frames of the block are used.
        best: is filled, shape (n_phones, BEST * BLOCK_FRAMES).
    """
    best[:] = _LOWEST
    for phone in range(len(best)):
        for number in range(GAUSSIANS):
            form = forms[phone * GAUSSIANS + number]
            _insert_gaussian(values, form, np.int32(number), n_frames, best[phone])


@inlined
def _weigh(best: Any, numbers: Any, n_frames: Any, highest: Any) -> None:
    """Split the scores of the best four into the numbers of the Gaussians and their densities.

    A density is relative to the best Gaussian of all phones in the frame.
    """
    n_phones = len(best)
    for frame in range(n_frames):
        highest[frame] = best[0, frame]
    for phone in range(1, n_phones):
        for frame in range(n_frames):
            highest[frame] = max(highest[frame], best[phone, frame])
    for phone in range(n_phones):
        for rank in range(BEST):
            for frame in range(n_frames):
                score = best[phone, rank * _N + frame]
                numbers[phone, rank * _N + frame] = _bits(score) & _INDEX_BITS
                best[phone, rank * _N + frame] = _exp(max(score - highest[frame], _FLOOR))


@inlined
def _mix(best: Any, numbers: Any, phone: Any, n_frames: Any, weights: Any, mixed: Any) -> None:
    """Mix the Gaussians of a phone for each of its senones, and multiply the streams.

    Args:
        best: densities, shape (STREAMS, n_phones, BEST * BLOCK_FRAMES).
        numbers: of the Gaussians, same shape.
        phone: its number.
        n_frames: how many frames of the block are used.
        weights: shape (STREAMS * GAUSSIANS, n_padded).
        mixed: is filled, shape (BLOCK_FRAMES, n_padded).
    """
    width = weights.shape[1]
    for frame in range(n_frames):
        row = mixed[frame]
        for stream in range(STREAMS):
            first = stream * GAUSSIANS
            a = best[stream, phone, frame]
            b = best[stream, phone, frame + _N]
            c = best[stream, phone, frame + 2 * _N]
            d = best[stream, phone, frame + 3 * _N]
            for_a = weights[first + numbers[stream, phone, frame]]
            for_b = weights[first + numbers[stream, phone, frame + _N]]
            for_c = weights[first + numbers[stream, phone, frame + 2 * _N]]
            for_d = weights[first + numbers[stream, phone, frame + 3 * _N]]
            if stream == 0:
                for i in range(width):
                    row[i] = a * for_a[i] + b * for_b[i] + c * for_c[i] + d * for_d[i]
            else:
                for i in range(width):
                    row[i] *= a * for_a[i] + b * for_b[i] + c * for_c[i] + d * for_d[i]


@compiled(types.void(types.uint8[:, :, ::1], _FLOATS, _INTEGERS, _INTEGERS, _WEIGHTS))
def lay_out_weights(codes: Any, table: Any, senones: Any, ends: Any, weights: Any) -> None:
    """Write the weights of the senones of each phone as a matrix.

    Args:
        codes: of all senones of the model, shape (n_all_senones, STREAMS, GAUSSIANS).
        table: the weight of each code.
        senones: to write, sorted by their phones.
        ends: the place in `senones` after the last senone of each phone.
        weights: its values are filled, except for the padding.
    """
    first = 0
    for group in range(len(ends)):
        start, end = weights.starts[group], weights.starts[group + 1]
        for place in range(first, ends[group]):
            at = start * _ROWS + place - first
            for stream in range(STREAMS):
                for number in range(GAUSSIANS):
                    weights.values[at] = table[codes[senones[place], stream, number]]
                    at += end - start
        first = ends[group]


@compiled(types.void(_FEATURES, _FEATURES, _WEIGHTS, types.float32[:, ::1]))
def score(features: Any, forms: Any, weights: Any, scores: Any) -> None:
    """Compute the log-likelihoods of senones, as `Mixtures.score` describes them.

    Args:
        features: shape (STREAMS, n_frames, CEPSTRA).
        forms: shape (STREAMS, n_phones * GAUSSIANS, 2 * CEPSTRA + 1), from `Mixtures`.
        weights: of the senones.
        scores: is filled, shape (n_frames, n_senones).
    """
    n_phones = forms.shape[1] // GAUSSIANS
    n_padded = weights.starts[-1]
    values = np.zeros(CEPSTRA * _N, np.float32)
    best = np.empty((STREAMS, n_phones, BEST * _N), np.float32)
    numbers = np.empty((STREAMS, n_phones, BEST * _N), np.int32)
    highest = np.empty(_N, np.float32)
    mixed = np.empty((_N, n_padded), np.float32)
    for begin in range(0, len(scores), _N):
        n_frames = min(_N, len(scores) - begin)
        n_lanes = (n_frames + LANES - 1) // LANES * LANES
        for stream in range(STREAMS):
            for value in range(CEPSTRA):
                for frame in range(n_frames):
                    values[value * _N + frame] = features[stream, begin + frame, value]
            _find_best(values, forms[stream], n_lanes, best[stream])
            _weigh(best[stream], numbers[stream], n_lanes, highest)
        for group in range(len(weights.phones)):
            start, end = weights.starts[group], weights.starts[group + 1]
            rows = weights.values[start * _ROWS : end * _ROWS].reshape((_ROWS, end - start))
            _mix(best, numbers, weights.phones[group], n_frames, rows, mixed[:, start:end])
        for frame in range(n_frames):
            row, target = mixed[frame], scores[begin + frame]
            for column in range(len(weights.places)):
                target[column] = _log(row[weights.places[column]]) + _UNSCALE
