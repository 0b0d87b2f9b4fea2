"""What real clients send, and whether OpenAI's types accept every answer.

The messages are those of openai-agents 0.24, livekit-plugins-openai 1.8 and 1.0, pipecat, hyprwhspr
and of pages in a browser. The fake engine answers.
"""

import base64
import contextlib
import json
from typing import get_args

import openai
import pytest
from openai.types.beta.realtime import (
    RealtimeServerEvent as BetaEvent,
    TranscriptionSessionUpdatedEvent,
)
from openai.types.realtime import RealtimeServerEvent
from websockets.sync.client import connect

from tests.support.makers import bursts, noise, speech
from tests.support.realtime import INTENT, TRANSCRIPTION, kept, pcm16, receive

BETA_HEADER = {"OpenAI-Beta": "realtime=v1"}
LOGPROBS = "item.input_audio_transcription.logprobs"
SECOND = pcm16(speech(1.5, 24_000))


class Raw:
    """A WebSocket with JSON events."""

    def __init__(self, socket):
        self.socket = socket
        self.events = []

    def send(self, kind, **fields):
        self.socket.send(json.dumps({"type": kind} | fields))

    def next(self, end):
        """Receive up to the event whose type ends with `end`, and return that event."""
        event = json.loads(self.socket.recv(10))
        self.events.append(event)
        return event if event["type"].endswith(end) else self.next(end)

    def append(self, data):
        for start in range(0, len(data), 48_000):
            piece = base64.b64encode(data[start : start + 48_000]).decode()
            self.send("input_audio_buffer.append", audio=piece)

    def types(self):
        return [event["type"] for event in self.events]


@pytest.fixture
def opened(server):
    """A function that opens a session and returns it after its first event."""
    with contextlib.ExitStack() as stack:

        def opened(query="intent=transcription", headers=None, protocols=None):
            url = server.url.replace("http", "ws") + f"/v1/realtime?{query}"
            opening = connect(url, additional_headers=headers, subprotocols=protocols)
            raw = Raw(stack.enter_context(opening))
            raw.next(".created")
            return raw

        yield opened


def classes(union):
    """The models of a union of events, by type."""
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


def check_strictly(events, union):
    """OpenAI's models accept the events without converting any value."""
    models = classes(union)
    for event in events:
        models[event["type"]].model_validate(event, strict=True)


# --- OpenAI's types accept every event ------------------------------------------------------------


def test_openais_types_accept_every_event(opened):
    raw = opened()
    audio = {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "noise_reduction": {"type": "near_field"},
        "transcription": {"model": "gpt-transcribe", "languages": ["en"], "keywords": ["Omni"]},
        "turn_detection": {"type": "semantic_vad", "eagerness": "high", "create_response": True},
    }
    session = {"type": "transcription", "audio": {"input": audio}, "include": [LOGPROBS]}
    raw.send("session.update", session=session)
    raw.append(pcm16(bursts(4.0, [(0.5, 2.5)], 24_000)))
    done = raw.next(".completed")
    raw.send("conversation.item.retrieve", item_id=done["item_id"])
    raw.send("conversation.item.delete", item_id=done["item_id"])
    raw.send("response.create", event_id="mine")
    raw.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    raw.send("input_audio_buffer.clear")
    raw.send(
        "session.update", session={"audio": {"input": {"transcription": {"prompt": "no number"}}}}
    )
    raw.append(SECOND)
    raw.send("input_audio_buffer.commit")
    raw.next(".failed")
    assert set(raw.types()) == {
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "input_audio_buffer.cleared",
        "conversation.item.added",
        "conversation.item.retrieved",
        "conversation.item.deleted",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.segment",
        f"{TRANSCRIPTION}.completed",
        f"{TRANSCRIPTION}.failed",
        "error",
    }
    check_strictly(raw.events, RealtimeServerEvent)


def test_openais_beta_types_accept_every_event(opened):
    raw = opened("model=gpt-4o-realtime-preview", BETA_HEADER)
    raw.send("session.update", session={"input_audio_transcription": {"model": "whisper-1"}})
    raw.append(pcm16(bursts(4.0, [(0.5, 2.5)], 24_000)))
    done = raw.next(".completed")
    raw.send("conversation.item.retrieve", item_id=done["item_id"])
    raw.send("response.create")
    raw.next("error")
    check_strictly(raw.events, BetaEvent)
    assert "conversation.item.created" in raw.types()


# --- log probabilities ----------------------------------------------------------------------------


def test_logprobs_are_those_of_the_words(opened):
    raw = opened()
    session = {"turn_detection": None, "include": [LOGPROBS]}
    raw.send("session.update", session=session)
    assert raw.next(".updated")["session"]["include"] == [LOGPROBS]
    raw.append(SECOND)
    raw.send("input_audio_buffer.commit")
    done = raw.next(".completed")
    tokens = done["logprobs"]
    assert "".join(it["token"] for it in tokens) == done["transcript"] == "word0 word1 word2"
    assert [bytes(it["bytes"]).decode() for it in tokens] == [it["token"] for it in tokens]
    assert all(-14 < it["logprob"] <= 0 for it in tokens)


