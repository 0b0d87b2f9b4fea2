"""Quiet speech is amplified for the engine; other audio is not touched."""

from __future__ import annotations

import numpy as np
import pytest

from asr.pipeline.loudness import AMPLIFIED_PEAK, audible
from asr.types import Audio
from tests.support import makers

LOUD = makers.speech(2)
QUIET = LOUD * np.float32(0.003)


def peak(samples):
    return float(np.abs(samples).max())


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_a_quiet_chunk_is_amplified_as_a_whole(offset):
    found = audible(Audio(QUIET + np.float32(offset))).samples
    assert peak(found) == pytest.approx(AMPLIFIED_PEAK, rel=1e-3)
    assert np.corrcoef(found, LOUD)[0, 1] > 0.999


def test_other_chunks_are_not_copied():
    noisy = LOUD + makers.noise(2, level=0.002)
    paused = np.concatenate((noisy, makers.noise(1, level=0.002), noisy))
    for samples in (LOUD, paused, makers.silence(1), LOUD[:0], LOUD[:100]):
        audio = Audio(samples)
        assert audible(audio) is audio


def test_a_quiet_speaker_after_a_loud_one_is_amplified():
    pause = makers.noise(0.2, level=1e-5)
    found = audible(Audio(np.concatenate((LOUD, QUIET, LOUD, pause)))).samples[: -len(pause)]
    n = len(LOUD)
    assert np.array_equal(found[: n - 400], LOUD[:-400])
    assert peak(found[n + 8_000 : 2 * n - 8_000]) > 0.5 * AMPLIFIED_PEAK
    assert np.array_equal(found[2 * n + 400 :], LOUD[400:])
    assert found.dtype == np.float32


def test_the_noise_of_a_pause_stays_quiet():
    paused = np.concatenate((LOUD, makers.noise(2, level=1e-4), LOUD))
    n = len(LOUD)
    assert peak(audible(Audio(paused)).samples[n + 8_000 : 2 * n - 8_000]) < 0.01
