"""Live sessions with OpenAI's own client, on an in-process service with a fake engine.

One slow test uses a real server process with the real CPU engine.
"""

import contextlib
import itertools
import json
import math
import socket

import pytest
import soundfile
import websockets.exceptions
from openai.types import realtime
from websockets.sync.client import connect

from tests.support.inprocess import serving
from tests.support.makers import bursts, noise, speech
from tests.support.paths import SAMPLES
from tests.support.realtime import (
    MANUAL,
    TRANSCRIPTION,
    WHOLE,
    append,
    configure,
    kept,
    of_type,
    open_session,
    pcm16,
    receive,
    session,
)
from tests.support.serving import REAL, serving as real_serving, wait_for

# OpenAI's client uses a deprecated way of `websockets` to open its socket.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")

TEXT = "word0 word1 word2"


# --- a conversation -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conversation(server):
    """The session.created event and the later events of a client that sends two sentences."""
    with open_session(server) as connection:
        created = connection.recv()
        configure(connection, transcription=WHOLE)
        assert connection.recv().type == "session.updated"
        append(connection, pcm16(bursts(8.0, [(1, 3), (5, 6.5)], 24_000)))
        return created, receive(connection, n=2)


def test_the_session_has_openais_format_and_defaults(conversation):
    created, _ = conversation
    assert isinstance(created, realtime.SessionCreatedEvent)
    assert created.session.type == "transcription"
    heard = created.session.audio.input
    assert (heard.format.type, heard.format.rate) == ("audio/pcm", 24_000)
    turns = heard.turn_detection
    assert (turns.type, turns.threshold) == ("server_vad", 0.5)
    assert (turns.prefix_padding_ms, turns.silence_duration_ms) == (300, 500)


def test_openais_client_knows_every_event(conversation):
    for event in conversation[1]:
        assert type(event).__module__.startswith("openai.types.realtime"), event
        assert event.event_id.startswith("event_")


def test_each_turn_goes_through_its_stages_in_order(conversation):
    _, events = conversation
    items = [event.item_id for event in of_type(events, "committed")]
    assert len(items) == len(set(items)) == 2
    for item in items:
        own = [event.type for event in events if getattr(event, "item_id", None) == item]
        assert own == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            f"{TRANSCRIPTION}.delta",
            f"{TRANSCRIPTION}.segment",
            f"{TRANSCRIPTION}.completed",
        ]
    assert [event.previous_item_id for event in of_type(events, "committed")] == [None, items[0]]
    assert [event.item.id for event in of_type(events, "item.added")] == items


def test_times_count_from_the_start_of_the_session(conversation):
    _, events = conversation
    starts = [event.audio_start_ms for event in of_type(events, "speech_started")]
    ends = [event.audio_end_ms for event in of_type(events, "speech_stopped")]
    assert starts == pytest.approx([700, 4700], abs=100)
    assert ends == pytest.approx([3300, 6800], abs=200)
    for event, start, end in zip(of_type(events, ".segment"), starts, ends, strict=True):
        words = event.words  # ours, so plain dicts
        assert event.start == words[0]["start"] == pytest.approx(start / 1000, abs=0.002)
        assert words[-1]["end"] == event.end <= end / 1000 + 0.002
        assert [word["word"] for word in words] == event.text.split()
        assert {word["timing"] for word in words} == {"engine"}


def test_deltas_make_the_transcript_and_the_audio_is_counted(conversation):
    _, events = conversation
    committed = of_type(events, "committed")
    for turn, done in zip(committed, of_type(events, "completed"), strict=True):
        deltas = [e.delta for e in of_type(events, ".delta") if e.item_id == done.item_id]
        assert "".join(deltas) == done.transcript != ""
        assert done.usage.type == "duration"
        seconds = (turn.audio_end_ms - turn.audio_start_ms) / 1000
        assert done.usage.seconds == math.ceil(seconds)
        assert [language.code for language in done.languages] == ["en"]


def test_an_empty_transcript_is_complete_too(server):
    with session(server, **MANUAL) as connection:
        append(connection, pcm16(noise(0.3)))  # too short for a word of the fake engine
        connection.input_audio_buffer.commit()
        assert receive(connection)[-1].transcript == ""


# --- settings of a session ------------------------------------------------------------------------


