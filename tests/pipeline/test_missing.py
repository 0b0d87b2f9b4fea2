"""Gaps in transcripts: which chunks leave one, where it lies, and when too much is missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies as st

from asr.audio.recording import PRELOAD, Decoded, decode_recording
from asr.config import AudioLimits, ChunkOptions, Options, VadOptions
from asr.errors import (
    DamagedAudio,
    EngineFailed,
    EngineTimeout,
    EngineUnavailable,
    TooMuchMissing,
    WorkerDied,
)
from asr.pipeline import checkpoint, run as run_module
from asr.pipeline.missing import GapFinder, check_share
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import SAMPLE_RATE, Chunk, Gap, Hypothesis, Segment, SpeechRegion
from asr.workers.pool import ProcessPool
from tests.support import makers
from tests.support.fakes import FakeEngine

TEN = 10 * SAMPLE_RATE
OPTIONS = Options(
    vad=VadOptions(kind="off"), chunk=ChunkOptions(max_seconds=10, search=1.2), on_error="gap"
)
PATIENCE = 20


def chunk(index, start, end, overlap=0.0):
    samples = (round(seconds * SAMPLE_RATE) for seconds in (start, end, overlap))
    return Chunk(index, *samples)


def found(*items, max_pause=2.0):
    """The gaps of chunks that were recognised (None) or are missing for a reason."""
    finder = GapFinder(max_pause)
    for at, reason in items:
        if reason is None:
            finder.hear(at)
        else:
            finder.miss(at, reason)
    finder.finish()
    return finder.take()


FAILED, LATE = "engine_failed", "engine_timeout"


def test_a_gap_is_what_no_chunk_around_it_heard():
    left, middle, right = chunk(0, 0, 10), chunk(1, 9, 19, 1), chunk(2, 18, 28, 1)
    assert found((left, None), (middle, FAILED), (right, None)) == [Gap(10, 18, FAILED)]
    assert found((left, FAILED), (middle, None), (right, FAILED)) == [
        Gap(0, 9, FAILED),
        Gap(19, 28, FAILED),
    ]


def test_a_chunk_heard_after_a_very_short_one_ends_both_gaps_before_it():
    chunks = chunk(0, 0, 10), chunk(1, 9, 10.5, 1), chunk(2, 9.5, 20, 1)
    outcome = zip(chunks, (FAILED, LATE, None), strict=True)
    assert found(*outcome) == [Gap(0, 9.5, FAILED)]


def test_neighbours_that_are_missing_for_one_reason_are_one_gap():
    first, second, third = chunk(0, 0, 10), chunk(1, 11.5, 20), chunk(2, 19, 30, 1)
    assert found((first, LATE), (second, LATE), (third, LATE)) == [Gap(0, 30, LATE)]
    assert found((first, LATE), (second, FAILED), (third, FAILED)) == [
        Gap(0, 10, LATE),
        Gap(11.5, 30, FAILED),
    ]
    assert found((first, FAILED), (second, FAILED), (third, LATE)) == [
        Gap(0, 20, FAILED),
        Gap(20, 30, LATE),
    ]
    assert found((first, LATE), (second, LATE), max_pause=1.0) == [
        Gap(0, 10, LATE),
        Gap(11.5, 20, LATE),
    ]


@st.composite
def outcomes(draw):
    """Chunks as the chunker makes them, each with a reason or None."""
    items, end = [], 0
    for index in range(draw(st.integers(1, 8))):
        overlap = draw(st.sampled_from([0, 0, 100])) if items else 0
        start = end - overlap + (0 if overlap else draw(st.sampled_from([0, 90, 5000])))
        end = start + draw(st.integers(160, 10_000))
        reason = draw(st.sampled_from([None, FAILED, LATE]))
        items.append((Chunk(index, start, end, overlap), reason))
    return items


@given(outcomes())
def test_gaps_and_recognised_chunks_cover_all_chunks(items):
    gaps = found(*items, max_pause=0.1)
    assert all(before.end <= after.start for before, after in pairwise(gaps))
    spans = [(round(gap.start * SAMPLE_RATE), round(gap.end * SAMPLE_RATE)) for gap in gaps]
    heard = np.zeros(items[-1][0].end_sample, bool)
    missing, wanted = heard.copy(), heard.copy()
    for at, reason in items:
        wanted[at.start_sample : at.end_sample] = True
        heard[at.start_sample : at.end_sample] |= reason is None
    for start, end in spans:
        assert 0 <= start < end <= len(missing)
        missing[start:end] = True
    assert not (heard & missing).any()
    assert (heard | missing)[wanted].all()
    assert (missing & ~wanted).sum() <= 90 * len(items)  # only short pauses between neighbours


@pytest.mark.parametrize(
    ("n_missing", "n_speech", "decoded", "total", "fails"),
    [
        (0, 0, 0, 0, False),
        (0, TEN, 20, 20, False),
        (TEN // 2, TEN, 20, 20, False),
        (TEN // 2 + 1, TEN, 20, 20, True),  # of the speech, although most is silence
        (TEN // 2 + 1, TEN, 2000, 2000, True),
        (0, TEN, 10, 20, False),
        (0, TEN, 9.9, 20, True),
        (0, 0, 9.9, 20, True),
        (TEN // 4, TEN, 15, 20, False),  # 1/4 of the end, 1/4 of the rest
        (TEN // 2, TEN, 15, 20, True),
    ],
)
def test_more_than_half_missing_is_an_error(n_missing, n_speech, decoded, total, fails):
    if not fails:
        assert check_share(n_missing, n_speech, decoded, total) is None
        return
    with pytest.raises(TooMuchMissing, match=r"5[0-9]%|6[0-9]%|100%") as caught:
        check_share(n_missing, n_speech, decoded, total)
    assert caught.value.is_damaged == (decoded < total / 2)


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def decoders(runner):
    pool = ProcessPool(PRELOAD, 2)
    runner.run(pool.open())
    yield pool
    runner.run(pool.close())


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A minute without a pause: seven chunks of at most ten seconds that overlap by one."""
    return makers.write(tmp_path_factory.mktemp("missing") / "noise.wav", makers.noise(60))


