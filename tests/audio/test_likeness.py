"""Channels that hold the same sound."""

import numpy as np
import pytest

from asr.audio.likeness import LIKE, LikenessMeter
from tests.support.makers import noise, speech
from tests.support.voices import voice


def likeness(*channels):
    meter = LikenessMeter()
    columns = np.stack(channels)
    for block in np.array_split(columns, 5, axis=1):
        meter.add(block)
    return meter.least


def test_one_microphone_in_two_channels():
    talk = speech(3)
    for other in (talk, 0.3 * talk, -talk, talk + noise(3, level=0.02, seed=1)):
        assert likeness(talk, other.astype(np.float32)) >= LIKE


@pytest.mark.parametrize("delay", [1, 3, 160, 1_400, -700])
def test_a_delayed_and_noisy_copy_is_the_same_sound(delay):
    talk = speech(5)
    loudness = talk.std()
    both = [talk, -0.5 * np.roll(talk, delay)]
    noisy = [it + noise(5, level=0.2 * loudness, seed=i) for i, it in enumerate(both)]
    assert likeness(*noisy) >= LIKE
    assert likeness(talk, noise(5, level=loudness)) < 0.2


def test_what_two_people_may_share_does_not_count():
    hum = (0.3 * np.sin(2 * np.pi * 50 * np.arange(3 * 16_000) / 16_000)).astype(np.float32)
    for shared in (hum, np.full_like(hum, 0.3)):
        assert likeness(voice(300, 3) + shared, voice(2500, 3, seed=1) + shared) < 0.3
    assert LikenessMeter().least is None


def test_two_people_with_crosstalk():
    ann, ben = voice(300, 3), voice(3000, 3)
    assert likeness(ann + 0.2 * ben, ben + 0.2 * ann) < 0.6
    assert likeness(ann, ann, ben) < 0.1  # the third channel is another one


@pytest.mark.parametrize("channels", [[speech(1)], [speech(1), np.zeros(16_000, np.float32)]])
def test_nothing_to_compare(channels):
    assert likeness(*channels) is None
