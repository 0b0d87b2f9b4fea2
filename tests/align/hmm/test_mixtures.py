"""Our senone likelihoods compared with those that pocketsphinx computes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
from pathlib import Path

import numpy as np
import pocketsphinx
import pytest

from asr.align.hmm.acoustics import Scorer, read_phones
from asr.align.hmm.cepstra import CEPSTRA
from asr.align.hmm.mixtures import BLOCK_FRAMES, WEIGHT_UNIT, Mixtures, features
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.types import SAMPLE_RATE, Audio
from tests.support.makers import noise
from tests.support.paths import SAMPLES

MODEL = Path(pocketsphinx.get_model_path("en-us")) / "en-us"


@pytest.fixture(scope="module")
def scorer():
    return Scorer()


@functools.cache
def whole(name):
    return np.concatenate(list(decode(SAMPLES / name, AudioLimits()).blocks))


def sample(name, seconds):
    samples = whole(name)
    return samples[: round(seconds * SAMPLE_RATE)]


def every(scorer):
    return np.arange(len(scorer.phones.phone_of_senone))


def own_scores(pcm, folder):
    """Let pocketsphinx score all senones, in nats relative to the best one of each frame."""
    options = {"lm": None, "loglevel": "FATAL", "compallsen": True, "senlogdir": "."}
    decoder = pocketsphinx.Decoder(**options, samprate=SAMPLE_RATE)
    decoder.set_align_text("a")
    with contextlib.chdir(folder):
        decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    ctypes.CDLL(None).fflush(None)
    head, _, body = (folder / "000000000.sen").read_bytes().partition(b"endhdr\n")
    n_senones = int(head.partition(b"n_sen ")[2].split()[0])
    rows = np.frombuffer(body[4:], "<i2").reshape(-1, n_senones + 1)
    return -WEIGHT_UNIT * rows[:, 1:].astype(np.float64)


@pytest.mark.parametrize("name", ["meeting.wav", "telephone.wav", "noise"])
def test_scores_equal_those_of_pocketsphinx_up_to_its_rounding(scorer, tmp_path, name):
    samples = noise(5.0) if name == "noise" else sample(name, 8.0)
    pcm = Audio(samples).pcm16()
    theirs = own_scores(pcm, tmp_path)
    ours = scorer.score(pcm, every(scorer)).values.astype(np.float64)
    assert ours.shape == theirs.shape
    apart = np.abs(ours - ours.max(axis=1, keepdims=True) - theirs)
    assert theirs.std() > 3.0
    assert np.median(apart) < 0.1
    assert np.quantile(apart, 0.999) < 0.5


def test_a_score_does_not_depend_on_the_other_senones(scorer):
    pcm = Audio(sample("meeting.wav", 3.0)).pcm16()
    whole = scorer.score(pcm, every(scorer))
    wanted = np.array([5000, 7, 300, 7, 126, 4242])
    some = scorer.score(pcm, wanted)
    assert some.senones.tolist() == [7, 126, 300, 4242, 5000]
    there = some.values[:, some.columns(wanted)]
    assert there == pytest.approx(whole.values[:, wanted], abs=1e-3)


def test_a_score_does_not_depend_on_the_other_frames(scorer):
    mixtures = Mixtures(MODEL, scorer.phones.phone_of_senone)
    rng = np.random.default_rng(1)
    streams = [rng.standard_normal((2 * BLOCK_FRAMES + 7, CEPSTRA), np.float32) for _ in range(3)]
    senones = np.arange(0, 5126, 50)
    whole = mixtures.score(streams, senones)
    for first in (0, 1, BLOCK_FRAMES - 1, 2 * BLOCK_FRAMES):
        piece = mixtures.score([stream[first : first + 9] for stream in streams], senones)
        assert piece == pytest.approx(whole[first : first + 9], abs=1e-3)
    assert np.isfinite(whole).all()


def test_features_are_cepstra_and_their_differences():
    ramp = np.outer(np.arange(20), np.ones(CEPSTRA)).astype(np.float32)
    level, rise, bend = features(ramp)
    assert level.mean(axis=0) == pytest.approx(np.zeros(CEPSTRA), abs=1e-5)
    assert (np.diff(level, axis=0) == 1).all()
    assert (rise[2:-2] == 4).all()
    assert rise[0, 0] == 2  # the first frame is repeated before the start
    assert (bend[3:-3] == 0).all()


def test_frames_without_energy_are_left_out_of_the_mean():
    cepstra = np.full((10, CEPSTRA), 4.0, np.float32)
    cepstra[3:5] = -50.0
    level, _, _ = features(cepstra)
    assert (level[:3] == 0).all()
    assert (level[3:5] == -54).all()
    level, _, _ = features(np.full((4, CEPSTRA), -1.0, np.float32))
    assert np.isfinite(level).all()


@pytest.mark.parametrize(
    ("file", "at", "byte"), [("means", b"endhdr\n", 16), ("sendump", b"cluster_count 0", -1)]
)
def test_a_model_of_another_kind_is_refused(tmp_path, file, at, byte):
    for name in ("means", "variances", "sendump", "mdef", "transition_matrices"):
        shutil.copy(MODEL / name, tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[data.index(at) + len(at) + byte] += 1
    (tmp_path / file).write_bytes(data)
    with pytest.raises(ValueError, match=file):
        Mixtures(tmp_path, read_phones(MODEL).phone_of_senone)
