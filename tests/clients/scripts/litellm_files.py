"""LiteLLM's transcriptions."""

import asyncio

import litellm
from report import BASE, KEY, recording, report

place = {"model": "openai/whisper-1", "api_base": BASE, "api_key": KEY}

with recording() as file:
    report("json", litellm.transcription(file=file, **place).text)

with recording() as file:
    fields = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    answer = litellm.transcription(file=file, language="en", temperature=0, **place, **fields)
report("words", " ".join(word["word"] for word in answer["words"]))


async def main():
    with recording() as file:
        report("async", (await litellm.atranscription(file=file, **place)).text)


asyncio.run(main())
