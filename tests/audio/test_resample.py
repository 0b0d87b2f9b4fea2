"""Decoding and resampling of real files in many formats: times, damage, refusals and limits."""

from __future__ import annotations

import asyncio
import os

import av.error
import numpy as np
import pytest
import soxr
from hypothesis import given, strategies as st

from asr.audio.containers import CHUNKS, samples_of
from asr.audio.decoding import ACCEPTED, Decoding
from asr.audio.ffmpeg import _frames
from asr.audio.mpeg import is_counted
from asr.audio.readers import BLOCK_FRAMES, _promised_share
from asr.audio.recording import PRELOAD, decode_recording
from asr.audio.resample import decode
from asr.config import AudioLimits, VadOptions
from asr.errors import (
    AudioError,
    AudioTooLong,
    DamagedAudio,
    EmptyAudio,
    UnsupportedAudio,
)
from asr.workers.pool import ProcessPool
from tests.support import makers

RATE = 16_000
LIMITS = AudioLimits()


def decoded(path, limits=LIMITS):
    """The samples of a recording, and its decoding."""
    decoding = decode(path, limits)
    blocks = list(decoding.blocks)
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    return np.concatenate(blocks), decoding


def seconds(path):
    return len(decoded(path)[0]) / RATE


def loudest(samples):
    """When the highest sample is, in seconds."""
    return float(np.abs(samples).argmax()) / RATE


def level_db(samples):
    return 20 * np.log10(np.sqrt(np.square(samples, dtype=np.float64).mean()) + 1e-12)


# --- formats ------------------------------------------------------------------------------------

# Codec frames extend beyond the signal, by 1024 to 2048 samples for AAC and WMA.
EXACT, FRAME, TWO_FRAMES = 0.001, 0.03, 0.08

SNDFILE = {
    "pcm8": (".wav", "PCM_U8", EXACT),
    "pcm16": (".wav", "PCM_16", EXACT),
    "pcm24": (".wav", "PCM_24", EXACT),
    "pcm32": (".wav", "PCM_32", EXACT),
    "float": (".wav", "FLOAT", EXACT),
    "double": (".wav", "DOUBLE", EXACT),
    "ulaw": (".wav", "ULAW", EXACT),
    "alaw": (".wav", "ALAW", EXACT),
    "flac": (".flac", "PCM_16", EXACT),
    "flac24": (".flac", "PCM_24", EXACT),
    "mp3": (".mp3", "", EXACT),
    "ogg": (".ogg", "VORBIS", EXACT),
    "opus": (".opus", "", EXACT),
}

FFMPEG = {
    "m4a": (".m4a", "aac", {}, FRAME),
    "m4a-alac": (".m4a", "alac", {}, EXACT),
    "mp4-video": (".mp4", "aac", {"video": "mpeg4"}, FRAME),
    "mov-video": (".mov", "aac", {"video": "mpeg4"}, FRAME),
    "mov-pcm": (".mov", "pcm_s24le", {}, EXACT),
    "webm": (".webm", "libopus", {}, FRAME),
    "webm-video": (".webm", "libopus", {"video": "libvpx"}, FRAME),
    "mkv-aac": (".mkv", "aac", {}, FRAME),
    "mkv-flac": (".mkv", "flac", {}, EXACT),
    "mkv-video": (".mkv", "ac3", {"video": "mpeg4"}, FRAME),
    "aac": (".aac", "aac", {"kind": "adts"}, TWO_FRAMES),
    "wma": (".wma", "wmav2", {"kind": "asf"}, TWO_FRAMES),
}


@pytest.mark.parametrize("name", SNDFILE)
@pytest.mark.parametrize("count", [1, 2])
def test_formats_of_libsndfile(tmp_path, name, count):
    suffix, subtype, tolerance = SNDFILE[name]
    signal = makers.tone(1.3, rate=48_000)
    path = makers.write(
        tmp_path / f"a{suffix}", makers.channels(signal, count), 48_000, subtype=subtype
    )
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(1.3, abs=tolerance)
    assert level_db(samples[4000:16000]) == pytest.approx(level_db(signal), abs=0.5)
    assert decoding.warnings == []


