"""Live transcription over a WebSocket, in the events of OpenAI's Realtime API.

    bytes -> formats -> 16 kHz PCM16 -> turns (server VAD or commits) -> files -> the worker

The API process cuts the audio into turns and writes each to a file; the worker transcribes those
like any recording. So a socket holds no more than the turn that is being spoken.
"""
