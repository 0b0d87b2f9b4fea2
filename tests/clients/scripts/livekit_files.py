"""LiveKit's OpenAI plugin: recordings."""

import asyncio

from livekit import rtc
from livekit.plugins import openai
from report import BASE, KEY, pcm_24k, report


async def main():
    pcm = pcm_24k()
    frame = rtc.AudioFrame(pcm, 24000, 1, len(pcm) // 2)
    for model in ("whisper-1", "gpt-4o-transcribe"):
        stt = openai.STT(model=model, base_url=BASE, api_key=KEY, use_realtime=False)
        event = await stt.recognize([frame])
        report(model, event.alternatives[0].text)


asyncio.run(main())
