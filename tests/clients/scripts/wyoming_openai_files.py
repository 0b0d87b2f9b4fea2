"""wyoming-openai, the bridge of Home Assistant: with and without streaming."""

import asyncio
import socket
import sys
import wave

from report import AUDIO, BASE, KEY, report
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient


async def ask(port, model):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        with wave.open(AUDIO) as file:
            rate, pcm = file.getframerate(), file.readframes(file.getnframes())
        await client.write_event(Transcribe(name=model, language="en").event())
        await client.write_event(AudioStart(rate, 2, 1).event())
        for start in range(0, len(pcm), 3200):
            await client.write_event(AudioChunk(rate, 2, 1, pcm[start : start + 3200]).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    raise AssertionError("no transcript")


async def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--uri", f"tcp://127.0.0.1:{port}", "--stt-openai-url", BASE]
    options += ["--stt-openai-key", KEY, "--stt-models", "whisper-1"]
    options += ["--stt-streaming-models", "gpt-4o-transcribe", "--languages", "en"]
    bridge = await asyncio.create_subprocess_exec(sys.executable, "-m", "wyoming_openai", *options)
    try:
        while True:
            assert bridge.returncode is None, "the bridge ended"
            try:
                report("whisper-1", await ask(port, "whisper-1"))
                break
            except OSError:
                await asyncio.sleep(0.2)
        report("streaming", await ask(port, "gpt-4o-transcribe"))
    finally:
        if bridge.returncode is None:
            bridge.terminate()
        await bridge.wait()


asyncio.run(main())