def test_turns_by_commit_at_16_khz(server):
    with open_session(server) as connection:
        connection.recv()
        configure(connection, **MANUAL, transcription={"model": "m", "keywords": ["Omni"]} | WHOLE)
        heard = connection.recv().session.audio.input
        assert (heard.format.rate, heard.turn_detection) == (16_000, None)
        assert (heard.transcription.model, heard.transcription.keywords) == ("m", ["Omni"])
        append(connection, pcm16(bursts(3.0, [(0, 1.5)])))
        append(connection, pcm16(speech(1.5)))
        connection.input_audio_buffer.commit()
        events = receive(connection)
    assert [event.type for event in events[:2]] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
    ]
    assert events[-1].usage.seconds == 5
    assert events[-1].transcript == " ".join(f"word{n}" for n in range(9))


@pytest.mark.parametrize(("kind", "subtype"), [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")])
def test_telephone_audio(server, tmp_path, kind, subtype):
    path = tmp_path / "call.raw"
    soundfile.write(path, bursts(4.0, [(1, 3)], 8000), 8000, subtype, format="RAW")
    with session(server, format={"type": kind}) as connection:
        append(connection, path.read_bytes())
        events = receive(connection)
    assert of_type(events, "speech_started")[0].audio_start_ms == pytest.approx(700, abs=100)
    assert of_type(events, "speech_stopped")[0].audio_end_ms == pytest.approx(3300, abs=200)


def test_the_client_sets_the_silence_that_ends_a_turn(server):
    audio = pcm16(bursts(6.0, [(1, 2), (2.8, 4)], 24_000))
    n_turns = []
    for milliseconds in (300, 1500):
        turns = {"type": "server_vad", "silence_duration_ms": milliseconds}
        with session(server, turn_detection=turns) as connection:
            append(connection, audio)
            connection.input_audio_buffer.clear()
            events = receive(connection, "cleared")
            n_turns.append(len(of_type(events, "committed")))
    assert n_turns == [2, 1]


def test_fields_that_are_not_sent_are_kept(server):
    with session(server, **MANUAL) as connection:
        configure(connection, transcription={"model": "other"})
        heard = connection.recv().session.audio.input
    assert (heard.format.rate, heard.turn_detection) == (16_000, None)
    assert heard.transcription.model == "other"


def test_a_change_of_the_format_ends_the_turn_first(server):
    with session(server, **MANUAL) as connection:
        append(connection, pcm16(speech(1.5)))
        configure(connection, format={"type": "audio/pcm", "rate": 24_000})
        append(connection, pcm16(speech(2.0, 24_000)))
        connection.input_audio_buffer.commit()
        events = receive(connection, n=2)
    turns = of_type(events, "committed")
    assert [turn.audio_end_ms - turn.audio_start_ms for turn in turns] == [1500, 2000]
    assert [event.usage.seconds for event in of_type(events, "completed")] == [2, 2]


# --- the buffer ---------------------------------------------------------------------------------


def test_a_commit_ends_a_turn_that_is_being_spoken(server):
    with session(server) as connection:
        append(connection, pcm16(speech(2.0, 24_000)))
        connection.input_audio_buffer.commit()
        events = receive(connection)
    assert of_type(events, "speech_stopped")[0].audio_end_ms == pytest.approx(2000, abs=60)
    assert events[-1].transcript != ""


def test_speech_without_a_pause_is_cut_into_turns(server):
    with session(server) as connection:
        append(connection, pcm16(speech(70.0, 24_000)), 1 << 20)
        connection.input_audio_buffer.commit()
        events = receive(connection, n=3)
    turns = of_type(events, "committed")
    assert len(turns) == 3
    assert turns[0].audio_start_ms == pytest.approx(0, abs=60)
    for before, after in itertools.pairwise(turns):
        assert before.audio_end_ms == after.audio_start_ms
        assert before.audio_end_ms - before.audio_start_ms <= 30_000
    assert turns[-1].audio_end_ms == pytest.approx(70_000, abs=60)


def test_clear_discards_the_buffer(server):
    with session(server, **MANUAL, transcription=WHOLE) as connection:
        append(connection, pcm16(speech(2.0)))
        connection.input_audio_buffer.clear()
        assert connection.recv().type == "input_audio_buffer.cleared"
        connection.input_audio_buffer.commit()
        event = connection.recv()
    assert isinstance(event, realtime.RealtimeErrorEvent)
    assert event.error.code == "input_audio_buffer_commit_empty"


# --- mistakes -----------------------------------------------------------------------------------


def update(**audio_input):
    body = {"type": "transcription", "audio": {"input": audio_input}}
    return {"type": "session.update", "event_id": "mine", "session": body}


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"type": "response.create"}, "type"),
        ({"no": "type"}, "type"),
        ({"type": "input_audio_buffer.append", "event_id": "mine"}, "audio"),
        ({"type": "input_audio_buffer.append", "event_id": "mine", "audio": "*"}, "audio"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
        (
            update(turn_detection={"type": "push_to_talk"}),
            "session.audio.input.turn_detection.type",
        ),
        (
            update(turn_detection={"type": "server_vad", "threshold": 2}),
            "session.audio.input.turn_detection.threshold",
        ),
        (
            update(format={"type": "audio/pcm", "rate": 11_025}),
            "session.audio.input.format.rate",
        ),
        (update(format={"type": "audio/mp3"}), "session.audio.input.format.type"),
        (
            update(transcription={"language": "no language"}),
            "session.audio.input.transcription.language",
        ),
    ],
)
def test_a_wrong_event_is_answered_and_the_session_goes_on(server, sent, param):
    with session(server, **MANUAL) as connection:
        connection.send_raw(json.dumps(sent))
        event = connection.recv()
        assert isinstance(event, realtime.RealtimeErrorEvent)
        assert (event.error.type, event.error.param) == ("invalid_request_error", param)
        assert event.error.event_id in (None, sent.get("event_id"))
        append(connection, pcm16(speech(1.5)))
        connection.input_audio_buffer.commit()
        assert receive(connection)[-1].transcript == TEXT


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '"\\ud800"', '{"type": 1}', b"\xff\x00", "[" * 200_000]
)
def test_messages_that_are_no_events_are_answered(server, text):
    url = server.url.replace("http", "ws") + "/v1/realtime"
    with connect(url) as raw:
        raw.recv()
        raw.send(text)
        assert json.loads(raw.recv())["error"]["type"] == "invalid_request_error"
        raw.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(raw.recv())["type"] == "input_audio_buffer.cleared"


