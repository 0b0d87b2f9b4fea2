"""The law of decoding: a file and the same bytes as a stream give the same audio, all of it.

Each container holds one recording, then two that were concatenated, of different rates and numbers
of channels. The growing file is complete from the start, so no test waits.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import soundfile

from asr.audio.growing import GrowingFile, decode_growing
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.errors import DamagedAudio
from asr.types import SAMPLE_RATE
from tests.support import makers

LIMITS = AudioLimits()
CODEC_DELAY = 0.15
"""Seconds that an encoder may add to a recording, or a decoder may leave out."""

SNDFILE = {  # format and subtype of libsndfile
    "wav": ("WAV", "PCM_16"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-ulaw": ("WAV", "ULAW"),
    "wavex": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
FAST = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
LIVE = {"live": "1"}
FFMPEG = {  # encoder, container and its options
    "m4a": ("aac", "mp4", {}),
    "m4a-index-first": ("aac", "mp4", FAST),
    "mp4-fragments": ("aac", "mp4", FRAGMENTS),
    "mov-pcm": ("pcm_s16le", "mov", {}),
    "mka": ("flac", "matroska", {}),
    "mka-live": ("flac", "matroska", LIVE),
    "webm": ("libopus", "webm", {}),
    "opus": ("libopus", "ogg", {}),
    "ogg-flac": ("flac", "ogg", {}),
    "aac": ("aac", "adts", {}),
    "ac3": ("ac3", "ac3", {}),
    "ts": ("aac", "mpegts", {}),
    "wma": ("wmav2", "asf", {}),
    "avi": ("pcm_s16le", "avi", {}),
    "mp3-uncounted": ("libmp3lame", "mp3", {"write_xing": "0"}),
}
KINDS = [*SNDFILE, *FFMPEG]
LOSSY = ("ogg", "mp3", "m4a", "m4a-index-first", "mp4-fragments", "opus", "webm", "mp3-uncounted")
EXACT = [kind for kind in KINDS if kind not in LOSSY]
SIZES = [0, 0xFFFFFFFF, 0x7FFFF000]


def write(path, kind, signal, rate, count):
    """A recording of a kind, with `count` channels."""
    samples = makers.channels(signal, count)
    if kind in SNDFILE:
        name, subtype = SNDFILE[kind]
        soundfile.write(path, samples, rate, subtype=subtype, format=name)
    else:
        codec, container, options = FFMPEG[kind]
        makers.write_container(path, samples, codec, rate, kind=container, options=options)
    return path.read_bytes()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The bytes of a click of the first or second form, of any kind."""
    folder = tmp_path_factory.mktemp("routes")

    @functools.cache
    def make(kind, form):
        rate, count = ((48_000, 1), (24_000, 2))[form]
        if kind in ("avi", "ts", "wma", "ac3"):
            rate = 48_000  # ac3 and others have no lower rates
        return write(
            folder / "a", kind, makers.click(0.8, at=0.3 + 0.2 * form, rate=rate), rate, count
        )

    return make


def samples_of(decoding):
    return np.concatenate(list(decoding.blocks)), decoding.warnings


def by_both_routes(folder, data, *, exact=False, **options):
    """Decode bytes as a file and as a stream; check that both give the same; return it.

    With `exact`, the samples must be equal. Otherwise mp3 and aac may differ in an encoder's
    padding, which only one of the decoders knows.
    """
    growing = GrowingFile(folder / "upload", folder / "upload.json")
    growing.path.write_bytes(data)
    growing.complete(len(data))
    whole, warnings = samples_of(decode(growing.path, LIMITS, **options))
    stream, others = samples_of(decode_growing(growing, LIMITS, lambda: None, **options))
    assert len(stream) == pytest.approx(len(whole), abs=0.1 * SAMPLE_RATE)
    assert clicks(stream) == pytest.approx(clicks(whole), abs=0.06)
    if exact:
        assert len(stream) == len(whole)
        assert np.abs(whole - stream).max() < 1e-4
    assert others == warnings
    return whole, warnings


def clicks(samples):
    """When clicks are heard, in seconds, to 0.1 s."""
    mono = np.abs(samples).reshape(len(samples), -1).max(axis=1)
    places = np.flatnonzero(mono > 0.2) / SAMPLE_RATE
    return [float(place) for i, place in enumerate(places) if i == 0 or place - places[i - 1] > 0.2]


