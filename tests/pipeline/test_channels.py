"""Separate channels: decoded in one pass, transcribed one by one, merged by time; fake engines."""

from __future__ import annotations

import asyncio
import io
import itertools
import math
import random
from dataclasses import replace

import numpy as np
import openai
import pytest
import soundfile
from hypothesis import given, settings, strategies as st
from openai.types.audio import TranscriptionDiarized

from asr.audio.recording import Decoded, Recording, channel_path
from asr.audio.resample import MAX_SPLIT_CHANNELS, decode
from asr.audio.vad import SpeechDetector
from asr.config import AudioLimits, ChunkOptions, Options, VadOptions
from asr.errors import UnsupportedAudio
from asr.output.openai import to_diarized_json
from asr.pipeline.channels import ChannelPipeline, Merger
from asr.pipeline.run import Progress
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import SAMPLE_RATE, Audio, Hypothesis, Segment, Word
from tests.support import makers
from tests.support.fakes import FakeEngine
from tests.support.golden_transcript import TRANSCRIPT

SPLIT = Options(channels="split")
LIMITS = AudioLimits()
LEFT = [(1, 3), (6, 8.5), (12, 13), (20, 21), (30, 36)]
RIGHT = [(3.5, 5), (7, 7.8), (12.2, 18), (26, 29)]


def two_channels(seconds=40, rate=SAMPLE_RATE):
    """A call: each side speaks at its own times, which sometimes overlap."""
    kept = [[span for span in spans if span[1] <= seconds] for spans in (LEFT, RIGHT)]
    sides = [makers.bursts(seconds, spans, rate) for spans in kept]
    return np.stack(sides, axis=1)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def transcribe(runner):
    """Transcribe with a given engine; returns the transcript and the earlier events."""
    keeper = Transcriber(FakeEngine())
    runner.run(keeper.open())

    def transcribe(path, options=SPLIT, engine=None, on_event=None):
        made = Transcriber(engine or FakeEngine())
        made._decoders = keeper._decoders
        events = []

        def note(event):
            events.append(event)
            if on_event is not None:
                on_event(event)

        work = collect(made.transcribe_file(path, options), note)
        transcript = runner.run(asyncio.wait_for(work, 60))
        return transcript, events

    yield transcribe
    runner.run(keeper.close())


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    return makers.write(tmp_path_factory.mktemp("call") / "call.wav", two_channels())


# --- decoding -----------------------------------------------------------------------------------


def samples_of(path, *, split):
    return np.concatenate(list(decode(path, LIMITS, split=split).blocks))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_each_channel_is_what_it_would_be_alone(tmp_path, suffix, rate):
    both = two_channels(9, rate)
    apart = samples_of(makers.write(tmp_path / f"both{suffix}", both, rate), split=True)
    assert apart.shape == (9 * SAMPLE_RATE, 2)
    for channel in (0, 1):
        path = makers.write(tmp_path / f"one{suffix}", both[:, channel], rate)
        assert np.array_equal(apart[:, channel], samples_of(path, split=False))


@pytest.mark.parametrize(("suffix", "codec"), [(".mka", "flac"), (".m4a", "aac")])
def test_containers_keep_channels_apart_too(tmp_path, suffix, codec):
    tones = np.stack([makers.tone(3, 440), makers.tone(3, 880)], axis=1)
    path = makers.write_container(tmp_path / f"a{suffix}", tones, codec)
    apart = samples_of(path, split=True)
    for channel, hertz in enumerate((440, 880)):
        spectrum = np.abs(np.fft.rfft(apart[8000:40_000, channel]))
        assert np.argmax(spectrum) * SAMPLE_RATE / 32_000 == pytest.approx(hertz, abs=1)


def test_mono_is_one_channel_and_absurd_samples_are_clipped(tmp_path):
    assert samples_of(makers.write(tmp_path / "a.wav", makers.tone(1)), split=True).shape[1] == 1
    wild = two_channels(2)
    wild[100] = [np.nan, 1e30]
    apart = samples_of(makers.write(tmp_path / "b.wav", wild, subtype="FLOAT"), split=True)
    assert np.abs(apart).max() <= 1


def test_too_many_channels_are_mixed_only(tmp_path):
    many = makers.channels(makers.tone(1), MAX_SPLIT_CHANNELS + 1)
    path = makers.write(tmp_path / "a.wav", many)
    with pytest.raises(UnsupportedAudio, match=r"9 channels; at most 8 .* Send channels=mix"):
        samples_of(path, split=True)
    assert samples_of(path, split=False).shape == (SAMPLE_RATE,)


# --- channels and their merger ------------------------------------------------------------------


@st.composite
def segments_by_channel(draw):
    channels = []
    for _ in range(draw(st.integers(1, 4))):
        starts = sorted(draw(st.lists(st.integers(0, 20), max_size=8)))
        channels.append([Segment(i, start, start + 1.0, "x", ()) for i, start in enumerate(starts)])
    return channels