@pytest.mark.parametrize("name", FFMPEG)
@pytest.mark.parametrize("count", [1, 2])
def test_formats_of_ffmpeg(tmp_path, name, count):
    suffix, codec, rest, tolerance = FFMPEG[name]
    signal = makers.tone(1.3, rate=48_000)
    path = makers.write_container(
        tmp_path / f"a{suffix}", makers.channels(signal, count), codec, 48_000, **rest
    )
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(1.3, abs=tolerance)
    assert level_db(samples[4000:16000]) == pytest.approx(level_db(signal), abs=0.5)
    assert decoding.warnings == []


def test_amr(tmp_path):
    assert seconds(makers.write_amr(tmp_path / "a.amr", 2)) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_rates_and_channels(tmp_path, rate, count):
    signal = makers.tone(0.7, 1000, rate)
    for path in (
        makers.write(tmp_path / "a.wav", makers.channels(signal, count), rate),
        makers.write(tmp_path / "a.flac", makers.channels(signal, count), rate),
    ):
        samples, _ = decoded(path)
        assert len(samples) / RATE == pytest.approx(0.7, abs=EXACT)
        assert level_db(samples[2000:9000]) == pytest.approx(level_db(signal), abs=0.1)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
def test_rates_and_six_channels_in_m4a(tmp_path, rate):
    signal = makers.channels(makers.tone(0.7, 1000, rate), 6)
    path = makers.write_container(tmp_path / "a.m4a", signal, "aac", rate)
    assert seconds(path) == pytest.approx(0.7, abs=1024 / rate + EXACT)


def test_channels_are_averaged(tmp_path):
    left, right = makers.tone(0.5, 500), makers.tone(0.5, 3000)
    path = makers.write(tmp_path / "a.wav", np.stack((left, right), axis=1), subtype="FLOAT")
    assert np.allclose(decoded(path)[0], (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["a.wav", "a.mp3", "a.txt", "a.raw", "a.vox", "a.m4a", "12:30", "http:x", "-i", "ü\n.x"]
)
def test_the_bytes_tell_the_format_and_the_name_does_not(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    signal = makers.tone(0.5)
    makers.write(tmp_path / "mp3.mp3", signal).rename(tmp_path / name)
    assert seconds(type(tmp_path)(name)) == pytest.approx(0.5, abs=EXACT)
    makers.write_container(tmp_path / "m4a.m4a", signal, "aac").rename(tmp_path / name)
    assert seconds(type(tmp_path)(name)) == pytest.approx(0.5, abs=FRAME)


@pytest.mark.parametrize(
    "name", ["a.vox", "a.gsm", "a.au", "a.snd", "a.raw", "a.wav", "a.mp3", "a"]
)
def test_random_bytes_are_no_audio_whatever_their_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(5).bytes(20_000))
    with pytest.raises(UnsupportedAudio, match="Accepted are wav, flac, mp3"):
        decoded(path)


# --- resampling ---------------------------------------------------------------------------------


def test_a_tone_above_the_new_band_vanishes(tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.tone(2, 12_000, 48_000), 48_000, "FLOAT")
    samples, _ = decoded(path)
    assert level_db(samples[1600:-1600]) - level_db(makers.tone(1)) < -80


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 192_000])
def test_a_tone_keeps_its_level_and_phase(tmp_path, rate):
    path = makers.write(tmp_path / "a.wav", makers.tone(2, 1000, rate), rate, "FLOAT")
    samples, _ = decoded(path)
    expected = makers.tone(2, 1000)
    middle = slice(1600, -1600)
    assert np.abs(samples[middle] - expected[middle]).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_the_stream_equals_resampling_at_once(tmp_path, rate):
    signal = makers.noise(3 * BLOCK_FRAMES / rate, rate)
    path = makers.write(tmp_path / "a.wav", signal, rate, "FLOAT")
    assert np.allclose(decoded(path)[0], soxr.resample(signal, rate, RATE), atol=1e-6)


