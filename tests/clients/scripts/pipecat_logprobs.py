"""Pipecat's OpenAISTTService with probabilities."""

import asyncio

from pipecat.services.openai.stt import OpenAISTTService
from report import BASE, KEY, recording, report


async def main():
    with recording() as file:
        audio = file.read()
    for model in ("gpt-4o-transcribe", "whisper-1"):
        settings = OpenAISTTService.Settings(model=model)
        service = OpenAISTTService(
            api_key=KEY, base_url=BASE, settings=settings, include_prob_metrics=True
        )
        answer = await service._transcribe(audio)
        assert model == "whisper-1" or answer.logprobs, answer
        report(model, answer.text)


asyncio.run(main())