@given(segments_by_channel(), st.randoms(use_true_random=False), st.booleans())
def test_segments_are_merged_by_start_and_never_too_early(channels, random_, named):
    merger = Merger(len(channels), named=named)
    left = [list(channel) for channel in channels]
    released = []
    unfinished = list(range(len(channels)))
    while unfinished:
        channel = random_.choice(unfinished)
        n_new = random_.randint(0, len(left[channel]))
        new, left[channel] = left[channel][:n_new], left[channel][n_new:]
        if not left[channel]:
            unfinished.remove(channel)
        settled = left[channel][0].start if left[channel] else math.inf
        released += merger.push(channel, new, settled)
        to_come = min((s.start for rest in left for s in rest), default=math.inf)
        assert not released or released[-1].start <= to_come
    expected = sorted(
        (segment.start, channel)
        for channel, segments in enumerate(channels)
        for segment in segments
    )
    assert [segment.start for segment in released] == [start for start, _ in expected]
    assert [segment.id for segment in released] == list(range(len(expected)))
    if named:
        assert [(s.start, s.channel) for s in released] == expected
        assert all(s.speaker == f"channel {s.channel}" for s in released)


class Script:
    """A classifier that returns prepared flags."""

    frame_samples = 480

    def __init__(self, flags):
        self._flags = iter(flags)

    def is_speech(self, frame):
        return next(self._flags)


voiced = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=8).map(
    lambda runs: [flag for on, off in runs for flag in [True] * on + [False] * off]
)


