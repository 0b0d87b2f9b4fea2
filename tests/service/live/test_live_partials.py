"""Partial results with OpenAI's own client, on an in-process service with a fake engine."""

import asyncio
import base64
import json
import time

import pytest
from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionDeltaEvent as DeltaEvent,
)
from websockets.asyncio.client import connect

from tests.support.inprocess import serving
from tests.support.makers import speech
from tests.support.realtime import (
    MANUAL,
    TRANSCRIPTION,
    append,
    configure,
    of_type,
    pcm16,
    receive,
    session,
)

# OpenAI's client uses a deprecated way of `websockets` to open its socket.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")

APPEND = "input_audio_buffer.append"


def talk_until_a_delta(connection):
    """Send speech until a part of its text arrives; return the events up to it."""
    samples = pcm16(speech(20.0))
    for start in range(0, len(samples), 9600):
        append(connection, samples[start : start + 9600], 9600)
        connection.input_audio_buffer.append(audio="*")  # its answer shows that all was read
        events = receive(connection, "error")
        if of_type(events, ".delta"):
            return events
        time.sleep(0.01)
    raise AssertionError("no delta came")


@pytest.mark.parametrize("mode", ["server_vad", None])
def test_text_arrives_before_the_turn_ends(server, mode):
    with session(server, **MANUAL | {"turn_detection": mode and {"type": mode}}) as connection:
        events = talk_until_a_delta(connection)
        early = of_type(events, ".delta")
        assert all(isinstance(event, DeltaEvent) for event in early)
        assert of_type(events, "committed") == []
        connection.input_audio_buffer.commit()
        events += receive(connection)
    done = events[-1]
    assert done.transcript.startswith("".join(event.delta for event in early))
    assert "".join(event.delta for event in of_type(events, ".delta")) == done.transcript
    assert {event.item_id for event in of_type(events, ".delta")} == {done.item_id}
    assert [event.text for event in of_type(events, ".segment")] == [done.transcript]


@pytest.mark.parametrize("delay", ["minimal", "low", "medium", "high", "xhigh"])
def test_openais_delays_are_known(server, delay):
    with session(server) as connection:
        configure(connection, transcription={"delay": delay})
        assert connection.recv().session.audio.input.transcription.delay == delay


def test_an_unknown_delay_is_refused(server):
    with session(server) as connection:
        configure(connection, transcription={"delay": "none"})
        assert connection.recv().error.param == "session.audio.input.transcription.delay"


def test_the_operator_can_turn_partial_results_off_and_they_are_measured_apart():
    before, after = {}, {}
    for setting, values in (("false", before), ("true", after)):
        with serving(ASR_LIVE_PARTIALS=setting) as server:
            with session(server, **MANUAL) as connection:
                for _ in range(10):
                    append(connection, pcm16(speech(0.5)), 16_000)
                    time.sleep(0.03)
                connection.input_audio_buffer.commit()
                events = receive(connection)
            values["events"] = [event.type for event in events]
            values["metrics"] = server.client().get("/metrics").text
            assert "word0" not in server.log
    assert before["events"][0] == "input_audio_buffer.committed"
    assert after["events"][0] == f"{TRANSCRIPTION}.delta"
    assert "asr_interim_seconds_count 0.0" in before["metrics"]
    assert 'asr_interim_requests_total{outcome="answered"}' in after["metrics"]
    for line in (
        "asr_engine_chunk_seconds_count 1.0",
        "asr_engine_audio_seconds_total 5.0",
        'asr_audio_seconds_total{key=""} 5.0',
        'asr_transcriptions_total{outcome="succeeded"} 1.0',
        'asr_recognition_events_total{event="chunks"}',
    ):
        assert line in before["metrics"], line
        assert line in after["metrics"], line


def test_32_sessions_at_once(server):
    """Each has its own deltas, and they add up to its transcript."""

    async def one(number):
        url = server.url.replace("http", "ws") + "/v1/realtime"
        async with connect(url) as raw:
            await raw.recv()
            update = {"type": "transcription", "audio": {"input": MANUAL}}
            await raw.send(json.dumps({"type": "session.update", "session": update}))
            samples = pcm16(speech(3.0 + number / 32))
            for start in range(0, len(samples), 16_000):
                piece = base64.b64encode(samples[start : start + 16_000]).decode()
                await raw.send(json.dumps({"type": APPEND, "audio": piece}))
                await asyncio.sleep(0.05)
            await raw.send('{"type": "input_audio_buffer.commit"}')
            deltas, n_early = "", 0
            async for text in raw:
                event = json.loads(text)
                n_early += event["type"].endswith("committed") and bool(deltas)
                if event["type"].endswith(".delta"):
                    deltas += event["delta"]
                if event["type"].endswith(".completed"):
                    return deltas, event["transcript"], n_early
        return None

    async def all_of_them():
        return await asyncio.gather(*map(one, range(32)))

    found = asyncio.run(all_of_them())
    assert all(deltas == transcript != "" for deltas, transcript, _ in found)
    assert any(n_early for *_, n_early in found)  # most, unless the machine is busy