def test_a_message_beyond_the_limit_closes_only_its_socket(server):
    with session(server) as connection:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            connection.send_raw(" " * (22 << 20))
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            connection.recv()
        # Unread data causes a connection reset, which may arrive before the close frame.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    with session(server, **MANUAL) as connection:
        connection.input_audio_buffer.clear()
        assert connection.recv().type == "input_audio_buffer.cleared"


def test_malformed_frames_close_only_their_socket(server):
    url = server.url.replace("http", "ws") + "/v1/realtime"
    with connect(url) as raw:
        raw.recv()
        raw.socket.sendall(b"\xff" * 64)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            raw.recv()
        assert closed.value.rcvd.code == 1002
    with session(server):
        pass


def test_an_event_holds_at_most_15_mib_of_audio(server):
    with session(server, **MANUAL) as connection:
        append(connection, bytes(15 << 20), 15 << 20)
        append(connection, bytes((15 << 20) + 2), 16 << 20)
        event = connection.recv()
        assert (event.error.code, event.error.param) == ("too_large", "audio")
        connection.input_audio_buffer.clear()
        assert connection.recv().type == "input_audio_buffer.cleared"


def test_a_failed_turn_is_reported_and_the_next_one_works(server):
    with session(server, **MANUAL, transcription={"prompt": "no number"}) as connection:
        append(connection, pcm16(speech(1.5)))
        connection.input_audio_buffer.commit()
        events = receive(connection, "failed")
        assert events[-1].item_id == events[0].item_id
        assert events[-1].error.type == "server_error"
        configure(connection, transcription={"prompt": "0"})
        append(connection, pcm16(speech(1.5)))
        connection.input_audio_buffer.commit()
        assert receive(connection)[-1].transcript == TEXT


def test_another_intent_is_refused_in_the_handshake(server):
    url = server.url.replace("http", "ws") + "/v1/realtime?intent=conversation"
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(url)
    response = refused.value.response
    assert response.status_code == 400
    assert json.loads(response.body)["error"]["param"] == "intent"


