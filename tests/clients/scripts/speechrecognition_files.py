"""The package SpeechRecognition with `recognize_openai`."""

import os

from report import AUDIO, BASE, KEY, report

os.environ |= {"OPENAI_BASE_URL": BASE, "OPENAI_API_KEY": KEY}

import speech_recognition  # it reads the variables

recognizer = speech_recognition.Recognizer()
with speech_recognition.AudioFile(AUDIO) as source:
    audio = recognizer.record(source)
report("json", recognizer.recognize_openai(audio, model="whisper-1", language="en"))
