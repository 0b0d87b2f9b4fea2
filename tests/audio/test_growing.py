"""Decoding a recording while it arrives gives the audio of the whole file, without delay."""

from __future__ import annotations

import asyncio
import functools
import threading
import time

import numpy as np
import pytest
import soundfile

from asr.audio.growing import GrowingFile, decode_growing
from asr.audio.resample import decode
from asr.config import AudioLimits, Options, VadOptions
from asr.errors import AudioIncomplete, AudioTooLong, EmptyAudio, UnsupportedAudio
from asr.pipeline.run import Progress
from asr.pipeline.transcriber import Transcriber
from asr.types import SAMPLE_RATE, Segment, Transcript
from tests.support.fakes import FakeEngine
from tests.support.makers import bursts, channels, write, write_container

LIMITS = AudioLimits()
SPANS = [(0.5, 4), (6.5, 11), (13.5, 17), (19.5, 23), (25.5, 29)]
SECONDS = 30


def wav(path):
    return write(path / "a.wav", channels(bursts(SECONDS, SPANS, 44_100), 2), 44_100)


def flac(path):
    return write(path / "a.flac", bursts(SECONDS, SPANS, 44_100), 44_100)


def mp3(path):
    return write(path / "a.mp3", bursts(SECONDS, SPANS, 44_100), 44_100)


def ogg(path):
    samples = bursts(SECONDS, SPANS, 44_100)
    with soundfile.SoundFile(path / "a.ogg", "w", 44_100, 1) as file:  # in one write, it crashes
        for start in range(0, len(samples), 8192):
            file.write(samples[start : start + 8192])
    return path / "a.ogg"


def opus(path):
    samples = bursts(SECONDS, SPANS, 48_000)
    return write_container(path / "a.opus", samples, "libopus", 48_000, kind="ogg")


def webm(path):
    return write_container(path / "a.webm", bursts(SECONDS, SPANS, 48_000), "libopus", 48_000)


def aac(path):
    return write_container(path / "a.aac", bursts(SECONDS, SPANS, 44_100), "aac", 44_100)


def m4a_index_first(path):
    options = {"movflags": "faststart"}
    samples = bursts(SECONDS, SPANS, 44_100)
    return write_container(path / "a.m4a", samples, "aac", 44_100, kind="mp4", options=options)


def m4a_index_last(path):
    return write_container(path / "b.m4a", bursts(SECONDS, SPANS, 44_100), "aac", 44_100)