@pytest.mark.slow
def test_librosa_resamples_alike(tmp_path):
    import librosa  # the import takes seconds; only this test needs it

    signal = makers.noise(2, 44_100)
    path = makers.write(tmp_path / "a.wav", signal, 44_100, "FLOAT")
    expected = librosa.resample(signal, orig_sr=44_100, target_sr=RATE, res_type="soxr_hq")
    samples, _ = decoded(path)
    assert abs(len(samples) - len(expected)) <= 1
    n = min(len(samples), len(expected))
    assert np.allclose(samples[:n], expected[:n], atol=1e-5)


def test_the_rate_may_change_on_the_way(tmp_path):
    parts = [
        makers.write_container(
            tmp_path / "part.aac", makers.tone(1, 1000, rate), "aac", rate, kind="adts"
        ).read_bytes()
        for rate in (44_100, 22_050, 44_100)
    ]
    path = tmp_path / "a.aac"
    path.write_bytes(b"".join(parts))
    samples, _ = decoded(path)
    assert len(samples) / RATE == pytest.approx(3, abs=0.2)  # two frames too many in each part
    for second in (0.5, 1.6, 2.6):
        window = samples[round(second * RATE) :][: RATE // 5]
        peak = np.abs(np.fft.rfft(window * np.hanning(len(window)))).argmax()
        assert peak * 5 == pytest.approx(1000, abs=10)


# --- times --------------------------------------------------------------------------------------

# Milliseconds by which a codec moves what it codes. Raw ADTS does not say how much its encoder put
# in front (1024 samples); WMA's decoder drops 2048 where FFmpeg's encoder added fewer.
CLICKS = {
    ".wav": ("", {}, 0.0),
    ".flac": ("", {}, 0.0),
    ".mp3": ("", {}, 0.0),
    ".ogg": ("", {}, 0.0),
    ".m4a": ("aac", {}, 0.0),
    ".mp4": ("aac", {"video": "mpeg4"}, 0.0),
    ".mkv": ("aac", {}, 0.0),
    ".ts": ("aac", {}, 1000 * 1024 / 44_100),
    ".aac": ("aac", {"kind": "adts"}, 1000 * 1024 / 44_100),
    ".wma": ("wmav2", {"kind": "asf"}, -1000 * 2048 / 44_100),
}


@pytest.mark.parametrize("suffix", CLICKS)
def test_a_click_keeps_its_time(tmp_path, suffix):
    codec, rest, offset_ms = CLICKS[suffix]
    signal = makers.click(3, 1.2345, 44_100)
    path = tmp_path / f"a{suffix}"
    if codec:
        makers.write_container(path, signal, codec, 44_100, **rest)
    else:
        makers.write(path, signal, 44_100)
    found = (loudest(decoded(path)[0]) - 1.2345) * 1000
    assert found == pytest.approx(offset_ms, abs=0.2)


@pytest.mark.parametrize(("suffix", "codec"), [(".opus", ""), (".webm", "libopus")])
def test_a_click_keeps_its_time_in_opus(tmp_path, suffix, codec):
    signal, path = makers.click(3, 1.2345, 48_000), tmp_path / f"a{suffix}"
    if codec:
        makers.write_container(path, signal, codec, 48_000)
    else:
        makers.write(path, signal, 48_000)
    assert loudest(decoded(path)[0]) == pytest.approx(1.2345, abs=0.0005)


LATE = [(".mkv", "flac", "mpeg4"), (".mp4", "aac", "mpeg4"), (".webm", "libopus", "libvpx")]


@pytest.mark.parametrize(("suffix", "codec", "video"), LATE)
def test_sound_that_starts_after_the_picture_keeps_its_time(tmp_path, suffix, codec, video):
    path = makers.write_container(
        tmp_path / f"a{suffix}", makers.click(2, 1.0), codec, video=video, shift=lambda t: t + 1.5
    )
    samples, decoding = decoded(path)
    assert loudest(samples) == pytest.approx(2.5, abs=0.002)
    assert not samples[: round(1.4 * RATE)].any()
    assert decoding.warnings == []


@pytest.mark.parametrize(("suffix", "codec", "video"), LATE)
def test_a_lead_shorter_than_any_gap_is_kept_too(tmp_path, suffix, codec, video):
    path = makers.write_container(
        tmp_path / f"a{suffix}", makers.click(2, 1.0), codec, video=video, shift=lambda t: t + 0.08
    )
    assert loudest(decoded(path)[0]) == pytest.approx(1.08, abs=0.002)


def test_without_a_picture_the_first_sound_is_time_0(tmp_path):
    path = makers.write_container(
        tmp_path / "a.mkv", makers.click(2, 1.0), "flac", shift=lambda t: t + 1.5
    )
    samples, decoding = decoded(path)
    assert loudest(samples) == pytest.approx(1.0, abs=0.001)
    assert decoding.promised_seconds == pytest.approx(2.0, abs=0.01)
    assert decoding.warnings == []


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "flac"), (".mkv", "aac"), (".mp4", "aac")])
def test_a_gap_becomes_silence(tmp_path, suffix, codec):
    path = makers.write_container(
        tmp_path / f"a{suffix}", makers.click(3, 2.0), codec, shift=lambda t: t + 2.5 * (t >= 1)
    )
    samples, _ = decoded(path)
    assert loudest(samples) == pytest.approx(4.5, abs=0.001)
    assert len(samples) / RATE == pytest.approx(5.5, abs=FRAME)