@given(voiced, st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=60)
def test_no_segment_starts_before_settled_in_any_order_of_events(flags, n_seconds, seed):
    """No segment starts before `settled`; the order of events does not change the segments."""
    options = ChunkOptions(max_seconds=5, max_gap=1, overlap=0.5, search=2)
    random_ = random.Random(seed)

    class Silence(Recording):
        def read(self, start_sample, end_sample):
            return Audio(np.zeros(end_sample - start_sample, np.float32))

    def run(step, eager):
        detector = SpeechDetector(VadOptions(), Script(flags))
        pipeline, due, segments, promised = ChannelPipeline(options, Silence("")), [], [], 0.0

        def note(new):
            nonlocal promised
            segments.extend(new)
            assert all(segment.start >= promised for segment in new)
            assert pipeline.settled >= promised
            promised = pipeline.settled

        pcm = np.zeros(len(flags) * 480, np.int16)
        for start in range(0, max(len(pcm), 1), step):
            closed = detector.push(pcm[start : start + step])
            last = start + step >= len(pcm)
            closed += detector.finish() if last else []
            open_region = None if last else detector.open_region
            due += pipeline.take(
                Decoded(
                    detector.n_samples,
                    tuple(closed),
                    open_region,
                    finished=last,
                    settled_sample=detector.settled_sample,
                )
            )
            note(pipeline.rest())
            while due and (eager or last or random_.random() < 0.4):
                chunk = due.pop(0)
                note(pipeline.stitch(chunk, hear(chunk)))
                note(pipeline.rest())
        assert pipeline.settled == math.inf
        return segments

    assert run(n_seconds * SAMPLE_RATE, eager=False) == run(SAMPLE_RATE // 3, eager=True)


def hear(chunk):
    """Hears words on a fixed time grid of the recording, whatever is said."""
    first = -(-chunk.start_sample // 8000)
    words = tuple(
        Word(f"w{n}.", n / 2 - chunk.start, min(n / 2 + 0.4, chunk.end) - chunk.start)
        for n in range(first, chunk.end_sample // 8000)
    )
    warnings = ("odd",) if chunk.index % 3 == 0 else ()
    return Hypothesis(chunk.index, " ".join(word.text for word in words), words, None, warnings)


# --- the whole line -----------------------------------------------------------------------------


def test_a_call_is_both_of_its_sides_in_order_of_time(transcribe, call, tmp_path):
    transcript, events = transcribe(call, engine=FakeEngine(answer=hear))
    sides = []
    for channel in (0, 1):
        path = makers.write(tmp_path / "side.wav", two_channels()[:, channel])
        side, _ = transcribe(path, Options(), FakeEngine(answer=hear))
        sides.append(side)
        ours = [s for s in transcript.segments if s.channel == channel]
        assert [replace(s, id=0, channel=None, speaker=None) for s in ours] == [
            replace(s, id=0) for s in side.segments
        ]
        assert {s.speaker for s in ours} == {f"channel {channel}"}
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    assert [s.id for s in transcript.segments] == list(range(len(starts)))
    assert tuple(e for e in events if isinstance(e, Segment)) == transcript.segments
    assert transcript.speech_seconds == sum(side.speech_seconds for side in sides)
    assert transcript.speech_seconds + transcript.dropped_seconds == pytest.approx(80)
    assert transcript.warnings == ()


def test_the_order_does_not_depend_on_the_engine(transcribe, call):
    rng = random.Random(1)
    slow = FakeEngine(slots=5, answer=hear, delay=lambda _: rng.uniform(0, 0.05))
    assert (
        transcribe(call, engine=slow)[0] == transcribe(call, engine=FakeEngine(1, answer=hear))[0]
    )


def test_the_engine_hears_the_samples_of_its_channel(transcribe, call):
    heard = []

    class Listener(FakeEngine):
        async def transcribe(self, chunk, audio, options):
            heard.append((chunk, audio.samples))
            return await super().transcribe(chunk, audio, options)

    transcribe(call, engine=Listener())
    whole = samples_of(call, split=True)
    matches = [
        channel
        for chunk, samples in heard
        for channel in (0, 1)
        if np.allclose(samples, whole[chunk.start_sample : chunk.end_sample, channel], atol=1e-4)
    ]
    assert set(matches) == {0, 1}
    assert len(matches) == len(heard)


def test_a_channel_that_falls_silent_does_not_hold_the_other_back(transcribe, tmp_path):
    """Channel 1 says one word in two minutes; segments of channel 0 arrive long before the end.

    The engine answers for the second minute only after a segment of the first was seen.
    """
    spans = [(start, start + 3) for start in range(1, 118, 9)]
    sides = [makers.bursts(120, spans), makers.bursts(120, [(2, 3)])]
    path = makers.write(tmp_path / "a.flac", np.stack(sides, axis=1))
    seen = asyncio.Event()

    class Waiting(FakeEngine):
        async def transcribe(self, chunk, audio, options):
            if chunk.start > 60:
                await seen.wait()
            return await super().transcribe(chunk, audio, options)

    def on_event(event):
        if isinstance(event, Segment) and event.start > 5:
            seen.set()

    transcript, events = transcribe(path, engine=Waiting(8, answer=hear), on_event=on_event)
    assert {segment.channel for segment in transcript.segments} == {0, 1}
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].decoded == 120
    for earlier, later in itertools.pairwise(progress):
        assert earlier.transcribed <= later.transcribed <= later.decoded


def test_equal_channels_are_told(transcribe, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.channels(makers.bursts(4, [(1, 2)]), 2))
    transcript, _ = transcribe(path)
    assert "all 2 channels are identical" in transcript.warnings[0]
    assert [s.channel for s in transcript.segments] == [0, 1]


def test_mono_may_be_split_and_mixing_names_nobody(transcribe, call, tmp_path):
    mono = makers.write(tmp_path / "a.wav", makers.bursts(4, [(1, 2)]))
    assert [s.speaker for s in transcribe(mono)[0].segments] == ["channel 0"]
    mixed, _ = transcribe(call, Options())
    assert {(s.channel, s.speaker) for s in mixed.segments} == {(None, None)}


def test_files_of_channels_lie_side_by_side(tmp_path):
    assert channel_path(tmp_path / "audio.pcm", 0) == tmp_path / "audio.pcm"
    assert channel_path(tmp_path / "audio.pcm", 2) == tmp_path / "audio-2.pcm"


# --- the service --------------------------------------------------------------------------------


def wav_of(samples):
    target = io.BytesIO()
    soundfile.write(target, samples, SAMPLE_RATE, format="WAV")
    return target.getvalue()


def test_openais_client_reads_who_said_what(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        create = client.audio.transcriptions.create
        call = {"model": "m", "file": ("call.wav", wav_of(two_channels(9)))}
        answer = create(
            **call,
            response_format="diarized_json",
            extra_body={"channels": "split", "vad": "webrtc"},
        )
        assert isinstance(answer, TranscriptionDiarized)
        assert [s.speaker for s in answer.segments] == ["A", "B", "A"]
        alone = create(**call, response_format="diarized_json")
        assert {s.speaker for s in alone.segments} == {"A"}
        captions = create(
            **call, response_format="vtt", extra_body={"channels": "split", "vad": "webrtc"}
        )
        assert captions.count("<v channel 0>") >= 2


def test_full_json_and_events_name_the_channel(server):
    http = server.client()
    query = {"channels": "split", "vad": "webrtc", "response_format": "full_json"}
    headers = {"content-type": "audio/wav"}
    path, body = "/v1/audio/transcriptions", wav_of(two_channels(9))
    segments = http.post(path, params=query, content=body, headers=headers).json()["segments"]
    who = [(s["channel"], s["speaker"]) for s in segments]
    assert who == [(0, "channel 0"), (1, "channel 1"), (0, "channel 0")]
    events = http.post(path, params={**query, "stream": "true"}, content=body, headers=headers).text
    assert events.count('"speaker": "channel 1"') == 1
    wrong = http.post(path, params={"channels": "both"}, content=body, headers=headers)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "channels")


def test_diarized_json_is_what_openais_client_reads():
    read = TranscriptionDiarized.model_validate(to_diarized_json(TRANSCRIPT), strict=True)
    assert [segment.speaker for segment in read.segments] == ["A"] * 5 + ["B"]
    assert read.text == TRANSCRIPT.text
