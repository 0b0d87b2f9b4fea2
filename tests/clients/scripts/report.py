"""What every script needs: where the server is, and how to report a transcript.

The test reads one JSON object per line from standard output and ignores other lines.
"""

import json
import os
import wave
from pathlib import Path

ROOT = os.environ["CLIENT_ROOT"]
BASE = f"{ROOT}/v1"
KEY = os.environ["CLIENT_KEY"]
AUDIO = os.environ["CLIENT_AUDIO"]
AUDIO_24K = os.environ["CLIENT_AUDIO_24K"]
CHUNK = 4800
"""Bytes of 100 ms at 24 kHz."""


def report(what, text):
    """Tell the test the transcript that a client got."""
    print(json.dumps({"what": what, "text": text}), flush=True)


def recording():
    """The recording as an open file."""
    return Path(AUDIO).open("rb")


def pcm_24k():
    """The recording as raw PCM at 24 kHz, which the realtime API expects."""
    with wave.open(AUDIO_24K) as file:
        return file.readframes(file.getnframes())
