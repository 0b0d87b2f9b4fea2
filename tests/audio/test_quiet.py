"""Quiet speech: webrtcvad's level is relative to the noise floor of the recording."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from asr.audio.quiet import FLOOR_FRAMES, SMOOTHING_FRAMES, NoiseFloor, QuietSpeech
from asr.audio.resample import decode
from asr.audio.vad import SpeechDetector, WebRtcClassifier
from asr.config import AudioLimits, VadOptions
from asr.pcm import to_int16
from asr.types import SAMPLE_RATE, Audio
from tests.support import makers
from tests.support.paths import SAMPLES
from tests.support.regions import find_speech

SECONDS = 11


def decibels(value):
    return np.float32(10 ** (value / 20))


@functools.cache
def speech():
    """Clean speech: the first seconds of a sample, and the middles of its words."""
    about = json.loads((SAMPLES / "meeting.json").read_text(encoding="utf-8"))
    samples = np.concatenate(list(decode(SAMPLES / "meeting.wav", AudioLimits()).blocks))
    middles = [(word["start"] + word["end"]) / 2 for word in about["words"]]
    return samples[: SECONDS * SAMPLE_RATE], [it for it in middles if it < SECONDS - 0.5]


def at(gain):
    return speech()[0] * decibels(gain)


def words(start=0.0):
    return [start + middle for middle in speech()[1]]


def found(samples, options=VadOptions()):  # noqa: B008  # frozen
    return find_speech(Audio(samples.astype(np.float32)), options)


def missed(regions, middles):
    """How many words lie in no region."""
    return sum(not any(r.start <= it <= r.end for r in regions) for it in middles)


@pytest.mark.parametrize("gain", [0, -20, -40, -50, -60])
def test_speech_is_found_at_any_level_and_pauses_are_not(gain):
    regions = found(at(gain))
    assert missed(regions, words()) == 0
    assert sum(it.n_samples for it in regions) < 0.95 * SECONDS * SAMPLE_RATE


def test_without_amplification_it_would_not_be_found():
    detector = SpeechDetector(VadOptions(), WebRtcClassifier(2))
    samples = to_int16(at(-50))
    assert missed(detector.push(samples) + detector.finish(), words()) > len(words()) / 2


def after_a_loud_burst(quiet):
    return np.concatenate((makers.silence(1), makers.noise(2, level=0.3), quiet)), 3.0


def with_an_offset(quiet):
    return quiet + np.float32(0.2), 0.0


def with_hum(quiet):
    return quiet + makers.tone(SECONDS, 50, level=0.002), 0.0


def as_8_bits_of_mu_law(quiet):
    steps = np.sign(quiet) * np.log1p(255 * np.abs(quiet)) / np.log1p(255)
    coarse = np.rint(steps * 127) / 127
    return np.sign(coarse) * np.expm1(np.abs(coarse) * np.log1p(255)) / 255, 0.0


@pytest.mark.parametrize(
    "spoil", [after_a_loud_burst, with_an_offset, with_hum, as_8_bits_of_mu_law]
)
def test_quiet_speech_is_found_in_bad_company(spoil):
    samples, start = spoil(at(-45))
    assert missed(found(samples), words(start)) <= 2 < len(words()) / 5


def test_a_quiet_and_a_loud_speaker_take_turns():
    regions = found(np.concatenate((at(0), at(-45), at(0), at(-45))))
    assert missed(regions, [it for turn in range(4) for it in words(turn * SECONDS)]) <= 2


@pytest.mark.parametrize("level", [-98, -85, -70, -55, -40])
def test_steady_noise_of_any_level_is_no_speech(level):
    assert found(makers.noise(10, level=decibels(level))) == []


def test_digital_silence_is_no_speech():
    assert found(makers.silence(5)) == []


def test_flags_do_not_depend_on_how_many_frames_come_at_once():
    frames = to_int16(at(-50))[: 300 * 480].reshape(-1, 480)
    at_once = QuietSpeech(lambda: WebRtcClassifier(2)).are_speech(frames)
    one_by_one = QuietSpeech(lambda: WebRtcClassifier(2))
    assert [one_by_one.is_speech(frame) for frame in frames] == at_once
    assert any(at_once)


def test_an_ordinary_noise_floor_needs_no_second_classifier():
    made = []

    def make():
        made.append(WebRtcClassifier(2))
        return made[-1]

    classifier = QuietSpeech(make)
    noisy = to_int16(makers.noise(3, level=decibels(-50)))
    classifier.are_speech(noisy.reshape(-1, 480))
    assert len(made) == 1
    classifier.are_speech(noisy.reshape(-1, 480) // 100)
    assert len(made) == 2


def test_the_floor_is_the_quietest_place_of_the_last_seconds():
    floor = NoiseFloor()
    assert floor.add(0.0) == np.inf  # digital silence tells nothing
    for _ in range(SMOOTHING_FRAMES):
        floor.add(100.0)
    assert [floor.add(9.0) for _ in range(SMOOTHING_FRAMES)][-1] == 9
    assert floor.add(0.0) == 9
    later = [floor.add(400.0) for _ in range(FLOOR_FRAMES + SMOOTHING_FRAMES)]
    assert later[FLOOR_FRAMES - 1] == 9
    assert later[-1] == 400


def test_regions_of_quiet_speech_do_not_depend_on_the_pushes():
    samples = to_int16(at(-50))
    whole, pieces = SpeechDetector(VadOptions()), SpeechDetector(VadOptions())
    regions = [it for part in np.array_split(samples, 41) for it in pieces.push(part)]
    assert regions + pieces.finish() == whole.push(samples) + whole.finish() != []


def test_quiet_speech_after_a_muted_hour_is_found():
    detector = SpeechDetector(VadOptions())
    quiet = to_int16(at(-50))
    first = detector.push(quiet)
    detector.push_silence(3600 * SAMPLE_RATE)
    second = detector.push(quiet) + detector.finish()
    assert len(first) == len(second) > 0
