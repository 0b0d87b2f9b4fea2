"""Channels that cancel, and samples above full scale; the file and the stream are the same."""

from __future__ import annotations

import numpy as np
import pytest

from asr.audio.decoding import Decoding
from asr.audio.growing import GrowingFile, decode_growing
from asr.audio.level import LevelMeter
from asr.audio.mixing import mixed
from asr.audio.resample import decode
from asr.audio.scale import HOLD_WINDOWS, scaled
from asr.audio.silence import silence
from asr.audio.windows import in_windows
from asr.config import AudioLimits
from tests.support import makers

RATE = 16_000
LIMITS = AudioLimits()
SPEECH = makers.speech(3) + makers.noise(3, level=1e-3)


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def both_routes(path, *, split=False):
    """The samples and the warnings of a file, after checking that the stream has the same."""
    whole = decode(path, LIMITS, split=split)
    samples = np.concatenate(list(whole.blocks))
    growing = GrowingFile(path.with_suffix(".upload"), path.with_suffix(".json"))
    growing.begin()
    growing.path.write_bytes(path.read_bytes())
    growing.complete(path.stat().st_size)
    stream = decode_growing(growing, LIMITS, lambda: None, split=split)
    streamed = np.concatenate(list(stream.blocks))
    assert np.array_equal(samples, streamed)
    assert whole.warnings == stream.warnings
    return samples, whole.warnings


def mix(*channels, rate=RATE, sizes=(65_536,)):
    """Mix channels that arrive in blocks of the given sizes; return samples and warnings."""
    block, decoding = np.stack(channels, axis=1).astype(np.float32), Decoding()
    cuts = np.cumsum(np.resize(sizes, len(block)))
    pieces = np.split(block, cuts[cuts < len(block)])
    source = in_windows((rate, piece) for piece in pieces)
    return np.concatenate([it for _, it in mixed(source, decoding)]), decoding.warnings


# --- channels that cancel -----------------------------------------------------------------------


@pytest.mark.parametrize("right", [-1.0, -0.9, -0.5, -0.1])
def test_an_inverted_channel_does_not_cancel_the_other_one(right):
    mono, warnings = mix(SPEECH, SPEECH * right)
    assert rms(mono) >= 0.5 * rms(SPEECH)
    assert "phase-inverted" in warnings[0]
    assert "first at 0.0 s" in warnings[0]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
def test_an_inverted_file_is_the_same_by_both_routes(tmp_path, rate):
    voice = makers.speech(1, rate=rate)
    path = makers.write(tmp_path / "a.wav", np.stack((voice, -voice), axis=1), rate)
    samples, warnings = both_routes(path)
    assert rms(samples) == pytest.approx(rms(voice), rel=0.05)
    assert len(warnings) == 1


def test_an_inversion_that_starts_midway():
    sign = np.where(np.arange(len(SPEECH)) < 1.43 * RATE, 1, -1)
    mono, warnings = mix(SPEECH, SPEECH * sign)
    levels = [rms(part) / rms(SPEECH) for part in np.array_split(mono, 30)]
    assert sum(level < 0.3 for level in levels) <= 1  # the window in which it starts
    assert "first at 1.4 s" in warnings[0] or "first at 1.5 s" in warnings[0]


