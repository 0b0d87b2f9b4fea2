"""Pipecat's OpenAISTTService, which sends each turn as a recording."""

import asyncio

from pipecat.services.openai.stt import OpenAISTTService
from report import BASE, KEY, recording, report


async def main():
    with recording() as file:
        audio = file.read()
    for model in ("gpt-4o-transcribe", "whisper-1"):
        settings = OpenAISTTService.Settings(model=model)
        service = OpenAISTTService(api_key=KEY, base_url=BASE, settings=settings)
        report(model, (await service._transcribe(audio)).text)


asyncio.run(main())
