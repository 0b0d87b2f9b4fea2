"""Our cepstra compared with those that pocketsphinx computes."""

from __future__ import annotations

import contextlib
import ctypes

import numpy as np
import pocketsphinx
import pytest

from asr.align.hmm import compiled
from asr.align.hmm.cepstra import CEPSTRA, HOP, N_BANDS, WINDOW, cepstra, noise_gains
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.pcm import to_int16
from asr.types import SAMPLE_RATE
from tests.support.makers import noise
from tests.support.paths import SAMPLES


@pytest.fixture(scope="module")
def speech():
    samples = np.concatenate(list(decode(SAMPLES / "telephone.wav", AudioLimits()).blocks))
    return to_int16(samples[: 4 * SAMPLE_RATE])


def own_cepstra(pcm, folder):
    """Let pocketsphinx compute them."""
    options = {"lm": None, "loglevel": "FATAL", "mfclogdir": "."}
    decoder = pocketsphinx.Decoder(**options, samprate=SAMPLE_RATE)
    decoder.set_align_text("a")
    with contextlib.chdir(folder):
        decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), no_search=True, full_utt=True)
    decoder.end_utt()
    ctypes.CDLL(None).fflush(None)
    data = (folder / "000000000.mfc").read_bytes()
    return np.frombuffer(data[4:], ">f4").reshape(-1, CEPSTRA)


@pytest.mark.parametrize("name", ["speech", "noise", "silence between"])
def test_cepstra_equal_those_of_pocketsphinx(speech, tmp_path, name):
    pcm = speech
    if name == "noise":
        pcm = to_int16(noise(2.0))
    elif name == "silence between":
        pcm = np.concatenate([speech[:SAMPLE_RATE], np.zeros(SAMPLE_RATE, np.int16), speech])
    theirs = own_cepstra(pcm, tmp_path)
    assert theirs.std() > 1.0
    assert cepstra(pcm) == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("n_samples", [WINDOW, WINDOW + HOP - 1, WINDOW + HOP, 5 * HOP + 7])
def test_the_last_samples_make_a_frame_too(speech, tmp_path, n_samples):
    pcm = speech[SAMPLE_RATE : SAMPLE_RATE + n_samples]
    assert cepstra(pcm) == pytest.approx(own_cepstra(pcm, tmp_path), abs=2e-3)


def test_the_compiled_gains_equal_those_of_numpy():
    bands = np.random.default_rng(0).lognormal(8, 4, (300, N_BANDS))
    bands[40:60] = 0.0  # digital silence
    ours, theirs = np.empty_like(bands), np.empty_like(bands)
    noise_gains(bands, ours)
    compiled.load("noise").noise_gains(bands, theirs)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert 1 / 20 <= ours.min() < 0.2 < 0.9 < ours.max() <= 20
