"""CAMEL's OpenAIAudioModels."""

from camel.models import OpenAIAudioModels
from report import AUDIO, BASE, KEY, report

report("json", OpenAIAudioModels(api_key=KEY, url=BASE).speech_to_text(AUDIO))