@pytest.mark.parametrize("kind", KINDS)
def test_one_recording(tmp_path, recording, kind):
    samples, warnings = by_both_routes(tmp_path, recording(kind, 0), exact=kind in EXACT)
    assert len(samples) / SAMPLE_RATE == pytest.approx(0.8, abs=CODEC_DELAY)
    assert clicks(samples) == pytest.approx([0.3], abs=CODEC_DELAY)
    assert warnings == []


@pytest.mark.parametrize("kind", KINDS)
def test_two_recordings_of_a_kind(tmp_path, recording, kind):
    data = recording(kind, 0) + recording(kind, 1)
    samples, warnings = by_both_routes(tmp_path, data, exact=kind in EXACT)
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.6, abs=2 * CODEC_DELAY)
    assert clicks(samples) == pytest.approx([0.3, 1.3], abs=2 * CODEC_DELAY)
    assert warnings == []


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "mka", "aac"])
def test_three_recordings(tmp_path, recording, kind):
    data = recording(kind, 0) + recording(kind, 1) + recording(kind, 0)
    samples, warnings = by_both_routes(tmp_path, data, exact=kind in EXACT)
    assert clicks(samples) == pytest.approx([0.3, 1.3, 1.9], abs=3 * CODEC_DELAY)
    assert warnings == []