def test_without_include_there_are_no_logprobs(opened):
    raw = opened()
    raw.append(SECOND)
    raw.send("input_audio_buffer.commit")
    assert "logprobs" not in raw.next(".completed")


# --- clients --------------------------------------------------------------------------------------


def test_openai_agents(opened):
    """Its default is semantic VAD, and it stops at the first error."""
    raw = opened(headers={"OpenAI-Log-Session": "1"})
    audio = {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": {"model": "gpt-4o-transcribe"},
        "turn_detection": {"type": "semantic_vad"},
    }
    raw.send("session.update", session={"type": "transcription", "audio": {"input": audio}})
    updated = raw.next("session.updated")
    assert updated["session"]["audio"]["input"]["turn_detection"]["eagerness"] == "auto"
    raw.append(pcm16(bursts(6.0, [(0.5, 1.5), (2.2, 4.0)], 24_000)))
    raw.next(".completed")
    raw.send("input_audio_buffer.clear")
    raw.next(".cleared")
    # The pause of 0.7 s is shorter than the 1 s of "auto".
    assert raw.types().count("input_audio_buffer.committed") == 1
    assert "error" not in raw.types()


def test_livekit_with_a_model_that_has_no_vad(opened):
    raw = opened("intent=transcription&model=gpt-live-transcribe")
    first = raw.events[0]["session"]["audio"]["input"]
    assert first["transcription"] == {"model": "gpt-live-transcribe"}
    assert first["turn_detection"] is None
    options = {"model": "gpt-live-transcribe", "keywords": [], "languages": ["en", "de"]}
    audio = {"format": {"rate": 24_000, "type": "audio/pcm"}, "transcription": options}
    raw.send("session.update", session={"type": "transcription", "audio": {"input": audio}})
    assert raw.next("session.updated")["session"]["audio"]["input"]["turn_detection"] is None
    raw.append(pcm16(bursts(4.0, [(0.5, 1.5), (3.0, 4.0)], 24_000)))
    raw.send("input_audio_buffer.commit")
    assert raw.next(".completed")["usage"]["seconds"] == 4.0
    assert raw.types().count("input_audio_buffer.committed") == 1
    assert "error" not in raw.types()


def test_livekit_of_2025_in_the_beta_form(opened):
    raw = opened(headers=BETA_HEADER | {"User-Agent": "LiveKit Agents"})
    assert raw.events[0]["type"] == "transcription_session.created"
    options = {"model": "gpt-4o-mini-transcribe", "prompt": "", "language": ""}
    vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600}
    raw.send(
        "transcription_session.update",
        session={
            "input_audio_format": "pcm16",
            "input_audio_transcription": options | {"noise_reduction_type": "near_field"},
            "turn_detection": vad | {"silence_duration_ms": 350},
        },
    )
    updated = raw.next("transcription_session.updated")
    assert updated["session"]["turn_detection"]["silence_duration_ms"] == 350
    assert updated["session"]["input_audio_format"] == "pcm16"
    assert any("noise_reduction_type" in it for it in updated["warnings"])
    raw.append(pcm16(bursts(4.0, [(0.5, 1.5), (2.1, 3.0)], 24_000)))
    raw.next(".completed")
    raw.next(".completed")  # the pause of 0.6 s ends a turn
    assert raw.types().count("conversation.item.created") == 2
    assert not any(kind.endswith((".added", ".segment", "error")) for kind in raw.types())


def test_pipecat_commits_turns(opened):
    raw = opened()
    audio = {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": {"model": "gpt-realtime-whisper", "language": "en"},
        "turn_detection": None,
        "noise_reduction": {"type": "near_field"},
    }
    raw.send("session.update", session={"type": "transcription", "audio": {"input": audio}})
    assert "noise_reduction" in raw.next("session.updated")["warnings"][0]
    raw.append(SECOND)
    raw.send("input_audio_buffer.commit")
    assert raw.next(".completed")["transcript"] == "word0 word1 word2"
    assert "error" not in raw.types()


def test_a_page_in_a_browser_in_the_beta_form(opened):
    protocols = ["realtime", "openai-insecure-api-key.sk-any", "openai-beta.realtime-v1"]
    raw = opened("model=gpt-4o-realtime-preview-2024-12-17", protocols=protocols)
    assert raw.socket.subprotocol == "realtime"
    assert raw.events[0]["type"] == "session.created"
    assert raw.events[0]["session"]["input_audio_format"] == "pcm16"
    raw.send(
        "session.update",
        session={
            "modalities": ["text"],
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": None,
        },
    )
    updated = raw.next("session.updated")
    assert updated["session"]["input_audio_format"] == "g711_ulaw"
    assert updated["warnings"] == ["session.modalities has no effect"]
    raw.append(b"\xff" * 12_000)
    raw.send("input_audio_buffer.commit")
    assert raw.next(".completed")["usage"]["seconds"] == 2