# --- the end ------------------------------------------------------------------------------------


def test_a_client_that_closes_loses_nothing(server):
    with open_session(server) as connection:
        session_id = connection.recv().session.id
        append(connection, pcm16(bursts(5.0, [(0.5, 1.5), (3, 5)], 24_000)))

    def whole():
        found = kept(server, session_id)
        return found["items"] if found["status"] == "ended" else None

    items = wait_for(whole, 60, "the end of the session")
    assert [item["start"] for item in items] == pytest.approx([0.2, 2.7], abs=0.1)
    assert items[-1]["end"] == pytest.approx(5.0, abs=0.06)
    assert all(item["transcript"] for item in items)
    assert items[-1]["segments"][0]["words"][0]["word"] == "word0"


def test_a_connection_that_breaks_loses_nothing(server):
    with open_session(server) as connection:
        session_id = connection.recv().session.id
        append(connection, pcm16(speech(3.0, 24_000)))
        append(connection, pcm16(bursts(1.5, [], 24_000)))
        receive(connection, "completed")
        append(connection, pcm16(speech(2.0, 24_000)))
        # Not the other direction: unread data would make the kernel drop what is on its way.
        connection._connection.socket.shutdown(socket.SHUT_WR)
        items = wait_for(
            lambda: (k := kept(server, session_id))["status"] == "ended" and k["items"], 60
        )
    assert len(items) == 2
    assert items[1]["end"] == pytest.approx(6.5, abs=0.06)


def test_a_session_without_audio_leaves_nothing(server):
    with open_session(server) as connection:
        session_id = connection.recv().session.id
        assert kept(server, session_id)["status"] == "open"
    wait_for(lambda: kept(server, session_id) is None, 60, "the end of the session")


@pytest.fixture(scope="module")
def strict_server():
    limits = {"IDLE_SECONDS": "4", "MAX_SECONDS": "20", "MAX_SESSIONS": "2", "KEEP_SECONDS": "1"}
    with serving(**{f"ASR_LIVE_{name}": value for name, value in limits.items()}) as server:
        yield server


def test_an_idle_session_ends_after_its_last_turn(strict_server):
    audio = pcm16(speech(2.0, 24_000))
    with session(strict_server) as connection:
        append(connection, audio)
        events = receive(connection, "error")
        assert events[-1].error.code == "idle_timeout"
        assert len(of_type(events, "completed")) == 1
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            connection.recv()


def test_a_session_takes_no_more_audio_than_allowed(strict_server):
    audio = pcm16(speech(21.0, 24_000))  # made first, because an idle session ends after 1.5 s
    with session(strict_server) as connection:
        append(connection, audio, 1 << 20)
        events = receive(connection, "error")
    assert events[-1].error.code == "session_expired"
    assert of_type(events, "completed")[0].usage.seconds == pytest.approx(21, abs=0.1)


def test_one_session_too_many_is_told_to_wait(strict_server):
    with session(strict_server), session(strict_server):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            open_session(strict_server).enter()
        response = refused.value.response
        assert response.status_code == 429
        assert response.headers["retry-after"] == "10"
    assert json.loads(response.body)["error"]["code"] == "too_many_sessions"


def test_transcripts_are_kept_for_a_limited_time(strict_server):
    with open_session(strict_server) as connection:
        session_id = connection.recv().session.id
        append(connection, pcm16(speech(2.0, 24_000)))
    wait_for(lambda: kept(strict_server, session_id)["items"], 60, "the transcript")
    wait_for(lambda: kept(strict_server, session_id) is None, 60, "its end")
    wait_for(lambda: not strict_server.request_folders(), 60, "the removal of its folder")


# --- the real engine ------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_speech_with_the_real_engine():
    samples, rate = soundfile.read(SAMPLES / "meeting.wav", dtype="float32")
    with real_serving(*REAL, ASR_VAD="webrtc") as server:
        form = {"type": "audio/pcm", "rate": rate}
        with session(server, format=form) as connection:
            append(connection, pcm16(samples[: 6 * rate]))
            connection.input_audio_buffer.commit()
            events = receive(connection, n=2)
    turns = of_type(events, "completed")
    assert any("morning everyone" in turn.transcript for turn in turns)
