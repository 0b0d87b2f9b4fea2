"""The estimate of noise of `asr.align.hmm.cepstra`, compiled."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types

from asr.align.hmm.cepstra import FADE, FALL, MASKED, MAX_GAIN, RISE, SMOOTH
from asr.align.hmm.compiled.compiler import compiled, inlined

_BANDS: Final = types.float64[:, ::1]


@inlined
def _envelope(level: Any, power: Any) -> Any:
    """Let the level of noise follow the power: slowly upwards, fast downwards."""
    past = RISE if power >= level else FALL
    return past * level + (1 - past) * power


@compiled(types.void(_BANDS, _BANDS))
def noise_gains(bands: Any, gains: Any) -> None:
    """Compute the gain of each band; see `asr.align.hmm.cepstra.noise_gains`."""
    smooth = bands[0].copy()
    noise, floor = smooth / MAX_GAIN, smooth / MAX_GAIN
    peak = np.zeros_like(smooth)
    for frame in range(len(bands)):
        for band in range(bands.shape[1]):
            power = SMOOTH * smooth[band] + (1 - SMOOTH) * bands[frame, band]
            smooth[band] = power
            noise[band] = _envelope(noise[band], power)
            clean = max(power - noise[band], 1.0)
            floor[band] = _envelope(floor[band], clean)
            faded = FADE * peak[band]
            heard = MASKED * faded if clean < FADE * faded else clean
            peak[band] = max(faded, clean)
            heard = max(heard, floor[band])
            gain = heard / power if heard < MAX_GAIN * power else MAX_GAIN
            gains[frame, band] = max(gain, 1 / MAX_GAIN)
