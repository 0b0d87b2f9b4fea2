"""aider's voice input, with a stub in place of the microphone."""

import os
import types
from unittest import mock

import numpy as np
import soundfile
from report import AUDIO, BASE, KEY, report

os.environ |= {"OPENAI_API_BASE": BASE, "OPENAI_API_KEY": KEY}

from aider import voice  # LiteLLM reads the variables


class Microphone:
    def __init__(self, callback, samplerate, **_):
        audio, rate = soundfile.read(AUDIO, dtype="float32")
        assert rate == samplerate
        callback(np.atleast_2d(audio).T, len(audio), None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


recorder = voice.Voice.__new__(voice.Voice)
recorder.max_rms, recorder.min_rms, recorder.pct, recorder.threshold = 0, 1e5, 0, 0.15
recorder.device_id, recorder.audio_format = None, "wav"
recorder.sd = types.SimpleNamespace(
    InputStream=Microphone,
    query_devices=lambda *_: {"default_samplerate": 16000},
    PortAudioError=OSError,
)
with mock.patch.object(voice, "prompt"):
    report("json", recorder.raw_record_and_transcribe(history=None, language="en"))
