"""Several audio tracks: which one is decoded, what the warning says, and tracks as channels."""

from __future__ import annotations

import asyncio
import json

import av
import numpy as np
import pytest

from asr import cli
from asr.audio.resample import decode
from asr.config import (
    AudioLimits,
    ChunkOptions,
    DecodeOptions,
    Options,
    SubtitleOptions,
    VadOptions,
)
from asr.errors import InvalidOption, UnsupportedAudio
from asr.pipeline import transcriber as pipeline
from asr.pipeline.transcriber import Transcriber, collect
from asr.service.http.problems import Problem
from asr.service.jobs.request import JobRequest
from asr.service.transcriptions.form import parse_fields
from asr.types import SAMPLE_RATE
from tests.audio.test_routes import by_both_routes, clicks
from tests.support import makers
from tests.support.fakes import FakeEngine

LIMITS = AudioLimits()
KINDS = [".mp4", ".mkv", ".ts"]


def write(path, *tracks, titles=()):
    """A file with several audio tracks. Each is a signal at 48 kHz, in one or more channels."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, samples in enumerate(tracks):
            stream = container.add_stream("aac", rate=48_000)
            stream.layout = makers.LAYOUTS[1 if samples.ndim == 1 else samples.shape[1]]
            stream.metadata.update(titles[number] if titles else {})
            streams.append(stream)
        packets = []
        for stream, samples in zip(streams, tracks, strict=True):
            plane = samples[None] if samples.ndim == 1 else samples.T
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(plane, np.float32), "fltp", stream.layout.name
            )
            frame.sample_rate, frame.pts = 48_000, 0
            packets += [*stream.encode(frame), *stream.encode(None)]
        for packet in sorted(packets, key=lambda it: it.pts * it.time_base):
            container.mux(packet)
    return path


def click(at, seconds=1.0):
    return makers.click(seconds, at, 48_000)


def nothing(seconds=1.0):
    return makers.silence(seconds, 48_000)


def decoded(path, **options):
    return by_both_routes(path.parent, path.read_bytes(), **options)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("spoken", [0, 1, 2])
def test_a_silent_track_is_not_chosen(tmp_path, suffix, spoken):
    tracks = [click(0.5) if number == spoken else nothing() for number in range(3)]
    samples, (warning,) = decoded(write(tmp_path / f"a{suffix}", *tracks))
    assert clicks(samples) == pytest.approx([0.5], abs=0.05)
    assert f"3 audio tracks: track {spoken} was transcribed, but not track" in warning
    assert warning.count("which is silent") == spoken
    assert "Send track=N" in warning


def test_a_track_that_is_silent_at_first_is_chosen(tmp_path):
    path = write(tmp_path / "a.mp4", click(2.5, 3), click(0.3, 3))
    samples, (warning,) = decoded(path)
    assert clicks(samples) == pytest.approx([2.5], abs=0.05)
    assert "track 0 was transcribed, but not track 1" in warning


def test_silent_tracks_alone(tmp_path):
    samples, (warning,) = decoded(write(tmp_path / "a.mp4", nothing(), nothing()))
    assert len(samples) / SAMPLE_RATE == pytest.approx(1, abs=0.1)
    assert "all are silent" in warning


def test_the_warning_names_languages_and_titles(tmp_path):
    titles = [{"language": "eng", "title": "The\nfilm"}, {"language": "deu"}]
    path = write(tmp_path / "a.mkv", click(0.5), click(0.3), titles=titles)
    _, (warning,) = decoded(path)
    assert "track 0 (eng, The film) was transcribed, but not track 1 (deu)" in warning.replace(
        "ger", "deu"
    )


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_chosen_track_is_decoded_without_a_warning(tmp_path, suffix, number):
    path = write(tmp_path / f"a{suffix}", click(0.3), click(0.7))
    samples, warnings = decoded(path, track=number)
    assert clicks(samples) == pytest.approx([(0.3, 0.7)[number]], abs=0.05)
    assert warnings == []


def test_a_track_that_does_not_exist(tmp_path):
    video = write(tmp_path / "a.mp4", click(0.3), click(0.7))
    with pytest.raises(InvalidOption, match="no track 2: send 0 to 1") as caught:
        decode(video, LIMITS, track=2)
    assert caught.value.name == "track"
    sound = makers.write(tmp_path / "a.wav", makers.tone(0.1))
    with pytest.raises(InvalidOption, match="no track 1: send only 0"):
        decode(sound, LIMITS, track=1)
    assert sum(map(len, decode(sound, LIMITS, track=0).blocks)) == 1600


@pytest.mark.parametrize("suffix", KINDS)
def test_tracks_are_channels_with_split(tmp_path, suffix):
    stereo = np.stack((nothing(), click(0.7)), axis=1)
    path = write(tmp_path / f"a{suffix}", click(0.3), stereo, click(1.4, 1.5))
    samples, warnings = decoded(path, split=True)
    assert samples.shape[1] == 3
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.5, abs=0.1)
    found = [clicks(2 * samples[:, [number]]) for number in range(3)]
    assert found == [pytest.approx([at], abs=0.05) for at in (0.3, 0.7, 1.4)]
    assert warnings == []
    assert decode(path, LIMITS, split=True).labels == ["track 0", "track 1", "track 2"]


def test_the_channels_of_a_chosen_track_with_split(tmp_path):
    stereo = np.stack((click(0.3), click(0.7)), axis=1)
    samples, _ = decoded(write(tmp_path / "a.mp4", nothing(), stereo), split=True, track=1)
    assert [clicks(samples[:, [side]]) for side in (0, 1)] == [
        pytest.approx([at], abs=0.05) for at in (0.3, 0.7)
    ]


def test_too_many_tracks_for_split(tmp_path):
    path = write(tmp_path / "a.mkv", *[click(0.05, 0.1)] * 9)
    with pytest.raises(UnsupportedAudio, match="9 channels"):
        list(decode(path, LIMITS, split=True).blocks)


def test_speakers_are_named_after_tracks(tmp_path):
    spans = [(0.2, 1.5)], [(2.0, 3.5)]
    tracks = [makers.bursts(4, part, 48_000) for part in spans]
    titles = [{}, {"title": "Microphone"}]
    path = write(tmp_path / "a.mkv", *tracks, titles=titles)

    async def run():
        async with Transcriber(FakeEngine()) as transcriber:
            options = Options(channels="split", vad=VadOptions(kind="webrtc"))
            return await collect(transcriber.transcribe_file(path, options))

    segments = asyncio.run(run()).segments
    assert [it.speaker for it in segments] == ["track 0", "track 1 (Microphone)"]
    assert [it.channel for it in segments] == [0, 1]


# --- the option ---------------------------------------------------------------------------------


def test_the_field_of_a_request():
    request = parse_fields([("track", "1")], "webrtc", LIMITS)
    assert request.options.track == 1
    assert request.warnings == ()
    assert parse_fields([], "webrtc", LIMITS).options.track is None


@pytest.mark.parametrize("value", ["-1", "100", "first", "1.5"])
def test_a_wrong_field_is_named(value):
    with pytest.raises(Problem, match="track: ") as caught:
        parse_fields([("track", value)], "webrtc", LIMITS)
    assert caught.value.param == "track"


def test_a_wrong_option_is_named():
    with pytest.raises(InvalidOption, match="must be 0 to 99; the first audio track is 0"):
        Options(track=-1)


def test_a_job_keeps_its_track():
    groups = (VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions())
    plain, chosen = JobRequest(*groups), JobRequest(*groups, track=1)
    assert JobRequest.unpack(chosen.pack()) == chosen
    assert chosen.with_limits(LIMITS).track == 1
    prints = [it.fingerprint("me", "hash", "engine") for it in (plain, chosen)]
    assert prints[0] != prints[1]
    older = json.loads(plain.pack())
    del older["track"]
    assert JobRequest.unpack(json.dumps(older)) == plain


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "load_engine", lambda _: FakeEngine(2))
    spans = [(0.2, 1.5)], [(2.0, 3.5)]
    path = write(tmp_path / "a.mkv", *[makers.bursts(4, part, 48_000) for part in spans])
    assert cli.main(["transcribe", str(path), "-f", "json", "--track", "1"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert segment["start"] > 1.5
    assert cli.main(["transcribe", str(path), "--track", "2"]) == cli.USAGE_ERROR
    assert "no track 2: send 0 to 1" in capsys.readouterr().err
