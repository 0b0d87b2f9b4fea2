"""Semantic Kernel's OpenAIAudioToText."""

import asyncio

from openai import AsyncOpenAI
from report import AUDIO, BASE, KEY, report
from semantic_kernel.connectors.ai.open_ai import OpenAIAudioToText
from semantic_kernel.contents import AudioContent


async def main():
    client = AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0)
    service = OpenAIAudioToText(ai_model_id="whisper-1", async_client=client)
    (content,) = await service.get_text_contents(AudioContent(uri=AUDIO))
    report("json", content.text)


asyncio.run(main())