@pytest.fixture
def transcribe(runner, decoders):
    """Transcribe a file; returns the transcript and the events."""

    def run(source, engine, options=OPTIONS, kept=None, events=None):
        transcriber = Transcriber(engine)
        transcriber._decoders = decoders
        events = [] if events is None else events

        async def work():
            made = transcriber.transcribe_file(source, options, checkpoint=kept)
            async with asyncio.timeout(PATIENCE):
                return await collect(made, events.append), events

        return runner.run(work())

    return run


class Failing(FakeEngine):
    """Raises the errors of some chunks, by their index."""

    def __init__(self, errors, **rest):
        super().__init__(**rest)
        self.errors = errors

    async def transcribe(self, chunk, audio, options):
        heard = await super().transcribe(chunk, audio, options)
        if error := self.errors.get(chunk.index):
            raise error
        return heard


def test_a_chunk_that_fails_is_a_gap_and_the_rest_is_transcribed(transcribe, noise):
    engine = Failing({2: EngineFailed("broke"), 3: EngineFailed("broke"), 5: EngineTimeout("late")})
    transcript, events = transcribe(noise, engine)
    chunks = sorted(engine.chunks, key=lambda it: it.index)
    assert transcript.gaps == (
        Gap(chunks[1].end, chunks[4].start, "engine_failed"),
        Gap(chunks[4].end, chunks[6].start, "engine_timeout"),
    )
    assert [event for event in events if isinstance(event, Gap)] == list(transcript.gaps)
    assert {word.text[:2] for word in transcript.words} == {"c0", "c1", "c4", "c6"}
    for gap in transcript.gaps:
        assert not any(gap.start < word.midpoint < gap.end for word in transcript.words)
    missing = sum(gap.end - gap.start for gap in transcript.gaps)
    assert transcript.warnings == (f"{missing:.1f} s could not be transcribed: see gaps",)


def test_words_around_a_gap_are_those_without_it(transcribe, noise):
    """The overlap belongs to the chunk that was recognised."""
    whole, _ = transcribe(noise, FakeEngine())
    gappy, _ = transcribe(noise, Failing({6: EngineFailed("broke")}))
    (gap,) = gappy.gaps
    assert gap.end == gappy.duration == 60
    known = [word for word in whole.words if word.end <= gap.start - 1]
    assert list(gappy.words[: len(known)]) == known


@pytest.mark.parametrize(
    "error", [EngineFailed("broke"), WorkerDied("killed", signal=9), RuntimeError("a bug")]
)
def test_without_gaps_the_first_error_ends_the_transcription(transcribe, noise, error):
    with pytest.raises(type(error), match=str(error)):
        transcribe(noise, Failing({2: error}), replace(OPTIONS, on_error="fail"))
    assert len(transcribe(noise, Failing({2: error}))[0].gaps) == 1


@pytest.mark.parametrize(
    "error",
    [EngineUnavailable("it loads"), OSError(24, "too many files"), MemoryError("x"),
     WorkerDied("full", errno=28), RuntimeError("can't start new thread")],
    ids=repr,
)  # fmt: skip
def test_trouble_of_the_server_is_never_a_gap(transcribe, noise, error):
    with pytest.raises(type(error)) as caught:
        transcribe(noise, Failing({2: error}))
    assert caught.value is error