def test_an_inversion_that_ends():
    sign = np.where(np.arange(len(SPEECH)) < 1.5 * RATE, -1, 1)
    mono, _ = mix(SPEECH, SPEECH * sign)
    assert rms(mono[: RATE + RATE // 2]) > 0.8 * rms(SPEECH[: RATE + RATE // 2])
    assert rms(mono[RATE * 2 :]) > 0.8 * rms(SPEECH[RATE * 2 :])


def test_the_mix_does_not_depend_on_the_blocks():
    sign = np.where(np.arange(len(SPEECH)) < 20_000, 1, -1)
    whole, warnings = mix(SPEECH, SPEECH * sign)
    for sizes in [(1_024,), (1, 7, 5_000), (1_600,), (1_601, 3)]:
        other, same = mix(SPEECH, SPEECH * sign, sizes=sizes)
        assert np.array_equal(whole, other)
        assert warnings == same


def test_noise_that_differs_and_an_offset_do_not_hide_an_inversion():
    mono, warnings = mix(SPEECH + makers.noise(3, level=0.02) + 0.3, 0.3 - SPEECH)
    assert rms(mono - mono.mean()) > 0.8 * rms(SPEECH)
    assert warnings


def test_ordinary_channels_are_mixed_as_ever():
    other = makers.noise(3, level=0.1, seed=5)
    for pair in [(SPEECH, SPEECH), (SPEECH, other), (SPEECH, SPEECH * 0), (SPEECH, SPEECH + other)]:
        mono, warnings = mix(*pair)
        expected = (pair[0].astype(np.float32) + pair[1].astype(np.float32)) * np.float32(0.5)
        assert np.array_equal(mono, expected)
        assert warnings == []


def test_speech_in_the_centre_of_six_channels_is_kept():
    quiet = [makers.noise(3, level=1e-4, seed=n) for n in range(5)]
    mono, warnings = mix(*quiet[:2], SPEECH, *quiet[2:])
    assert rms(mono) == pytest.approx(rms(SPEECH) / 6, rel=0.01)
    assert warnings == []


def test_opposite_channels_among_six_do_not_cancel():
    still = np.zeros_like(SPEECH)
    mono, warnings = mix(SPEECH, -SPEECH, still, still, SPEECH, -SPEECH)
    assert rms(mono) == pytest.approx(rms(SPEECH) * 4 / 6, rel=0.01)
    assert len(warnings) == 1


def test_a_delayed_channel_is_no_inversion():
    late = np.concatenate((np.zeros(320, np.float32), SPEECH))[: len(SPEECH)]
    mono, warnings = mix(SPEECH, late)
    assert rms(mono) > 0.3 * rms(SPEECH)
    assert warnings == []


def test_silence_between_passes_without_taking_memory():
    pair = np.stack((SPEECH, -SPEECH), axis=1)
    source = in_windows(iter([(RATE, pair[:5000]), (RATE, silence(10**12, 2)), (RATE, pair)]))
    lengths = [len(block) for _, block in mixed(source, Decoding())]
    assert sum(lengths) == 5000 + 10**12 + len(pair)


# --- windows ------------------------------------------------------------------------------------


def test_blocks_are_regrouped_and_nothing_is_lost():
    blocks = [(8_000, np.full((n, 1), n, np.float32)) for n in (100, 900, 3, 1597)]
    blocks += [(16_000, np.ones((50, 1), np.float32)), (16_000, np.ones((50, 2), np.float32))]
    regrouped = list(in_windows(iter(blocks)))
    assert [(rate, block.shape) for rate, block in regrouped] == [
        *((8_000, (800, 1)), (8_000, (1600, 1)), (8_000, (200, 1))),
        *((16_000, (50, 1)), (16_000, (50, 2))),
    ]
    flat = np.concatenate([block.ravel() for rate, block in regrouped if rate == 8_000])
    assert np.array_equal(flat, np.concatenate([block.ravel() for _, block in blocks[:4]]))


# --- above full scale ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "AU", "W64"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_above_full_scale_are_scaled(tmp_path, kind, subtype):
    path = makers.write(tmp_path / "a.bin", SPEECH * 16, RATE, subtype, kind)
    samples, warnings = both_routes(path)
    assert np.abs(samples).max() <= 1
    scale = np.dot(samples, SPEECH) / np.dot(SPEECH, SPEECH)
    assert rms(samples - scale * SPEECH) < 0.1 * rms(samples)  # the shape is that of the speech
    assert "exceeds full scale" in warnings[0]


@pytest.mark.parametrize("bits", [15, 23, 31])
def test_integers_that_nobody_divided_get_their_own_level(tmp_path, bits):
    samples = np.rint(SPEECH * 0.25 * 2.0**bits)
    path = makers.write(tmp_path / "a.wav", samples, RATE, "DOUBLE")
    heard, warnings = both_routes(path)
    assert rms(heard) == pytest.approx(0.25 * rms(SPEECH), rel=0.05)
    assert len(warnings) == 1


def test_channels_are_scaled_apart(tmp_path):
    pair = np.stack((SPEECH * 20, SPEECH), axis=1)
    path = makers.write(tmp_path / "a.wav", pair, RATE, "FLOAT")
    heard, _ = both_routes(path, split=True)
    assert np.abs(heard).max() <= 1
    assert np.array_equal(heard[:, 1], SPEECH)


def scale(samples, rate=RATE):
    decoding = Decoding()
    blocks = scaled(in_windows(iter([(rate, samples[:, np.newaxis])])), decoding)
    return np.concatenate([block[:, 0] for _, block in blocks]), decoding.warnings


def test_overshoots_of_lossy_codecs_stay():
    samples, warnings = scale(SPEECH / np.abs(SPEECH).max() * 1.4)
    assert samples.max() > 1.3
    assert warnings == []


def test_one_damaged_place_does_not_silence_the_rest():
    broken = np.concatenate((SPEECH[:RATE], makers.noise(0.1, level=1e6), *[SPEECH] * 5))
    samples, _ = scale(broken.astype(np.float32))
    last = slice(-RATE, None)
    assert len(broken) > HOLD_WINDOWS * RATE / 10
    assert np.array_equal(samples[last], SPEECH[last])


def test_a_single_spike_is_clipped_and_the_rest_stays():
    spoiled = SPEECH.copy()
    spoiled[5000] = 1e6
    samples, warnings = scale(spoiled)
    assert samples[5000] == 1
    assert np.array_equal(np.delete(samples, 5000), np.delete(SPEECH, 5000))
    assert warnings == ["1 single samples far above full scale were clipped"]


def test_samples_that_are_no_numbers_become_silence_with_a_warning():
    spoiled = SPEECH.copy()
    spoiled[[10, 20_000, 40_000]] = [np.nan, np.inf, -np.inf]
    samples, warnings = scale(spoiled)
    assert samples[[10, 20_000, 40_000]].tolist() == [0, 0, 0]
    assert np.array_equal(
        np.delete(samples, [10, 20_000, 40_000]), np.delete(SPEECH, [10, 20_000, 40_000])
    )
    assert warnings == ["3 samples are not numbers: they were replaced by silence"]


def test_the_meter():
    meter = LevelMeter()
    assert meter.dbfs is None
    meter.add(silence(RATE))
    assert meter.dbfs is None
    meter.add(np.full(RATE, 0.1, np.float32))
    assert meter.dbfs == pytest.approx(-23, abs=0.1)
