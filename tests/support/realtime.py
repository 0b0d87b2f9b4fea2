"""OpenAI's Realtime client, and shortcuts for its events."""

import base64
import contextlib

import numpy as np
import openai

INTENT = {"intent": "transcription"}
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def pcm16(samples):
    return np.clip(samples * 32767, -32768, 32767).astype("<i2").tobytes()


def open_session(server, key="any", **options):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    return client.realtime.connect(extra_query=INTENT, **options)


@contextlib.contextmanager
def session(server, key="any", **audio_input):
    """A connection that has received session.created and, if configured, session.updated."""
    with open_session(server, key) as connection:
        assert connection.recv().type == "session.created"
        if audio_input:
            configure(connection, **audio_input)
            assert connection.recv().type == "session.updated"
        yield connection


def configure(connection, **audio_input):
    update = {"type": "transcription", "audio": {"input": audio_input}}
    connection.session.update(session=update)


MANUAL = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}
"""Settings of a client that commits its turns itself, at 16 kHz, which needs no resampling."""

WHOLE = {"partial_results": False}
"""Transcription settings of a client that wants only the text of whole turns."""


def append(connection, data, size=4800):
    for start in range(0, len(data), size):
        piece = base64.b64encode(data[start : start + size]).decode()
        connection.input_audio_buffer.append(audio=piece)


def receive(connection, last="completed", n=1):
    """Receive events up to the n-th one whose type ends with `last`."""
    events = []
    while n:
        events.append(connection.recv())
        n -= events[-1].type.endswith(last)
    return events


def of_type(events, *kinds):
    return [event for event in events if event.type.endswith(kinds)]


def kept(server, session_id):
    answer = server.client().get(f"/v1/realtime/sessions/{session_id}")
    return answer.json() if answer.status_code == 200 else None