STREAMED = [wav, flac, mp3, ogg, opus, webm, aac, m4a_index_first]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The recording in the format of a function above, encoded once."""
    return functools.cache(lambda make: make(tmp_path_factory.mktemp("made")))


@pytest.fixture
def growing(tmp_path):
    file = GrowingFile(tmp_path / "upload", tmp_path / "upload.json")
    file.begin()
    return file


def add(growing, data):
    with growing.path.open("ab") as file:
        file.write(data)


def drip(growing, data, *, n_pieces=40, seconds=0.4, end="complete", waits=None):
    """Let the bytes arrive from a separate thread; the second half after `waits` is not empty."""

    def run():
        step = len(data) // n_pieces + 1
        for start in range(0, len(data), step):
            while waits == [] and start >= len(data) // 2:
                time.sleep(0.005)
            add(growing, data[start : start + step])
            time.sleep(seconds / n_pieces)
        growing.complete(len(data)) if end == "complete" else growing.abandon()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def samples_of(decoding):
    return np.concatenate(list(decoding.blocks))


# --- the same audio -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [*STREAMED, m4a_index_last])
def test_the_same_samples_as_of_the_whole_file(made, growing, make):
    path = made(make)
    waits = []
    thread = drip(growing, path.read_bytes(), waits=waits)
    arrived = samples_of(decode_growing(growing, LIMITS, lambda: waits.append(1)))
    thread.join()
    whole = samples_of(decode(path, LIMITS))
    # mp3 and aac differ in the padding at their very end, which only the whole file shows.
    assert abs(len(arrived) - len(whole)) <= 0.07 * SAMPLE_RATE
    common = min(len(arrived), len(whole))
    error = arrived[:common] - whole[:common]
    assert np.sqrt(np.mean(error**2)) < 0.002, "the samples are others, or lie elsewhere"


@pytest.mark.parametrize("make", STREAMED)
def test_half_of_the_bytes_give_nearly_half_of_the_audio(made, growing, make):
    data = made(make).read_bytes()
    add(growing, data[: len(data) // 2])
    n_samples = 0

    def end():
        """No more bytes will arrive; all earlier ones must have been decoded by now."""
        assert n_samples > 0.35 * SECONDS * SAMPLE_RATE
        growing.abandon()

    blocks = decode_growing(growing, LIMITS, end).blocks
    with pytest.raises(AudioIncomplete):  # noqa: PT012
        for block in blocks:
            n_samples += len(block)


def test_an_index_at_the_end_is_waited_for(made, growing):
    data = made(m4a_index_last).read_bytes()
    add(growing, data[:-1])
    thread = threading.Timer(0.3, lambda: (add(growing, data[-1:]), growing.complete(len(data))))
    thread.start()
    started = time.monotonic()
    decoding = decode_growing(growing, LIMITS, lambda: None)
    assert time.monotonic() - started >= 0.3
    assert len(samples_of(decoding)) > (SECONDS - 1) * SAMPLE_RATE
    thread.join()


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bytes", [0, 1, 3, 50, 20_000])
def test_what_ends_early_is_incomplete(made, growing, n_bytes):
    thread = drip(growing, made(wav).read_bytes()[:n_bytes], n_pieces=2, seconds=0.1, end="no")
    with pytest.raises(AudioIncomplete):
        samples_of(decode_growing(growing, LIMITS, lambda: None))
    thread.join()


def test_bytes_that_vanish_are_incomplete(made, growing):
    """An upload that expires loses its bytes and keeps its JSON."""
    add(growing, made(wav).read_bytes()[:-1])
    with pytest.raises(AudioIncomplete):
        samples_of(decode_growing(growing, LIMITS, lambda: growing.path.unlink(missing_ok=True)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyAudio),
        (b"hello", UnsupportedAudio),
        (bytes(100_000), UnsupportedAudio),
        (b"RIFF" + bytes(100_000), UnsupportedAudio),
        (b"ID3" + bytes(100_000), UnsupportedAudio),
        (b"OggS" + b"x" * 100_000, UnsupportedAudio),
        (b"\0\0\0\x18ftypisom" + b"\0\0\0\x08free" * 1000, UnsupportedAudio),
        (b"#EXTM3U\nhttp://localhost/x\n", UnsupportedAudio),
    ],
)
def test_what_is_no_audio(growing, data, error):
    thread = drip(growing, data, n_pieces=3, seconds=0.05)
    with pytest.raises(error):
        samples_of(decode_growing(growing, LIMITS, lambda: None))
    thread.join()


def test_the_limit_of_bytes_holds_while_they_arrive(made, growing):
    add(growing, made(wav).read_bytes()[:200_000])
    with pytest.raises(AudioTooLong):
        samples_of(decode_growing(growing, AudioLimits(max_bytes=100_000), growing.abandon))


def test_waiting_costs_no_cpu_time(made, growing):
    data = made(wav).read_bytes()
    add(growing, data[:100])
    threading.Timer(1.0, growing.abandon).start()
    before = time.process_time()
    with pytest.raises(AudioIncomplete):
        samples_of(decode_growing(growing, LIMITS, lambda: None))
    assert time.process_time() - before < 0.2


# --- through the pipeline -----------------------------------------------------------------------


def test_segments_come_while_the_recording_arrives(tmp_path, made, growing):
    data = made(wav).read_bytes()
    options = Options(vad=VadOptions(kind="off"))

    async def run():
        seen = []
        async with Transcriber(FakeEngine()) as transcriber:
            add(growing, data)
            add(growing, data[44:])  # a minute, with a header that says half; not yet its end
            async for event in transcriber.transcribe_file(growing, options, tmp_path):
                seen.append(event)
                if isinstance(event, Segment) and growing.length() is None:
                    growing.complete(2 * len(data) - 44)
        return seen

    # The header's length is what counts in a wav, so it must name all of it.
    n_bytes = 2 * (len(data) - 44)
    data = data[:40] + n_bytes.to_bytes(4, "little") + data[44:]
    seen = asyncio.run(asyncio.wait_for(run(), 60))
    assert isinstance(seen[-1], Transcript)
    assert seen[-1].duration == pytest.approx(2 * SECONDS, abs=0.1)


def test_every_pause_is_reported(tmp_path, made, growing):
    data = made(wav).read_bytes()

    async def run():
        async with Transcriber(FakeEngine()) as transcriber:
            add(growing, data[: len(data) * 5 // SECONDS])
            async for event in transcriber.transcribe_file(growing, Options(), tmp_path):
                if isinstance(event, Progress) and event.decoded > 4:  # less than a report's 10 s
                    return event.decoded
        return None

    assert asyncio.run(asyncio.wait_for(run(), 30)) == pytest.approx(5, abs=0.6)


def test_recordings_that_stand_still_hinder_no_other(tmp_path, made):
    async def run():
        still = [GrowingFile(tmp_path / f"{i}", tmp_path / f"{i}.json") for i in range(3)]
        path = made(wav)
        async with Transcriber(FakeEngine(), max_decoders=1) as transcriber:
            for file in still:
                file.begin()
                file.path.write_bytes(path.read_bytes()[:200_000])
            waiting = [asyncio.create_task(last(transcriber, file)) for file in still]
            await asyncio.sleep(0.3)
            assert isinstance(await last(transcriber, path), Transcript)
            assert not any(task.done() for task in waiting)
            for file in still:
                file.abandon()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(end) for end in ends} == {AudioIncomplete}

    async def last(transcriber, source):
        events = transcriber.transcribe_file(source, Options(), tmp_path)
        return [event async for event in events][-1]

    asyncio.run(asyncio.wait_for(run(), 60))
