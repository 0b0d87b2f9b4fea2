"""The audio of a live session without its socket: formats, turns, and the files of turns.

Unit and property tests, mostly with a predictable VAD.
"""

import io
import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings, strategies as st

from asr.config import VadOptions
from asr.service.live.formats import AudioFormat, Converter
from asr.service.live.turns import (
    MARGIN_SAMPLES,
    MAX_SAMPLES,
    CommittedTurns,
    SpeechStarted,
    SpeechStopped,
    SpokenTurns,
    Turn,
)
from asr.types import SAMPLE_RATE
from tests.support.makers import noise, speech, tone

VAD = VadOptions(min_silence=0.5, padding=0.3)


def pcm16(samples):
    return np.clip(samples * 32767, -32768, 32767).astype("<i2")


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "subtype"), [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")])
def test_g711_is_decoded_as_by_libsndfile(encoding, subtype):
    codes = bytes(range(256))
    raw = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": subtype}
    expected, _ = soundfile.read(io.BytesIO(codes), dtype="int16", **raw)
    converter = Converter(AudioFormat(encoding, SAMPLE_RATE))  # not resampled
    assert converter.push(codes).tolist() == expected.tolist()


def test_16_khz_passes_unchanged():
    samples = pcm16(noise(1.0))
    converter = Converter(AudioFormat("audio/pcm", SAMPLE_RATE))
    assert np.array_equal(converter.push(samples.tobytes()), samples)
    assert len(converter.finish()) == 0


@given(st.lists(st.integers(0, 4000), max_size=12), st.sampled_from([8000, 24_000, 48_000]))
@settings(deadline=None, max_examples=40)
def test_conversion_does_not_depend_on_the_split(cuts, rate):
    data = pcm16(noise(0.1, rate)).tobytes()
    form = AudioFormat("audio/pcm", rate)
    whole = Converter(form)
    expected = np.concatenate((whole.push(data), whole.finish()))
    split = Converter(form)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    got = [split.push(data[start:end]) for start, end in itertools.pairwise(edges)]
    concatenated = np.concatenate((*got, split.finish()))
    assert len(concatenated) == len(expected) == pytest.approx(SAMPLE_RATE / 10, abs=2)
    assert np.abs(concatenated.astype(int) - expected).max() <= 1


def test_a_tone_keeps_its_pitch_and_its_time():
    converter = Converter(AudioFormat("audio/pcm", 24_000))
    converted = converter.push(pcm16(tone(1.0, 1000.0, 24_000)).tobytes())
    converted = np.concatenate((converted, converter.finish()))
    expected = pcm16(tone(1.0, 1000.0))
    middle = slice(1000, 15_000)
    assert np.abs(converted[middle].astype(int) - expected[middle]).max() < 40  # of 16384


# --- turns that the VAD finds -------------------------------------------------------------------


class Loud:
    """A predictable VAD: a frame is speech if any sample is not zero."""

    frame_samples = 480

    def is_speech(self, frame):
        return bool(np.abs(frame).max() > 0)


def spoken(folder, pcm, sizes=(1 << 30,), origin=0):
    """All events for `pcm`, pushed in pieces whose sizes repeat `sizes`."""
    turns = SpokenTurns(VAD, folder, origin, Loud())
    events, start, n = [], 0, 0
    while start < len(pcm):
        size = sizes[n % len(sizes)]
        events += turns.push(pcm[start : start + size])
        start, n = start + size, n + 1
    return events + turns.commit()


def simple(events):
    """Events without their random ids."""
    return [
        (type(event).__name__, event.sample)
        if not isinstance(event, Turn)
        else ("Turn", event.start_sample, event.end_sample)
        for event in events
    ]


def talk(spans, seconds):
    """Noise in the spans (in seconds), digital silence elsewhere."""
    pcm = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
    for start, end in spans:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        pcm[first:last] = pcm16(noise((last - first) / SAMPLE_RATE))[: last - first]
    return pcm


def test_two_sentences_are_two_turns(tmp_path):
    events = spoken(tmp_path, talk([(1, 2), (4, 5)], 7))
    kinds = [SpeechStarted, SpeechStopped, Turn]
    assert [type(event) for event in events] == kinds * 2
    for begin, (started, stopped, turn) in zip((1, 4), (events[:3], events[3:]), strict=True):
        assert started.item_id == stopped.item_id == turn.item_id
        assert (started.sample, stopped.sample) == (turn.start_sample, turn.end_sample)
        assert turn.start == pytest.approx(begin - VAD.padding, abs=0.04)
        assert turn.end == pytest.approx(begin + 1 + VAD.padding, abs=0.04)


SPANS = st.lists(st.integers(0, 400).map(lambda n: n / 10), max_size=8).map(
    lambda edges: list(zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False))
)