def test_more_than_half_missing_ends_the_transcription(transcribe, noise):
    errors = dict.fromkeys((0, 2, 4), EngineFailed("broke"))
    assert len(transcribe(noise, Failing(errors))[0].gaps) == 3
    with pytest.raises(TooMuchMissing, match="of the recording could not be transcribed"):
        transcribe(noise, Failing(errors | {6: EngineTimeout("late")}))


def test_chunks_of_two_channels_fail_separately(transcribe, tmp_path):
    path = tmp_path / "two.wav"
    both = np.stack([makers.noise(40, seed=1), makers.noise(40, seed=2)], axis=1)
    soundfile.write(path, both, SAMPLE_RATE)
    other = {}

    class OneSide(FakeEngine):
        async def transcribe(self, chunk, audio, options):
            first = other.setdefault(chunk.index, audio.samples[0])
            is_second = audio.samples[0] != first
            other[chunk.index, is_second] = chunk
            if chunk.index == 1 and is_second:
                raise EngineFailed("broke")
            return await super().transcribe(chunk, audio, options)

    transcript, _ = transcribe(path, OneSide(slots=1), replace(OPTIONS, channels="split"))
    (gap,) = transcript.gaps
    assert gap.speaker == f"channel {gap.channel}"
    texts = {side: {w.text[:2] for s in transcript.segments if s.channel == side for w in s.words}
             for side in (0, 1)}  # fmt: skip
    assert "c1" not in texts[gap.channel]
    assert "c1" in texts[1 - gap.channel]


# --- checkpoints --------------------------------------------------------------------------------


def kept(lines, new, failed):
    return checkpoint.Records(
        lines, "fake engine", lambda *it: new.append(it[-1]), lambda *it: failed.append(it)
    )


def test_with_a_checkpoint_the_other_chunks_are_kept_and_the_failure_is_told(transcribe, noise):
    new, failed = [], []
    error = EngineFailed("broke")
    with pytest.raises(EngineFailed) as caught:
        transcribe(noise, Failing({2: error, 4: error}), kept=kept([], new, failed))
    assert caught.value is error
    assert (error.channel, error.chunk_index) in [(0, 2), (0, 4)]
    assert sorted(chunk.index for _, chunk, _ in failed) == [2, 4]
    assert len(new) == 5


def test_segments_wait_for_a_chunk_that_may_still_succeed(transcribe, tmp_path):
    spans = [(1 + 4.5 * i, 2.6 + 4.5 * i) for i in range(7)]
    path = makers.write(tmp_path / "bursts.wav", makers.bursts(34, spans))
    new, told, options = [], [], Options(on_error="gap")
    with pytest.raises(EngineFailed):
        transcribe(
            path, Failing({2: EngineFailed("broke")}), options, kept([], new, []), events=told
        )
    words = [word for event in told if isinstance(event, Segment) for word in event.words]
    assert {"c0"} <= {word.text[:2] for word in words} <= {"c0", "c1"}
    assert 6 in {checkpoint.unpack_chunk(record)[0][1].index for record in new}


def test_a_resumed_job_has_the_same_gaps(transcribe, noise):
    new, failed = [], []
    errors = {2: EngineFailed("broke"), 3: EngineTimeout("late")}
    with pytest.raises((EngineFailed, EngineTimeout)):
        transcribe(noise, Failing(errors), kept=kept([], new, failed))
    expected, _ = transcribe(noise, Failing(errors))
    lines = [*new, *(record for *_, record in failed)]
    engine = Failing({})
    transcript, _ = transcribe(noise, engine, kept=kept(lines, [], []))
    assert transcript == expected
    assert [gap.reason for gap in transcript.gaps] == ["engine_failed", "engine_timeout"]
    assert engine.chunks == []
    assert checkpoint.find_gaps(lines, 2.0, split=False) == transcript.gaps
    summary = checkpoint.pack_summary(transcript)
    assert checkpoint.unpack_summary(summary, transcript.segments) == transcript


def test_another_engine_tries_a_missing_chunk_again(transcribe, noise):
    new, failed = [], []
    with pytest.raises(EngineFailed):
        transcribe(noise, Failing({2: EngineFailed("broke")}), kept=kept([], new, failed))
    lines = [record for *_, record in failed]
    other = checkpoint.Records(lines, "another engine", lambda *_: None)
    assert transcribe(noise, FakeEngine(), kept=other)[0].gaps == ()


