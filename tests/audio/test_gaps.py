"""Gaps and jumps of a container's clock: silence takes no disk, and another clock is no silence."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.audio.clock import MAX_SILENCE_SECONDS
from asr.audio.recording import PRELOAD, Recording, channel_path, decode_recording
from asr.audio.resample import _Resampler, decode
from asr.audio.silence import is_silence, silence
from asr.audio.vad import SpeechDetector
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioTooLong
from asr.types import SAMPLE_RATE
from asr.workers.pool import ProcessPool
from tests.support import makers

LIMITS = AudioLimits()
HOUR = 3600


@pytest.fixture(scope="module")
def reports_of():
    """Decode a file to ``target`` in a child, and collect the reports."""
    pool = ProcessPool(PRELOAD, 1)
    with asyncio.Runner() as runner:

        def run(path, target, limits=LIMITS, vad=VadOptions(), split=False):  # noqa: B008  # frozen
            async def work():
                reports = decode_recording(pool, path, target, vad, limits, split=split)
                return [report async for report in reports]

            return runner.run(work())

        yield run
        runner.run(pool.close())


def with_jumps(path, jumps, signal=None, codec="flac", **options):
    """A recording of which the clock moves by ``jumps[t]`` seconds after t seconds."""

    def shift(time):
        return time + sum(by for after, by in jumps.items() if time >= after)

    signal = makers.click(4, 3.0) if signal is None else signal
    return makers.write_container(path, signal, codec, shift=shift, **options)


def length_of(path, limits=LIMITS):
    decoding = decode(path, limits)
    n_samples = sum(len(block) for block in decoding.blocks)
    return n_samples / SAMPLE_RATE, decoding.warnings


def disk_bytes(path):
    return path.stat().st_blocks * 512


# --- jumps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.2, 10, 1800, MAX_SILENCE_SECONDS - 1])
def test_a_gap_of_up_to_an_hour_is_silence(tmp_path, gap):
    path = with_jumps(tmp_path / "a.mkv", {2: gap})
    seconds, warnings = length_of(path)
    assert seconds == pytest.approx(4 + gap, abs=0.1)
    assert warnings == []


@pytest.mark.parametrize("gap", [MAX_SILENCE_SECONDS + 1, 36_000, 10**6])
def test_a_longer_jump_is_another_clock(tmp_path, gap):
    path = with_jumps(tmp_path / "a.mkv", {2: gap})
    seconds, warnings = length_of(path)
    assert seconds == pytest.approx(4, abs=0.1)
    (warning,) = warnings
    assert "jumps ahead by more than an hour, 1 times, first after 2.0 s" in warning


@pytest.mark.parametrize("kind", ["jump", "gap"])
def test_a_gap_after_a_jump_is_silence_again(tmp_path, kind):
    """A jump back once hid all gaps after it, because they lay before the end of the audio."""
    jumps = {1: 50_000} if kind == "jump" else {}
    first = with_jumps(tmp_path / "a.ts", {}, makers.noise(30), "aac", kind="mpegts")
    second = with_jumps(tmp_path / "b.ts", jumps | {2: 5}, codec="aac", kind="mpegts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert length_of(joined)[0] == pytest.approx(39, abs=0.5)


@pytest.mark.parametrize("start", [100, 5000, 90_000])
def test_a_clock_that_jumps_back_adds_nothing(tmp_path, start):
    """FFmpeg takes it for an overflow of the clock's 33 bits. So it gave 26 hours of silence."""
    first = with_jumps(tmp_path / "a.ts", {-1: start}, codec="aac", kind="mpegts")
    second = with_jumps(tmp_path / "b.ts", {}, codec="aac", kind="mpegts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    decoding = decode(joined, LIMITS)
    samples = np.concatenate(list(decoding.blocks))
    assert len(samples) / SAMPLE_RATE == pytest.approx(8, abs=0.3)
    assert np.abs(samples[: 4 * SAMPLE_RATE]).argmax() / SAMPLE_RATE == pytest.approx(3, abs=0.1)
    assert np.abs(samples[4 * SAMPLE_RATE :]).argmax() / SAMPLE_RATE == pytest.approx(3, abs=0.2)


def test_gaps_count_for_the_longest_recording(tmp_path):
    path = with_jumps(tmp_path / "a.mkv", {1: 1000, 2: 1000, 3: 1000})
    assert length_of(path)[0] == pytest.approx(3004, abs=0.1)
    with pytest.raises(AudioTooLong, match="longer than 2500 seconds"):
        length_of(path, AudioLimits(max_seconds=2500))


# --- disk and time --------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100, 8000])
def test_silence_takes_no_disk(tmp_path, reports_of, rate):
    """A file of 7 kB once took 1.2 GB."""
    signal = makers.speech(4, rate)
    path = with_jumps(tmp_path / "a.mkv", {2: HOUR - 1}, signal, rate=rate)
    target = tmp_path / "audio.pcm"
    *_, last = reports_of(path, target)
    n_samples = (4 + HOUR - 1) * SAMPLE_RATE
    assert last.n_samples == pytest.approx(n_samples, abs=SAMPLE_RATE // 10)
    assert target.stat().st_size == 2 * last.n_samples
    assert disk_bytes(target) < 1_000_000
    recording = Recording(target)
    assert not recording.read(1000 * SAMPLE_RATE, 1010 * SAMPLE_RATE).samples.any()
    assert recording.read(last.n_samples - SAMPLE_RATE, last.n_samples).samples.any()


def test_silence_in_separate_channels_takes_no_disk(tmp_path, reports_of):
    signal = makers.channels(makers.speech(4), 2)
    path = with_jumps(tmp_path / "a.mkv", {2: HOUR - 1}, signal)
    reports = reports_of(path, tmp_path / "audio.pcm", split=True)
    sizes = [disk_bytes(channel_path(tmp_path / "audio.pcm", channel)) for channel in (0, 1)]
    assert max(sizes) < 1_000_000
    assert reports[-1].n_samples == pytest.approx((HOUR + 3) * SAMPLE_RATE, abs=1600)


def test_silence_inside_a_file_takes_no_disk(tmp_path, reports_of):
    path = makers.write(tmp_path / "a.flac", np.zeros(600 * SAMPLE_RATE, np.int16))
    *_, last = reports_of(path, tmp_path / "audio.pcm")
    assert (tmp_path / "audio.pcm").stat().st_size == 2 * last.n_samples == 1200 * SAMPLE_RATE
    assert disk_bytes(tmp_path / "audio.pcm") == 0


def test_decoded_bytes_are_limited(tmp_path, reports_of):
    path = makers.write(tmp_path / "a.flac", makers.noise(10))
    limits = AudioLimits(max_decoded_bytes=2 * 8 * SAMPLE_RATE)
    with pytest.raises(AudioTooLong, match="ASR_MAX_DECODED_BYTES"):
        reports_of(path, tmp_path / "audio.pcm", limits)
    enough = AudioLimits(max_decoded_bytes=2 * 10 * SAMPLE_RATE)
    assert reports_of(path, tmp_path / "audio.pcm", enough)[-1].finished


def test_all_channels_count_for_the_decoded_bytes(tmp_path, reports_of):
    path = makers.write(tmp_path / "a.flac", makers.channels(makers.noise(10), 2))
    limits = AudioLimits(max_decoded_bytes=3 * 10 * SAMPLE_RATE)
    assert reports_of(path, tmp_path / "audio.pcm", limits)[-1].finished
    with pytest.raises(AudioTooLong, match="ASR_MAX_DECODED_BYTES"):
        reports_of(path, tmp_path / "audio.pcm", limits, split=True)


# --- each step on silence -------------------------------------------------------------------------


def test_silence_is_told_from_samples():
    assert is_silence(silence(5))
    assert is_silence(silence(5, 2))
    assert is_silence(silence(5, 2).T[0])
    assert is_silence(silence(1))
    assert not is_silence(np.zeros(5, np.float32))
    assert not is_silence(np.zeros((1, 1), np.float32))
    assert not is_silence(silence(0))
    assert not is_silence(np.broadcast_to(np.float32(0.5), (5,)))


@given(
    rate=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    before=st.integers(1, 9000),
    n_silent=st.integers(1, 300_000),
)
def test_resampled_silence_equals_resampled_zeros(rate, before, n_silent):
    noise = makers.noise(1, rate).astype(np.float32)

    def through(block):
        resampler = _Resampler()
        blocks = (noise[:before], block, noise)
        out = [it for part in blocks for it in resampler.push(rate, part)]
        return np.concatenate([*out, resampler.finish()])

    found, expected = through(silence(n_silent)), through(np.zeros(n_silent, np.float32))
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("kind", ["webrtc", "off"])
@pytest.mark.parametrize("n_silent", [1, 479, 16_000, 1_000_001])
def test_speech_around_silence_is_found_as_around_zeros(kind, n_silent):
    speech = (makers.speech(3) * 32767).astype(np.int16)

    def regions(push):
        detector = SpeechDetector(VadOptions(kind=kind))
        found = detector.push(speech) + push(detector) + detector.push(speech) + detector.finish()
        return found, detector.n_samples, detector.settled_sample

    zeros = np.zeros(n_silent, np.int16)
    assert regions(lambda it: it.push_silence(n_silent)) == regions(lambda it: it.push(zeros))


def test_long_silence_costs_the_detector_no_more_than_short_silence():
    class Counter:
        frame_samples = 480
        n_frames = 0

        def is_speech(self, _):
            self.n_frames += 1
            return False

    short, long = Counter(), Counter()
    SpeechDetector(VadOptions(), short).push_silence(60 * SAMPLE_RATE)
    SpeechDetector(VadOptions(), long).push_silence(HOUR * SAMPLE_RATE)
    assert long.n_frames <= short.n_frames + 1
