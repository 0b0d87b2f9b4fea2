"""The Omni engine against a stand-in for vLLM's HTTP. It proves the wire, not the model."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from asr.config import DecodeOptions, Settings
from asr.engines import load_engine
from asr.engines.omni import chat_request, read_answer
from asr.engines.vllm_http import VllmHttpEngine
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis

AUDIO = Audio(np.linspace(-0.5, 0.5, 2 * SAMPLE_RATE, dtype=np.float32))
CHUNK = Chunk(3, 0, 2 * SAMPLE_RATE)

Handler = Callable[[httpx.Request], httpx.Response]


def completion(text: str | None, finish: str = "stop") -> httpx.Response:
    message = {"role": "assistant", "content": text}
    return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": finish}]})


class Vllm:
    """Answers /v1/models, and chat completions from a queue."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "nvidia/omni"}]})
        assert request.url.path == "/v1/chat/completions"
        self.requests.append(json.loads(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def transcribe(handler: Handler, options: DecodeOptions | None = None) -> Hypothesis:
    async def run() -> Hypothesis:
        engine = VllmHttpEngine("http://vllm:8000/v1/", httpx.MockTransport(handler))
        await engine.open()
        try:
            return await engine.transcribe(CHUNK, AUDIO, options or DecodeOptions())
        finally:
            await engine.close()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.engines.vllm_http.FIRST_DELAY", 0.001)


def test_the_request_is_what_the_model_wants() -> None:
    vllm = Vllm(completion("hello there"))
    hypothesis = transcribe(vllm)
    assert (hypothesis.chunk_index, hypothesis.text, hypothesis.words) == (3, "hello there", ())
    (request,) = vllm.requests
    assert request["model"] == "nvidia/omni"
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    assert (request["temperature"], request["top_k"]) == (0.2, 1)
    audio, text = request["messages"][0]["content"]
    assert (audio["type"], text["type"]) == ("audio_url", "text")


def test_the_audio_arrives_as_it_was() -> None:
    request = chat_request("m", AUDIO, DecodeOptions())
    url = request["messages"][0]["content"][0]["audio_url"]["url"]
    data = base64.b64decode(url.removeprefix("data:audio/wav;base64,"), validate=True)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.abs(samples - AUDIO.samples).max() <= 1 / 32768


def test_the_token_limit_grows_with_the_audio() -> None:
    half = Audio(AUDIO.samples[:SAMPLE_RATE])
    long, short = (chat_request("m", audio, DecodeOptions()) for audio in (AUDIO, half))
    assert long["max_tokens"] - short["max_tokens"] == 12


def test_hints_are_part_of_the_instruction() -> None:
    options = DecodeOptions("en", "a talk on weather", ("isobar", "Beaufort"), 0.7)
    request = chat_request("m", AUDIO, options)
    text = request["messages"][0]["content"][1]["text"]
    assert all(hint in text for hint in ("isobar, Beaufort", "a talk on weather", "is en"))
    assert request["temperature"] == 0.7


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("  two\n words ", "two words"),
        ("<think>hm\nhm</think>yes", "yes"),
        ("", ""),
        (None, ""),
    ],
)
def test_answers_are_read(content: str | None, text: str) -> None:
    assert read_answer(completion(content).json(), 0) == (text, ())


def test_an_answer_cut_at_the_token_limit_is_a_warning() -> None:
    assert "cut" in transcribe(Vllm(completion("on and on", "length"))).warnings[0]


@pytest.mark.parametrize("body", [None, [], {}, {"choices": []}, {"choices": [{"message": 3}]}])
def test_what_is_no_completion_is_an_error(body: object) -> None:
    with pytest.raises(EngineFailed):
        read_answer(body, 0)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    vllm = Vllm(httpx.Response(status), httpx.ConnectError("gone"), completion("at last"))
    assert transcribe(vllm).text == "at last"
    assert len(vllm.requests) == 3


def test_retry_after_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("asr.engines.vllm_http.asyncio.sleep", sleep)
    vllm = Vllm(httpx.Response(429, headers={"retry-after": "7"}), completion("ok"))
    assert transcribe(vllm).text == "ok"
    assert waits == [7.0]


def test_a_refusal_is_not_repeated() -> None:
    vllm = Vllm(httpx.Response(400, json={"error": "no"}))
    with pytest.raises(EngineFailed) as caught:
        transcribe(vllm)
    assert caught.value.chunk_index == 3
    assert len(vllm.requests) == 1


def test_a_server_that_stays_away_is_unavailable() -> None:
    vllm = Vllm(*[httpx.Response(503)] * 4)
    with pytest.raises(EngineUnavailable, match="503"):
        transcribe(vllm)
    assert vllm.answers == []


def test_a_chunk_that_takes_too_long_times_out() -> None:
    with pytest.raises(EngineTimeout):
        transcribe(Vllm(httpx.ReadTimeout("slow")))


def test_an_unreachable_server_is_told_when_opening() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(EngineUnavailable, match="vllm:8000"):
        transcribe(refuse)


def test_the_name_says_which_model_answers() -> None:
    async def name() -> str:
        engine = VllmHttpEngine("http://vllm", httpx.MockTransport(Vllm()))
        await engine.open()
        await engine.close()
        return engine.name

    assert asyncio.run(name()) == "omni (nvidia/omni on vLLM)"


def test_the_settings_choose_the_engine() -> None:
    assert load_engine(Settings(engine="pocketsphinx")).model == "pocketsphinx"
    assert load_engine(Settings(vllm_url="http://vllm")).model == "omni"
    with pytest.raises(EngineUnavailable, match="ASR_VLLM_URL"):
        load_engine(Settings(engine="omni"))