LENGTHS = ("wav", "wav-ulaw", "rf64", "w64", "aiff", "au", "caf", "m4a-index-first", "mka")


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_recording_that_is_cut_off_is_heard_up_to_there(tmp_path, kind):
    """Its header states its length, so both routes warn of what is missing."""
    rng = np.random.default_rng(1)
    signal = 0.02 * rng.standard_normal(16_000 * 4).astype(np.float32)
    signal[16_000] = 0.9
    data = write(tmp_path / "a", kind, signal, 16_000, 1)
    samples, warnings = by_both_routes(tmp_path, data[: len(data) * 6 // 10])
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.4, abs=0.4)
    assert clicks(samples) == pytest.approx([1.0], abs=0.05)
    assert any("the header promises 4." in warning for warning in warnings)


@pytest.mark.parametrize("rest", [b"", bytes(20_000)])
def test_a_flac_that_is_cut_off_is_damaged_by_both_routes(tmp_path, rest):
    data = write(tmp_path / "a", "flac", makers.noise(6), 16_000, 1)
    growing = GrowingFile(tmp_path / "upload", tmp_path / "upload.json")
    growing.path.write_bytes(data[: len(data) // 2] + rest)
    growing.complete(growing.path.stat().st_size)
    for decoding in (decode(growing.path, LIMITS), decode_growing(growing, LIMITS, lambda: None)):
        with pytest.raises(DamagedAudio, match="damaged or cut off after") as caught:
            list(decoding.blocks)
        assert 2 < caught.value.seconds < 3.1
        assert decoding.promised_seconds == 6
        assert decoding.warnings == ["1 damaged packet of audio was skipped"]


def test_a_flac_with_a_damaged_place_is_heard_before_and_after_it(tmp_path):
    rng = np.random.default_rng(1)
    signal = 0.02 * rng.standard_normal(16_000 * 8).astype(np.float32)
    signal[[16_000, 7 * 16_000]] = 0.9
    data = bytearray(write(tmp_path / "a", "flac", signal, 16_000, 1))
    data[len(data) // 2 : len(data) // 2 + 16_000] = bytes(16_000)
    samples, warnings = by_both_routes(tmp_path, bytes(data))
    assert clicks(samples)[0] == pytest.approx(1.0, abs=0.01)
    assert clicks(samples)[-1] == pytest.approx(7.0, abs=2)
    assert any("the header promises 8.0 s of audio" in warning for warning in warnings)


def test_an_ogg_with_two_tracks_is_warned_of(tmp_path):
    """Decoders of Ogg alone read the first one and stop."""
    pages = []
    for number, at in enumerate((0.3, 0.5)):
        data = bytearray(write(tmp_path / "a", "opus", makers.click(0.8, at, 48_000), 48_000, 1))
        pages.append(_pages(data, serial=number + 1))
    tracks = b"".join(first for first, *_ in pages)
    data = tracks + b"".join(page for _, *others in pages for page in others)
    samples, warnings = by_both_routes(tmp_path, data)
    assert clicks(samples) == pytest.approx([0.3], abs=0.05)
    assert "the recording has 2 audio tracks: track 0 was transcribed" in warnings[0]
    samples, _ = by_both_routes(tmp_path, data, track=1)
    assert clicks(samples) == pytest.approx([0.5], abs=0.05)


def _pages(data, serial):
    """The pages of an Ogg file with another serial number and the checksums for it."""
    pages, at = [], 0
    while at < len(data):
        n_segments = data[at + 26]
        end = at + 27 + n_segments + sum(data[at + 27 : at + 27 + n_segments])
        page = data[at:end]
        page[14:18], page[22:26] = serial.to_bytes(4, "little"), bytes(4)
        page[22:26] = _ogg_checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        at = end
    return pages


def _ogg_checksum(page):
    """CRC-32 with the polynomial 0x04C11DB7, without reflection."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


MIXED = ("wav", "aiff", "au", "caf", "w64", "flac", "ogg", "m4a", "mka", "aac")
PAIRS = [
    (first, MIXED[(place + step) % (len(MIXED) - 1)])
    for place, first in enumerate(MIXED)
    for step in (2, 5)
]


@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if pair[0] != pair[1]])
def test_two_recordings_of_different_kinds(tmp_path, recording, first, second):
    samples, _ = by_both_routes_unwarned(tmp_path, recording(first, 0) + recording(second, 1))
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.6, abs=2 * CODEC_DELAY)
    assert clicks(samples) == pytest.approx([0.3, 1.3], abs=2 * CODEC_DELAY)


def by_both_routes_unwarned(folder, data):
    """As `by_both_routes`, where one of the decoders may warn of packets that it skipped."""
    growing = GrowingFile(folder / "upload", folder / "upload.json")
    growing.path.write_bytes(data)
    growing.complete(len(data))
    whole, warnings = samples_of(decode(growing.path, LIMITS))
    stream, _ = samples_of(decode_growing(growing, LIMITS, lambda: None))
    assert len(stream) == pytest.approx(len(whole), abs=0.1 * SAMPLE_RATE)
    return whole, warnings


@pytest.mark.parametrize("between", [b"\0", bytes(5000), b"LIST\x04\0\0\0INFO", b"junk!" * 7001])
def test_bytes_between_two_recordings(tmp_path, recording, between):
    data = recording("wav", 0) + between + recording("wav", 1)
    samples, warnings = by_both_routes(tmp_path, data)
    assert clicks(samples) == pytest.approx([0.3, 1.3], abs=0.001)
    assert len(warnings) == (len(between) > 16_384)  # longer than any tag: perhaps audio was lost


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SIZES, SIZES)))
def test_wavs_from_a_pipe(tmp_path, first, second):
    """Their headers do not know how long they are."""
    parts = [
        makers.wav_bytes(makers.click(0.8, at=at), data_size=size)
        for at, size in ((0.3, first), (0.5, second))
    ]
    samples, warnings = by_both_routes(tmp_path, b"".join(parts))
    assert len(samples) == round(1.6 * SAMPLE_RATE)
    assert clicks(samples) == pytest.approx([0.3, 1.3], abs=0.001)
    assert warnings == []


def test_an_empty_recording_before_another(tmp_path, recording):
    data = makers.wav_bytes(makers.silence(0)) + recording("wav", 0)
    samples, warnings = by_both_routes(tmp_path, data)
    assert clicks(samples) == pytest.approx([0.3], abs=0.001)
    assert warnings == []


def test_a_size_that_is_too_small_is_warned_of(tmp_path):
    """A recorder that crashed leaves the size of its last update."""
    whole = makers.wav_bytes(makers.noise(2), data_size=SAMPLE_RATE)
    samples, warnings = by_both_routes(tmp_path, whole)
    assert len(samples) == SAMPLE_RATE // 2
    (warning,) = warnings
    assert "48000 bytes after the end of the recording at 0.5 s were not decoded" in warning
    assert "1.5 s of audio" in warning


def test_a_flac_that_counts_too_few_frames_is_decoded_whole(tmp_path):
    data = bytearray(write(tmp_path / "a", "flac", makers.noise(4), 16_000, 1))
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0x3E, 0x80])  # 1 s
    samples, _ = by_both_routes(tmp_path, bytes(data))
    assert len(samples) == 4 * SAMPLE_RATE


def test_a_flac_that_counts_too_many_frames_is_decoded_whole(tmp_path):
    """An encoder that estimated its length leaves such a header. No frame is damaged."""
    data = bytearray(write(tmp_path / "a", "flac", makers.noise(4), 16_000, 1))
    data[21:26] = bytes([data[21] & 0xF0, *(16_000 * 60).to_bytes(4)])
    samples, warnings = by_both_routes(tmp_path, bytes(data))
    assert len(samples) == 4 * SAMPLE_RATE
    assert warnings == ["the header promises 60.0 s of audio, the file holds 4.0 s"]


@pytest.mark.parametrize("kind", ["Info", "Xing"])
def test_an_mp3_that_counts_too_few_frames_is_decoded_whole(tmp_path, recording, kind):
    data = bytearray(write(tmp_path / "a", "mp3", makers.click(3, at=2.5, rate=48_000), 48_000, 1))
    place = max(data.find(b"Info"), data.find(b"Xing"))
    data[place : place + 4] = kind.encode()
    data[place + 8 : place + 12] = (30).to_bytes(4)
    samples, warnings = by_both_routes(tmp_path, bytes(data))
    assert clicks(samples) == pytest.approx([2.5], abs=0.05)
    assert warnings == []


def test_an_mp3_whose_stated_bytes_end_within_a_frame_is_decoded_whole(tmp_path):
    data = bytearray(write(tmp_path / "a", "mp3", makers.click(3, at=2.5, rate=48_000), 48_000, 1))
    place = max(data.find(b"Info"), data.find(b"Xing"))
    data[place + 8 : place + 16] = (30).to_bytes(4) + (len(data) // 3 + 5).to_bytes(4)
    samples, warnings = by_both_routes(tmp_path, bytes(data))
    assert clicks(samples) == pytest.approx([2.5], abs=0.05)
    assert warnings == []


def test_a_damaged_recording_names_its_time_in_the_file(tmp_path, recording):
    data = recording("wav", 0) + recording("flac", 0)[:-700]
    (tmp_path / "a").write_bytes(data)
    decoding = decode(tmp_path / "a", LIMITS)
    with pytest.raises(DamagedAudio, match=r"in the recording that begins at 0\.8 s") as caught:
        list(decoding.blocks)
    assert 0.8 <= caught.value.seconds <= 1.6


def test_a_recording_that_cannot_be_opened_is_warned_of(tmp_path, recording):
    other = bytearray(makers.wav_bytes(makers.noise(0.5)))
    other[20:22] = b"\x34\x12"  # a format that nobody knows
    samples, warnings = by_both_routes(tmp_path, recording("wav", 0) + bytes(other))
    assert clicks(samples) == pytest.approx([0.3], abs=0.001)
    (warning,) = warnings
    assert "another recording begins at 0.8 s, but the codec of the audio is unknown" in warning


# --- pauses in AMR ------------------------------------------------------------------------------

# Frame types and lengths: speech at the highest rate, comfort noise, a lost frame, no data.
AMR = {
    b"#!AMR\n": [(7, 32), (8, 6), (14, 1), (15, 1)],
    b"#!AMR-WB\n": [(8, 61), (9, 6), (14, 1), (15, 1)],
}


@pytest.mark.parametrize("magic", AMR)
def test_pauses_of_amr_are_silence(tmp_path, magic):
    speech, *pauses = [bytes([kind << 3 | 4]) + bytes(n - 1) for kind, n in AMR[magic]]
    data = magic + speech * 10 + b"".join(frame * 10 for frame in pauses) + speech * 10
    samples, warnings = by_both_routes(tmp_path, data)
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=40)
    pause = samples[round(0.25 * SAMPLE_RATE) : round(0.75 * SAMPLE_RATE)]
    assert np.abs(pause).max() < 1e-6
    assert warnings == []
    samples, _ = by_both_routes(tmp_path, data + data)
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=80)


# --- sound and picture --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "video"),
    [(".mp4", "aac", "mpeg4"), (".mkv", "aac", "mpeg4"), (".webm", "libopus", "libvpx")],
)
def test_a_picture_longer_than_its_sound_is_no_warning(tmp_path, suffix, codec, video):
    path = tmp_path / f"a{suffix}"
    makers.write_container(path, makers.click(1, 0.3), codec, video=video, picture_seconds=8)
    samples, warnings = by_both_routes(tmp_path, path.read_bytes())
    assert len(samples) / SAMPLE_RATE == pytest.approx(1, abs=CODEC_DELAY)
    assert warnings == []
