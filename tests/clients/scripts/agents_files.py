"""OpenAI's agents SDK: the transcription of a recording in a voice pipeline."""

import asyncio

import numpy as np
from agents import set_tracing_disabled
from agents.voice import AudioInput, OpenAIVoiceModelProvider, STTModelSettings
from report import BASE, KEY, pcm_24k, report


async def main():
    set_tracing_disabled(True)
    provider = OpenAIVoiceModelProvider(api_key=KEY, base_url=BASE)
    model = provider.get_stt_model(None)
    audio = AudioInput(buffer=np.frombuffer(pcm_24k(), dtype=np.int16))
    report("json", await model.transcribe(audio, STTModelSettings(), False, False))


asyncio.run(main())