def test_a_flat_update_without_asking_for_the_beta_form(opened):
    raw = opened()
    assert "input_audio_format" not in raw.events[0]["session"]
    raw.send("session.update", session={"input_audio_transcription": {"language": "de"}})
    session = raw.next("session.updated")["session"]
    assert session["input_audio_transcription"]["language"] == "de"
    assert session["audio"]["input"]["transcription"]["language"] == "de"
    audio = {"input": {"turn_detection": None}}
    raw.send("session.update", session={"type": "transcription", "audio": audio})
    session = raw.next("session.updated")["session"]
    assert "input_audio_format" not in session
    assert session["audio"]["input"]["transcription"]["language"] == "de"


def test_an_empty_intent_is_the_default(opened):
    assert opened("intent=").events[0]["session"]["type"] == "transcription"


@pytest.mark.parametrize("turns", [{"type": "semantic_vad", "eagerness": "high"}, None])
def test_another_language_does_not_cut_the_turn(opened, turns):
    """LiveKit changes its options while someone speaks."""
    raw = opened()
    raw.send("session.update", session={"audio": {"input": {"turn_detection": turns}}})
    raw.append(SECOND)
    options = {"language": "de", "keywords": ["Omni"]}
    raw.send("session.update", session={"audio": {"input": {"transcription": options}}})
    raw.append(SECOND)
    raw.send("input_audio_buffer.commit")
    assert raw.next(".completed")["usage"]["seconds"] == 3
    assert raw.types().count("input_audio_buffer.committed") == 1


# --- items ----------------------------------------------------------------------------------------


def test_an_item_can_be_retrieved_and_deleted(server, opened):
    raw = opened()
    session_id = raw.events[0]["session"]["id"]
    raw.send("session.update", session={"turn_detection": None})
    for _ in range(2):
        raw.append(SECOND)
        raw.send("input_audio_buffer.commit")
        done = raw.next(".completed")
    item_id = done["item_id"]
    raw.send("conversation.item.retrieve", item_id=item_id)
    item = raw.next(".retrieved")["item"]
    assert (item["id"], item["status"], item["role"]) == (item_id, "completed", "user")
    assert item["content"] == [{"type": "input_audio", "transcript": done["transcript"]}]
    raw.send("conversation.item.delete", item_id=item_id)
    assert raw.next(".deleted")["item_id"] == item_id
    (left,) = kept(server, session_id)["items"]
    assert left["item_id"] != item_id
    for what in ("retrieve", "delete"):
        raw.send(f"conversation.item.{what}", item_id=item_id, event_id="mine")
        error = raw.next("error")["error"]
        assert (error["code"], error["param"], error["event_id"]) == (
            f"item_{what}_invalid_item_id",
            "item_id",
            "mine",
        )


def test_an_item_without_speech_has_an_empty_transcript(opened):
    raw = opened()
    raw.send("session.update", session={"turn_detection": None})
    raw.append(pcm16(noise(0.3, 24_000)))
    raw.send("input_audio_buffer.commit")
    raw.send("conversation.item.retrieve", item_id=raw.next(".completed")["item_id"])
    assert raw.next(".retrieved")["item"]["content"][0]["transcript"] == ""


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "response.create"}, "type"),
        ({"type": "conversation.item.create", "item": {}}, "type"),
        ({"type": "conversation.item.truncate", "item_id": "x"}, "type"),
        ({"type": "conversation.item.delete"}, "item_id"),
        ({"type": "no.such.event"}, "type"),
        ({"type": "session.update"}, "session"),
        ({"type": "session.update", "session": 5}, "session"),
        ({"type": "transcription_session.update", "session": {"type": "realtime"}}, "session.type"),
    ],
)
def test_an_error_repeats_the_id_of_a_wrong_event(opened, event, param):
    raw = opened()
    raw.socket.send(json.dumps(event | {"event_id": "mine"}))
    error = raw.next("error")["error"]
    assert (error["param"], error["event_id"]) == (param, "mine")
    raw.send("input_audio_buffer.clear")
    raw.next(".cleared")


# --- OpenAI's beta client -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_openais_beta_client_works_with_a_key_from_its_beta_route(server):
    url = server.url.replace("http", "ws") + "/v1"
    options = {"base_url": f"{server.url}/v1", "websocket_base_url": url, "max_retries": 0}
    sessions = openai.OpenAI(api_key="any", **options).beta.realtime.transcription_sessions
    settings = {"model": "whisper-1", "language": "de"}
    made = sessions.create(input_audio_transcription=settings, turn_detection=None)
    client = openai.OpenAI(api_key=made.client_secret.value, **options)
    with client.beta.realtime.connect(model="any", extra_query=INTENT) as connection:
        created = connection.recv()
        assert created.type == "transcription_session.created"
        connection.transcription_session.update(session={"input_audio_format": "pcm16"})
        updated = connection.recv()
        assert isinstance(updated, TranscriptionSessionUpdatedEvent)
        assert updated.session.input_audio_transcription.language == "de"
        assert updated.session.turn_detection is None
        connection.input_audio_buffer.append(audio=base64.b64encode(SECOND).decode())
        connection.input_audio_buffer.commit()
        assert receive(connection)[-1].transcript == "word0 word1 word2"
