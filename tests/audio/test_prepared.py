"""Recordings prepared for a page: their time axis, peaks, spans, and what browsers play."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.audio import prepared
from asr.audio.prepared import Info, read_info, read_peaks, read_span
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.errors import AudioTooLong, EmptyAudio, UnsupportedAudio
from tests.support.makers import channels, click, silence, tone, write, write_container, write_video


def prepare(path, folder, **fields):
    """Run the job as a child does; returns its answer."""
    folder.mkdir()
    sent = []
    request = {
        "source": str(path),
        "folder": str(folder),
        "limits": asdict(AudioLimits()),
        "split": False,
        "track": None,
    }
    prepared.prepare_job(SimpleNamespace(receive=lambda: (request | fields, b""), send=sent.append))
    (answer,) = sent
    assert read_info(folder) == Info(**answer)
    return Info(**answer)


@pytest.mark.parametrize(("kind", "rate"), [("mp3", 8000), ("ogg", 44_100)])
def test_a_span_is_where_the_transcript_says(tmp_path, kind, rate):
    """The samples are those that the pipeline decodes."""
    path = write(tmp_path / f"a.{kind}", click(5.0, 3.0, rate), rate)
    info = prepare(path, tmp_path / "made")
    decoded = np.concatenate(list(decode(path, AudioLimits()).blocks))
    assert info.seconds == len(decoded) / 16_000
    span = read_span(tmp_path / "made", 2.9, 3.1)
    expected = decoded[round(2.9 * 16_000) : round(3.1 * 16_000)]
    assert np.abs(span / 32768 - expected).max() < 1e-4
    assert abs(np.abs(span).argmax() / 16_000 - 0.1) < 0.01
    assert len(read_span(tmp_path / "made", 4.9, 99.0)) == len(decoded) - round(4.9 * 16_000)
    assert len(read_span(tmp_path / "made", 50.0, 60.0)) == 0


def test_peaks_are_the_extremes_of_each_point(tmp_path):
    samples = np.concatenate([silence(1.0), tone(1.0), silence(0.505)])
    info = prepare(write(tmp_path / "a.wav", samples), tmp_path / "made")
    assert info.seconds == 2.505
    per_point, values = read_peaks(tmp_path / "made", 100, 1000)
    assert (per_point, len(values)) == (160, 2 * 251)
    low, high = values.reshape(-1, 2).T
    assert (low[:100] == 0).all()
    assert set(low[100:200]) <= {-64, -65}
    assert set(high[100:200]) <= {63, 64}
    assert (high[200:] == 0).all()
    per_point, values = read_peaks(tmp_path / "made", 3, 1000)
    assert per_point == 160 * 34
    assert len(values) == 2 * 8
    assert (values.min(), values.max()) == (low.min(), high.max())


def test_long_recordings_have_fewer_points_per_second(tmp_path):
    prepare(write(tmp_path / "a.wav", tone(2.0)), tmp_path / "made")
    per_point, values = read_peaks(tmp_path / "made", 100, 7)
    assert len(values) <= 2 * 7
    assert per_point * len(values) / 2 >= 2 * 16_000


def test_separate_channels_are_averaged(tmp_path):
    samples = channels(tone(1.0), 2)
    samples[:, 1] = 0
    prepare(write(tmp_path / "a.wav", samples), tmp_path / "made", split=True)
    assert abs(np.abs(read_span(tmp_path / "made", 0, 1)).max() - 0.25 * 32768) < 200


def test_browsers_play_what_has_the_same_times(tmp_path):
    sound = tone(1.0)
    made = {
        "wav": write(tmp_path / "a.wav", sound),
        "flac": write(tmp_path / "a.flac", sound),
        "float": write(tmp_path / "b.wav", sound, subtype="FLOAT"),
        "mp3": write(tmp_path / "a.mp3", sound),
        "m4a": write_container(tmp_path / "a.m4a", sound, "aac"),
        "wma": write_container(tmp_path / "a.wma", sound, "wmav2"),
        "mp4": write_container(tmp_path / "a.mp4", sound, "aac", video="mpeg4"),
    }
    made["several"] = tmp_path / "several.wav"
    made["several"].write_bytes(made["wav"].read_bytes() * 2)
    made["renamed"] = made["wav"].rename(tmp_path / "a.exe")
    found = {
        name: prepare(path, tmp_path / name).played_as
        for name, path in made.items()
        if path.exists()
    }
    played = {name: kind for name, kind in found.items() if kind}
    assert played == {"flac": "audio/flac", "m4a": "audio/mp4", "renamed": "audio/wav"}


def test_what_was_decoded_before_the_damage_is_kept(tmp_path):
    path = write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 80_000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    info = prepare(path, tmp_path / "made")
    assert 1 < info.seconds < 4
    assert info.played_as == ""


def test_what_is_no_recording_is_refused(tmp_path):
    text = tmp_path / "text"
    text.write_text("not audio")
    for path, error in ((text, UnsupportedAudio), (write_video(tmp_path / "v.mp4", 1), Exception)):
        with pytest.raises(error):
            prepare(path, tmp_path / f"made {path.name}")
    with pytest.raises(EmptyAudio):
        prepare(write(tmp_path / "a.wav", silence(0)), tmp_path / "none")
    limits = asdict(AudioLimits(max_seconds=0.5))
    with pytest.raises(AudioTooLong):
        prepare(write(tmp_path / "b.wav", tone(1.0)), tmp_path / "long", limits=limits)
    assert read_info(tmp_path / "none") is None


def test_the_audio_is_flac_that_any_player_can_seek_in(tmp_path):
    prepare(write(tmp_path / "a.ogg", tone(2.0)), tmp_path / "made")
    found = soundfile.info(tmp_path / "made" / prepared.AUDIO)
    assert (found.samplerate, found.channels, found.subtype) == (16_000, 1, "PCM_16")
    assert found.frames == 32_000
    assert json.loads((tmp_path / "made" / prepared.INFO).read_text())["seconds"] == 2.0
