"""LiveKit's OpenAI plugin: live sessions with its default settings, and with semantic VAD."""

import asyncio

from livekit import rtc
from livekit.agents import stt as agents_stt, utils
from livekit.plugins import openai
from report import BASE, CHUNK, KEY, pcm_24k, report

SILENCE = bytes(2 * 24000 * 2)


async def transcribe(what, **options):
    stream = openai.STT(base_url=BASE, api_key=KEY, **options).stream()
    pcm = pcm_24k() + SILENCE
    for start in range(0, len(pcm), CHUNK):
        piece = pcm[start : start + CHUNK].ljust(CHUNK, b"\0")
        stream.push_frame(rtc.AudioFrame(piece, 24000, 1, CHUNK // 2))
        await asyncio.sleep(0.1)  # as a microphone: the plugin takes turns as they are answered
    texts = []
    async for event in stream:
        if event.type == agents_stt.SpeechEventType.FINAL_TRANSCRIPT:
            texts.append(event.alternatives[0].text)
            if "office" in texts[-1].lower():  # the last word
                break
    report(what, " ".join(texts))
    await stream.aclose()


async def main():
    utils.http_context._new_session_ctx()
    await transcribe("server_vad", use_realtime=True)
    # The plugin commits for this model, with the VAD that it brings along.
    await transcribe("commits", model="gpt-realtime-whisper")
    semantic = {"type": "semantic_vad"}
    await transcribe("semantic_vad", use_realtime=True, turn_detection=semantic)
    await utils.http_context._close_http_ctx()


asyncio.run(main())
