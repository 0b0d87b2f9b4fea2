"""The `openai` package with fields that some applications always send together."""

import openai
from report import BASE, KEY, recording, report

client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)


def transcribe(what, **fields):
    with recording() as file:
        answer = client.audio.transcriptions.create(model="whisper-1", file=file, **fields)
    report(what, answer.text)


transcribe("granularities", response_format="json", timestamp_granularities=["segment", "word"])
transcribe("auto", language="auto")
transcribe("eng", language="eng")
transcribe("en_US", language="en_US")
transcribe("languages", extra_body={"languages": ["en"]})
transcribe("logprobs", response_format="json", include=["logprobs"])