def test_jitter_of_the_timestamps_adds_nothing(tmp_path):
    path = makers.write_container(
        tmp_path / "a.mkv", makers.click(3, 2.0), "aac", shift=lambda t: t + 0.02 * (t % 0.3 > 0.15)
    )
    assert loudest(decoded(path)[0]) == pytest.approx(2.0, abs=0.001)


# --- floats that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_samples_that_are_no_numbers(tmp_path, rate, count):
    signal = makers.channels(makers.tone(0.5, rate=rate), count)
    signal[100], signal[2000, 0] = np.nan, np.inf
    signal[4000], signal[4100] = -np.inf, 3e38
    signal[4200, :2] = (np.inf, -np.inf)[:count]
    path = makers.write(tmp_path / "a.wav", signal, rate, "FLOAT")
    samples, _ = decoded(path)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 2
    untouched = slice(round(0.35 * RATE), round(0.45 * RATE))
    assert level_db(samples[untouched]) == pytest.approx(level_db(makers.tone(1)), abs=0.3)


# --- what is refused, and what is repaired ------------------------------------------------------


def test_an_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyAudio, match="the file is empty"):
        decode(tmp_path / "a.wav", LIMITS)


def test_a_header_without_samples(tmp_path):
    whole = makers.wav_bytes(makers.tone(1))
    path = tmp_path / "a.wav"
    for data in (whole[:44], makers.wav_bytes(makers.tone(0)), b"#!AMR\n"):
        path.write_bytes(data)
        with pytest.raises(EmptyAudio):
            decoded(path)


