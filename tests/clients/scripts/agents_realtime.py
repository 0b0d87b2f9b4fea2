"""OpenAI's agents SDK: a live session, whose default is `semantic_vad`."""

import asyncio

import numpy as np
from agents import set_tracing_disabled
from agents.voice import OpenAIVoiceModelProvider, StreamedAudioInput, STTModelSettings
from report import BASE, CHUNK, KEY, pcm_24k, report


async def speak(audio):
    """Send the recording as a microphone does: the SDK takes turns as they are answered."""
    pcm = pcm_24k()
    for start in range(0, len(pcm), CHUNK):
        await audio.add_audio(np.frombuffer(pcm[start : start + CHUNK], dtype=np.int16))
        await asyncio.sleep(0.1)
    await audio.add_audio(None)


async def main():
    set_tracing_disabled(True)
    provider = OpenAIVoiceModelProvider(api_key=KEY, base_url=BASE)
    model, audio = provider.get_stt_model(None), StreamedAudioInput()
    session = await model.create_session(audio, STTModelSettings(), False, False)
    speaking = asyncio.create_task(speak(audio))
    report("semantic_vad", " ".join([turn async for turn in session.transcribe_turns()]))
    await speaking


asyncio.run(main())