def test_the_record_of_a_missing_chunk_reads_as_a_warning_in_earlier_versions():
    record = checkpoint.pack_missing((1, chunk(3, 20, 30)), LATE, "fake engine")
    assert record.startswith(checkpoint.MISSING_START)
    body = json.loads(record)
    heard = Hypothesis(**body["heard"])
    assert (heard.text, heard.warnings) == ("", ["10.0 s could not be transcribed"])


def test_an_attempt_ends_soon_after_a_failure(transcribe, noise, monkeypatch):
    monkeypatch.setattr(run_module, "LOOK_AHEAD", 2)
    engine = Failing({0: EngineFailed("broke")}, slots=1)
    with pytest.raises(EngineFailed):
        transcribe(noise, engine, kept=kept([], [], []))
    assert 3 <= len(engine.chunks) < 7


# --- decoders that stop -------------------------------------------------------------------------


def damaged_flac(path, seconds, share):
    """A FLAC whose bytes are zeros from a share of the file on."""
    makers.write(path, makers.speech(seconds))
    data = bytearray(path.read_bytes())
    begin = int(len(data) * share)
    data[begin:] = bytes(len(data) - begin)
    path.write_bytes(data)
    return path


def test_a_decoder_that_stops_leaves_a_gap_to_the_end(transcribe, tmp_path):
    path = damaged_flac(tmp_path / "a.flac", 30, 0.7)
    with pytest.raises(DamagedAudio):
        transcribe(path, FakeEngine(), replace(OPTIONS, on_error="fail"))
    transcript, events = transcribe(path, FakeEngine())
    (gap,) = transcript.gaps
    assert gap == events[-1] == Gap(gap.start, 30, "decoder_stopped")
    assert 15 < gap.start < 22
    assert transcript.duration == 30
    assert transcript.words[-1].end <= gap.start
    assert transcript.words[-1].end > gap.start - 2


def test_a_recording_that_is_mostly_damaged_fails(transcribe, tmp_path):
    with pytest.raises(TooMuchMissing, match=r"the last \d+\.\d s could not be decoded") as caught:
        transcribe(damaged_flac(tmp_path / "a.flac", 30, 0.3), FakeEngine())
    assert caught.value.is_damaged


def reports(promised, *, finished=True):
    """A decoder that stops after 10 s."""

    async def decode(source, target, options):
        target.write_bytes(bytes(2 * TEN))
        region = SpeechRegion(0, TEN)
        yield Decoded(TEN, (region,), None, promised, finished=True, stopped="damaged")

    return decode


@pytest.mark.parametrize("promised", [None, 9.0, 10.0, 10**6])
def test_damage_in_a_recording_of_unknown_length_is_an_error(runner, tmp_path, promised):
    """Nobody knows how much is missing."""
    transcriber = Transcriber(FakeEngine())
    transcriber.decode = reports(promised)
    with pytest.raises(DamagedAudio, match="damaged"):
        runner.run(collect(transcriber.transcribe_file(tmp_path, OPTIONS)))


def test_gaps_of_engine_and_decoder_add_up(runner, tmp_path):
    transcriber = Transcriber(Failing({0: EngineFailed("broke")}))
    transcriber.decode = reports(15.0)
    with pytest.raises(TooMuchMissing, match="100%"):
        runner.run(collect(transcriber.transcribe_file(tmp_path, OPTIONS)))


def test_a_crash_of_the_decoder_leaves_what_it_wrote(runner, tmp_path):
    """The region that was open ends where the last report saw it."""
    regions = {"closed": [], "open": (100, TEN - 100), "settled": 100, "level": None}
    message = {
        "n_samples": TEN, "promised": 15.0, "finished": False, "warnings": [], "stopped": "",
        "labels": [],
        "channels": [regions, regions],
    }  # fmt: skip

    class Crashing(ProcessPool):
        @contextlib.asynccontextmanager
        async def job(self, *_, **__):
            async def messages():
                yield message
                raise WorkerDied("crashed", signal=signal.SIGSEGV)

            yield messages()

    async def decode(*, may_stop):
        made = decode_recording(
            Crashing(PRELOAD, 1), tmp_path, tmp_path, VadOptions(), AudioLimits(), may_stop=may_stop
        )
        return [report async for report in made]

    with pytest.raises(DamagedAudio):
        runner.run(decode(may_stop=False))
    *_, left, right = runner.run(decode(may_stop=True))
    assert (left.channel, right.channel, left.n_samples) == (0, 1, TEN)
    assert (left.closed, left.open_region) == ((SpeechRegion(100, TEN - 100),), None)
    assert (left.finished, left.settled_sample) == (True, TEN)
    assert "the decoder broke on it" in left.stopped