def test_half_a_header(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(makers.wav_bytes(makers.tone(1))[:20])
    with pytest.raises(UnsupportedAudio):
        decoded(path)


def test_a_video_without_sound(tmp_path):
    path = tmp_path / "a.mp4"
    makers.write_video(path, 1)
    with pytest.raises(UnsupportedAudio, match="no audio track"):
        decoded(path)


def test_samples_of_64_bits(tmp_path):
    path = makers.write_container(tmp_path / "a.wav", makers.tone(0.2), "pcm_s64le")
    with pytest.raises(UnsupportedAudio, match="s64"):
        decoded(path)


def test_a_codec_that_nobody_knows(tmp_path):
    data = bytearray(makers.wav_bytes(makers.tone(0.2)))
    data[20:22] = b"\x34\x12"  # the tag of the format
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(UnsupportedAudio, match="codec"):
        decoded(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF, 0x7FFFF000, 4_000_000_000])
def test_a_wav_header_that_lies_about_its_size(tmp_path, size):
    """Streamed and interrupted recordings have such headers."""
    path = tmp_path / "a.wav"
    path.write_bytes(makers.wav_bytes(makers.tone(250 / RATE), data_size=size))
    samples, decoding = decoded(path)
    assert len(samples) == 250
    assert decoding.warnings == []


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"])
def test_a_truncated_file_without_compression_is_warned_of(tmp_path, kind):
    path = makers.write(tmp_path / "a", makers.noise(6), kind=kind, subtype="PCM_16")
    assert decoded(path)[1].warnings == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(3, abs=0.01)
    message = "the header promises 6.0 s of audio, the file holds 3.0 s"
    assert decoding.warnings == [message]


