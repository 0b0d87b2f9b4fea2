"""The `openai` package: recordings, blocking, asynchronous and streamed."""

import asyncio
import os

import openai
from report import BASE, KEY, recording, report

client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)

with recording() as file:
    report("json", client.audio.transcriptions.create(model="whisper-1", file=file).text)

with recording() as file:
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=file,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
report("words", " ".join(word.word for word in answer.words))
report("segments", " ".join(segment.text for segment in answer.segments))

with recording() as file:
    stream = client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=file, response_format="json", stream=True
    )
    deltas = [event.delta for event in stream if event.type == "transcript.text.delta"]
report("stream", "".join(deltas))


async def main():
    client = openai.AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0)
    with recording() as file:
        answer = await client.audio.transcriptions.create(model="whisper-1", file=file)
    report("async", answer.text)


asyncio.run(main())

names = [model.id for model in client.models.list()]
assert names, "no models"

try:
    client.audio.transcriptions.create(model="whisper-1", file=("a.wav", os.urandom(999)))
except openai.APIStatusError as error:
    status = error.status_code
else:
    status = 200
assert 400 <= status < 500, status