@given(SPANS, st.lists(st.integers(1, 60_000), min_size=1, max_size=4), st.integers(0, 99_999))
@settings(deadline=None, max_examples=40)
def test_turns_do_not_depend_on_the_split_and_hold_the_samples_of_the_session(
    tmp_path_factory, spans, sizes, origin
):
    pcm = talk([span for span in spans if span[0] < span[1]], 41)
    folder = tmp_path_factory.mktemp("turns")
    events = spoken(folder, pcm, [max(size, 500) for size in sizes], origin)
    assert simple(events) == simple(spoken(folder, pcm, origin=origin))
    turns = [event for event in events if isinstance(event, Turn)]
    assert events[::3] == [SpeechStarted(turn.item_id, turn.start_sample) for turn in turns]
    last = origin
    for turn in turns:
        assert last <= turn.start_sample < turn.end_sample <= origin + len(pcm)
        begin, end = turn.start_sample - turn.lead - origin, turn.end_sample + turn.tail - origin
        assert end - begin <= MAX_SAMPLES
        assert turn.path.read_bytes() == pcm[begin:end].tobytes()
        last = turn.end_sample
    assert [turn.lead for turn in turns[1:]] == [turn.tail for turn in turns[:-1]]
    covered = np.zeros(len(pcm), bool)
    for turn in turns:
        covered[turn.start_sample - origin : turn.end_sample - origin] = True
    for start, end in spans:
        if end - start >= 0.3:
            first, stop = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
            assert covered[first:stop].all(), "speech was lost"


def test_speech_without_end_is_cut_where_it_is_quietest(tmp_path):
    pcm = pcm16(noise(70.0))
    quiet = [(round(at * SAMPLE_RATE), round((at + 0.2) * SAMPLE_RATE)) for at in (27.0, 51.5)]
    for start, end in quiet:
        pcm[start:end] //= 50
    turns = [event for event in spoken(tmp_path, pcm, [4800]) if isinstance(event, Turn)]
    assert [turn.start_sample for turn in turns[1:]] == [turn.end_sample for turn in turns[:-1]]
    margin = MARGIN_SAMPLES
    assert [(t.lead, t.tail) for t in turns] == [(0, margin), (margin, margin), (margin, 0)]
    assert turns[0].end == pytest.approx(27.1, abs=0.06)
    assert turns[1].end == pytest.approx(51.6, abs=0.06)
    assert turns[2].end == 70.0


def test_a_commit_ends_the_turn_and_a_clear_discards_it(tmp_path):
    turns = SpokenTurns(VAD, tmp_path, 0, Loud())
    turns.push(talk([(1, 3)], 3))
    assert [type(event) for event in turns.commit()] == [SpeechStopped, Turn]
    assert turns.commit() == []
    turns.push(talk([(0, 2)], 2))
    turns.clear()
    assert turns.commit() == []
    (started,) = turns.push(talk([(1, 2)], 2))
    assert started.sample == pytest.approx((3 + 2 + 1 - VAD.padding) * SAMPLE_RATE, abs=600)


def test_an_hour_of_silence_is_not_kept_in_memory(tmp_path):
    turns = SpokenTurns(VAD, tmp_path, 0, Loud())
    minute = np.zeros(60 * SAMPLE_RATE, np.int16)
    for _ in range(60):
        assert turns.push(minute) == []
    assert turns._held.nbytes < 4 * SAMPLE_RATE * 2
    assert not list(tmp_path.iterdir())


def test_webrtcvad_finds_the_turns_of_a_voice(tmp_path):
    pcm = np.concatenate([np.zeros(16_000, np.int16), pcm16(speech(2.0)), np.zeros(24_000, "<i2")])
    turns = SpokenTurns(VAD, tmp_path)
    started, stopped, turn = turns.push(pcm)
    assert (started.sample, stopped.sample) == (turn.start_sample, turn.end_sample)
    assert turn.start == pytest.approx(0.7, abs=0.1)
    assert turn.end == pytest.approx(3.3, abs=0.2)


# --- turns that the client commits ----------------------------------------------------------------


def test_committed_turns_follow_each_other(tmp_path):
    turns = CommittedTurns(tmp_path, origin=100)
    pcm = pcm16(noise(2.0))
    assert turns.push(pcm[:10_000]) == turns.push(pcm[10_000:20_000]) == []
    (first,) = turns.commit()
    assert turns.push(pcm[20_000:]) == []
    (second,) = turns.commit()
    spans = [(turn.start_sample, turn.end_sample) for turn in (first, second)]
    assert spans == [(100, 20_100), (20_100, 32_100)]
    assert first.path.read_bytes() + second.path.read_bytes() == pcm.tobytes()


def test_less_than_100_ms_is_not_committed_and_stays(tmp_path):
    turns = CommittedTurns(tmp_path)
    turns.push(np.ones(1599, np.int16))
    assert turns.commit() == []
    turns.push(np.ones(1, np.int16))
    (turn,) = turns.commit()
    assert turn.end_sample == 1600


def test_cleared_audio_is_not_committed(tmp_path):
    turns = CommittedTurns(tmp_path)
    turns.push(np.ones(5000, np.int16))
    turns.clear()
    assert turns.commit() == []
    assert not list(tmp_path.iterdir())
    turns.push(np.ones(2000, np.int16))
    (turn,) = turns.commit()
    assert (turn.start_sample, turn.end_sample) == (5000, 7000)