def test_chunks_before_the_samples_of_a_truncated_wav_are_not_decoded(tmp_path):
    data = makers.wav_bytes(makers.noise(6))
    note = b"note" + (64_001).to_bytes(4, "little") + bytes(64_002)  # chunks begin at even places
    path = tmp_path / "a.wav"
    path.write_bytes((data[:36] + note + data[36:])[: 64_010 + len(data) // 2])
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(3, abs=0.01)
    assert decoding.promised_seconds == pytest.approx(6, abs=0.01)


def test_bytes_behind_the_samples_of_a_wav_change_nothing(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(makers.wav_bytes(makers.noise(2)) + b"LIST\x04\0\0\0INFO" + bytes(9_000))
    samples, decoding = decoded(path)
    assert len(samples) == 2 * RATE
    assert decoding.promised_seconds == 2
    assert decoding.warnings == []


@given(
    magic=st.sampled_from([*CHUNKS, b".snd", b"ID3\x04"]),
    pieces=st.lists(
        st.sampled_from([b"data", b"SSND", b"ds64", bytes(28), bytes(4), b"\xff" * 8])
        | st.binary(max_size=40)
    ),
)
def test_any_header_promises_all_that_is_there_or_more(magic, pieces):
    data = magic + b"".join(pieces)
    samples = samples_of(lambda at, n_bytes: data[at : at + n_bytes])
    assert _promised_share(samples, len(data)) >= 1


def test_a_flac_header_that_does_not_know_its_length(tmp_path):
    """``flac -`` writes 0 when it encodes from a pipe."""
    path = makers.write(tmp_path / "a.flac", makers.click(3, 2.0))
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    samples, _ = decoded(path)
    assert len(samples) == 3 * RATE
    assert loudest(samples) == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".ogg"])
def test_a_truncated_file_is_damaged_or_shorter(tmp_path, suffix, share):
    path = makers.write(tmp_path / f"a{suffix}", makers.noise(6))
    data = path.read_bytes()
    path.write_bytes(data[: round(share * len(data))])
    if suffix == ".flac":  # a FLAC knows its length, and its decoder insists
        with pytest.raises(DamagedAudio, match="damaged or cut off after") as caught:
            decoded(path)
        assert 0 <= caught.value.seconds <= 6 * share + 0.5
        return
    samples, decoding = decoded(path)
    page = 1.5 if suffix == ".ogg" else 0.3  # what is cut goes as a whole
    assert 6 * share - page < len(samples) / RATE < 6 * share + 0.1
    if suffix == ".mp3" and share < 0.8:
        assert any("the header promises 6.0 s" in warning for warning in decoding.warnings)


def test_a_truncated_m4a(tmp_path):
    signal = makers.speech(6)
    for options in ({}, {"movflags": "faststart"}):
        path = makers.write_container(tmp_path / "a.m4a", signal, "aac", options=options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if options:  # the table of contents is in front
            samples, decoding = decoded(path)
            assert len(samples) / RATE == pytest.approx(3, abs=0.7)
            assert any("the header promises 6.0 s" in warning for warning in decoding.warnings)
        else:
            with pytest.raises(UnsupportedAudio):
                decoded(path)


CODINGS = {
    "vbr": {"flags": "+qscale", "global_quality": "236"},
    "abr": {"abr": "1"},
    "cbr": {},
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_that_does_not_count_its_frames_is_decoded_whole(tmp_path, coding, loud_first):
    """Encoders write such files into a pipe; the first frames' bitrate does not give the length."""
    signal = np.concatenate((makers.noise(20), makers.silence(8), makers.click(2, at=1.0)))
    signal = signal if loud_first else signal[::-1]
    path = makers.write_container(
        tmp_path / "a.mp3",
        signal,
        "libmp3lame",
        options={"write_xing": "0"},
        coding=CODINGS[coding],
    )
    data = path.read_bytes()
    assert not is_counted(lambda at, n_bytes: data[at : at + n_bytes], 0, len(data))
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(30, abs=0.15), "and the encoder's padding"
    found = loudest(samples[22 * RATE :]) + 22 if loud_first else loudest(samples[: 8 * RATE])
    assert found == pytest.approx(29 if loud_first else 1, abs=0.1)
    assert decoding.warnings == []


def test_an_aac_promises_nothing(tmp_path):
    """Its length, too, used to be guessed from the first frames."""
    signal = np.concatenate((makers.silence(10), makers.noise(10)))
    path = makers.write_container(tmp_path / "a.aac", signal[::-1], "aac", kind="adts")
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(20, abs=0.15)
    assert decoding.promised_seconds is None


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".opus"])
def test_recordings_that_were_joined_are_all_decoded(tmp_path, suffix):
    path = makers.write(tmp_path / f"a{suffix}", makers.click(5, at=1.0))
    one = path.read_bytes()
    for tags in (b"", b"ID3\x04\0\0\0\0\x02\x01" + bytes(257) if suffix == ".mp3" else b""):
        path.write_bytes(tags + one + one + one)
        samples, decoding = decoded(path)
        assert len(samples) / RATE == pytest.approx(15, abs=0.3), "an encoder's padding at a joint"
        assert loudest(samples[: 5 * RATE]) == pytest.approx(1, abs=0.002)
        assert loudest(samples[10 * RATE :]) == pytest.approx(1, abs=0.3)
        assert decoding.warnings == []


def test_mp3s_that_were_joined_with_a_tag_between_them(tmp_path):
    one = makers.write(tmp_path / "a.mp3", makers.click(5, at=1.0)).read_bytes()
    path = tmp_path / "b.mp3"
    path.write_bytes(one + b"TAG" + b"A title".ljust(125, b"\0") + one)
    samples, decoding = decoded(path)
    assert len(samples) / RATE == pytest.approx(10, abs=0.2)
    assert loudest(samples[5 * RATE :]) == pytest.approx(1, abs=0.2)
    assert decoding.warnings == []


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_a_tag_behind_a_recording_is_none(tmp_path, suffix):
    path = makers.write(tmp_path / f"a{suffix}", makers.noise(5))
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    samples, decoding = decoded(path)
    assert len(samples) == 5 * RATE
    assert decoding.warnings == []


@pytest.mark.parametrize("rate", [4_000, 7_999, 192_001, 384_000])
def test_a_rate_out_of_range(tmp_path, rate):
    path = makers.write(tmp_path / "a.wav", makers.tone(0.1, rate=rate), rate)
    with pytest.raises(UnsupportedAudio, match=f"{rate} Hz") as caught:
        decode(path, LIMITS)
    assert ACCEPTED in str(caught.value)


def test_too_many_channels(tmp_path):
    path = makers.write(tmp_path / "a.wav", np.zeros((100, 65), np.float32))
    with pytest.raises(UnsupportedAudio, match="65 channels"):
        decode(path, LIMITS)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "m3u": "#EXTM3U\n{}\n",
    "dash": '<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet><Representation>'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".wav", ".m3u8", ".mp4"])
