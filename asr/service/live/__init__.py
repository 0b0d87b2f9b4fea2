"""Live transcription over a WebSocket, with the events of OpenAI's Realtime API.

    bytes -> formats -> 16 kHz PCM16 -> turns (server VAD or commits) -> files -> the worker

This process cuts the audio into turns and writes each turn to a file. The worker transcribes the
file like any recording. So a session holds no more audio in memory than the turn being spoken.

While a turn is spoken, partial results are sent:

    the audio so far -> the worker -> agreement of two hypotheses -> deltas

When it ends, its final transcript is reconciled with what was sent, and never contradicts it.

Modules in reading order:

    formats.py        the client's bytes -> 16 kHz PCM16
    turns.py          samples -> turns in files
    input_buffer.py   `InputBuffer`: formats and turns, OpenAI's "input audio buffer"
    delay.py          OpenAI's `delay`: how long partial results wait for certainty
    beta.py           OpenAI's beta form of sessions and events
    session_fields.py the settings of a session, as a client sends them
    session_config.py `SessionConfig`: the settings as they are now
    client_events.py  the events that a client sends
    server_events.py  the events that the server sends
    word_match.py     matches sent words with the beginning of a later hypothesis
    agreement.py      which words of hypotheses that still change can be sent
    partial_text.py   `PartialText`: what was sent of an item
    partials.py       `Partials`: recognises the unfinished turn again and again, and sends deltas
    reconcile.py      the final segments with the sent words at their beginning
    speech.py         stitches the transcripts of turns that were cut from one speech region
    backend.py        the service for a session: transcription, limits, transcripts
    items.py          `Items`: the turns that are being transcribed
    socket.py         `ClientSocket`: the WebSocket
    session.py        `LiveSession`: one client from the first event to the last
    secret_requests.py  requests for ephemeral keys
    transcripts.py    transcripts that clients can fetch after the socket closed
    service.py        `Live`: the sessions of one API process
    routes.py         the routes

The package does not know how audio is transcribed: it sends commands to the worker.
"""