def test_a_playlist_opens_no_other_file(tmp_path, kind, suffix):
    secret = makers.write(tmp_path / "secret.wav", makers.tone(1))
    past = secret.stat().st_mtime_ns - 10**15
    os.utime(secret, ns=(past, past))
    path = tmp_path / f"a{suffix}"
    for target in (secret.name, str(secret), f"file:{secret}"):
        path.write_text(PLAYLISTS[kind].format(target), encoding="utf-8")
        with pytest.raises(UnsupportedAudio):
            decoded(path)
    assert secret.stat().st_atime_ns == past  # not read: relatime notes a first read


# --- limits -------------------------------------------------------------------------------------


def test_too_many_bytes(tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.tone(1))
    size = path.stat().st_size
    with pytest.raises(AudioTooLong, match=f"{size} bytes; {size - 1} are allowed"):
        decode(path, AudioLimits(max_bytes=size - 1))
    assert len(decoded(path, AudioLimits(max_bytes=size))[0]) == RATE


def test_a_bomb_of_silence_is_left_early(tmp_path):
    hour = np.zeros(3600 * 8000, np.int16)
    path = makers.write(tmp_path / "a.flac", hour, 8000)
    assert path.stat().st_size < 200_000
    decoding = decode(path, AudioLimits(max_seconds=60))
    blocks = []
    with pytest.raises(AudioTooLong, match="longer than 60 seconds"):
        blocks.extend(decoding.blocks)
    assert 50 * RATE < sum(len(block) for block in blocks) <= 60 * RATE


def test_exactly_the_allowed_length(tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.tone(2))
    assert len(decoded(path, AudioLimits(max_seconds=2))[0]) == 2 * RATE


def decode_in_child(path, limits):
    async def run():
        pool = ProcessPool(PRELOAD, 1)
        try:
            reports = decode_recording(pool, path, path.with_suffix(".pcm"), VadOptions(), limits)
            return [report async for report in reports]
        finally:
            await pool.close()

    return asyncio.run(run())


def test_too_much_cpu_time(tmp_path):
    path = tmp_path / "a.wav"
    n_bytes = 40_000 * 48_000 * 2  # more than ten times what any processor decodes in a second
    path.write_bytes(makers.wav_bytes(makers.silence(0), 48_000, n_bytes))
    os.truncate(path, path.stat().st_size + n_bytes)  # a sparse file, which takes no disk space
    with pytest.raises(AudioTooLong, match="more than 1 s of CPU time"):
        decode_in_child(path, AudioLimits(max_cpu_seconds=1))


def test_too_much_memory(tmp_path):
    path = makers.write(tmp_path / "a.wav", np.zeros((BLOCK_FRAMES, 64), np.float32), 48_000)
    with pytest.raises(AudioTooLong, match="bytes of memory"):
        decode_in_child(path, AudioLimits(max_memory_bytes=100 << 20))
    assert decode_in_child(path, LIMITS)[-1].finished


def test_ffmpeg_without_memory_is_no_damage():
    class Starved:
        def decode(self):
            raise av.error.MemoryError(12, "Cannot allocate memory")

        def demux(self, _):
            return iter([self] * 9)

    with pytest.raises(MemoryError):
        list(_frames(Starved(), None, Decoding()))


def test_every_refusal_is_an_audio_error():
    for kind in (UnsupportedAudio, DamagedAudio, EmptyAudio, AudioTooLong):
        assert issubclass(kind, AudioError)
