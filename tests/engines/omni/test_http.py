"""The Omni HTTP engine against fake servers: requests and answers are tested, models are not.

Connections are tested on a real socket (`tests.support.chat_server`), all else on httpx's mock
transport.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import soundfile

from asr.config import DecodeOptions
from asr.engines import load_engine
from asr.engines.omni import dialects, http as vllm_http
from asr.engines.omni.dialects import DIALECTS, read_answer, request_body
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.engines.omni.instruction import INSTRUCTION, Question, instruction, placed
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, InvalidOption
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Hypothesis
from tests.support import omni_template
from tests.support.chat_server import AUDIO, CHUNK, URL, Vllm, ask, completion, ok, running

if TYPE_CHECKING:
    from collections.abc import Callable


def transcribe(
    handler: Callable[[httpx.Request], httpx.Response],
    decode: DecodeOptions | None = None,
    **options: Any,
) -> Hypothesis:
    async def run() -> Hypothesis:
        given = {"urls": (URL,)} | options
        engine = VllmHttpEngine(VllmOptions(**given), httpx.MockTransport(handler))
        async with running(engine):
            return await engine.transcribe(CHUNK, AUDIO, decode or DecodeOptions())

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _soon(impatient: None) -> None:
    """Retries and health checks have almost no delay."""


# --- the request, in every dialect --------------------------------------------------------------


def body_in(dialect: str, audio_format: str = "wav", **decode: Any) -> dict[str, Any]:
    options = DecodeOptions(**decode)
    return json.loads(request_body("m", AUDIO, options, DIALECTS[dialect], audio_format))


def test_the_request_is_what_the_model_wants() -> None:
    vllm = Vllm(ok("hello there"))
    hypothesis = transcribe(vllm)
    assert (hypothesis.chunk_index, hypothesis.text, hypothesis.words) == (3, "hello there", ())
    (body,) = vllm.bodies
    assert body["model"] == "nvidia/omni"
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.0, 1, 56)
    assert body["logprobs"] is True
    (message,) = body["messages"]
    audio, text = message["content"]
    assert (audio["type"], text["type"]) == ("audio_url", "text")


class Tokenizing(Vllm):
    """Shows the prompts that its template makes, as vLLM does."""

    def __init__(self, *answers, always_adds=False, shown=200):
        super().__init__(*answers)
        self.always_adds = always_adds
        self.shown = shown

    def __call__(self, request):
        if request.url.path != "/tokenize":
            return super().__call__(request)
        body = json.loads(request.content)
        text = body.get("prompt")
        if text is None:
            prompt = omni_template.render(body["messages"], always_adds=self.always_adds)
            text = omni_template.with_audio(prompt)
        return httpx.Response(self.shown, json={"tokens": omni_template.encode(text)})


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        (Tokenizing(ok()), placed(INSTRUCTION)),
        (Tokenizing(ok(), always_adds=True), INSTRUCTION),
        (Tokenizing(ok(), shown=404), INSTRUCTION),
        (Vllm(ok()), INSTRUCTION),
    ],
    ids=["as trained", "another template", "no route", "another body"],
)
def test_the_text_places_the_audio_where_that_gives_the_prompt_of_the_training(server, asked):
    transcribe(server)
    (body,) = server.bodies
    (message,) = body["messages"]
    assert [part["type"] for part in message["content"]] == ["audio_url", "text"]
    assert message["content"][1]["text"] == asked


def test_each_server_gets_the_text_that_suits_it_even_if_it_comes_up_later():
    """Two placeholders for one audio would be refused."""
    servers = {
        "one": Tokenizing(*[ok() for _ in range(9)]),
        "two": Tokenizing(*[ok() for _ in range(9)], always_adds=True),
    }
    down = {"two"}
    n_asked = Counter()

    def network(request):
        if request.url.host in down:
            raise httpx.ConnectError("down")
        n_asked[request.url.host] += request.url.path == "/tokenize"
        return servers[request.url.host](request)

    def texts(name):
        return {body["messages"][0]["content"][1]["text"] for body in servers[name].bodies}

    async def run():
        urls = ("http://one:8000", "http://two:8000")
        engine = VllmHttpEngine(VllmOptions(urls), httpx.MockTransport(network))
        async with running(engine):
            first = engine.question_id
            down.clear()
            two = engine._servers.all[1]
            engine._servers.answered(two)
            await asyncio.gather(*(ask(engine) for _ in range(6)))
            assert first != engine.question_id == Question().fingerprint
            assert texts("one") == {placed(INSTRUCTION)}
            assert texts("two") == {INSTRUCTION}
            servers["two"].always_adds = False
            engine._servers.lost(two, "restart")
            engine._servers.answered(two)
            await asyncio.gather(*(ask(engine) for _ in range(6)))
            assert engine.question_id == first
            assert texts("two") == {INSTRUCTION, placed(INSTRUCTION)}

    asyncio.run(run())
    assert n_asked == {"one": 2, "two": 4}, "each server is asked twice each time it comes up"


def test_a_template_that_changes_without_an_outage_is_noticed():
    class Strict(Tokenizing):
        def __call__(self, request):
            is_chat = request.url.path == "/v1/chat/completions"
            if is_chat and self.always_adds and b"so_embedding" in request.content:
                return httpx.Response(400, json={"error": {"message": "2 placeholders"}})
            return super().__call__(request)

    server = Strict(*[ok("hello") for _ in range(10)])

    async def run():
        all_sent = asyncio.Barrier(8)

        async def answer(request):
            found = server(request)
            if found.status_code == 400:
                await all_sent.wait()
            return found

        engine = VllmHttpEngine(VllmOptions((URL,)), httpx.MockTransport(answer))
        async with running(engine):
            assert await ask(engine) == "hello"
            server.always_adds = True
            # The first one that is refused asks for the template. The others must not fail.
            texts = await asyncio.gather(*(ask(engine) for _ in range(8)))
            assert texts == ["hello"] * 8

    asyncio.run(run())
    assert server.bodies[-1]["messages"][0]["content"][1]["text"] == INSTRUCTION


@pytest.mark.parametrize("shown", [503, 429])
def test_a_server_that_is_busy_is_asked_later_how_it_builds_the_prompt(shown, monkeypatch):
    monkeypatch.setattr(vllm_http, "ASK_AGAIN_SECONDS", 0.0)
    server = Tokenizing(ok(), ok(), shown=shown)

    async def run():
        engine = VllmHttpEngine(VllmOptions((URL,)), httpx.MockTransport(server))
        async with running(engine):
            await ask(engine)
            server.shown = 200
            await ask(engine)

    asyncio.run(run())
    texts = [body["messages"][0]["content"][1]["text"] for body in server.bodies]
    assert texts == [INSTRUCTION, placed(INSTRUCTION)]


@pytest.mark.parametrize(("asked", "drawn"), [(None, 0.7), (0.0, 0.7), (0.6, 0.8), (1.0, 1.0)])
def test_a_second_attempt_has_a_higher_temperature(asked: float | None, drawn: float) -> None:
    vllm = Vllm(ok("hello there"))

    async def run() -> Hypothesis:
        engine = VllmHttpEngine(VllmOptions((URL,)), httpx.MockTransport(vllm))
        async with running(engine):
            return await engine.retry(CHUNK, AUDIO, DecodeOptions(temperature=asked))

    assert asyncio.run(run()).text == "hello there"
    (body,) = vllm.bodies
    assert body["temperature"] == pytest.approx(drawn)
    assert body["top_k"] == 20  # with a top_k of 1 the temperature has no effect


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_the_audio_arrives_as_it_was(audio_format: str) -> None:
    url = body_in("vllm", audio_format)["messages"][0]["content"][0]["audio_url"]["url"]
    data = base64.b64decode(url.removeprefix(f"data:audio/{audio_format};base64,"), validate=True)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.format, file.subtype) == (audio_format.upper(), "PCM_16")
        assert (file.samplerate, file.channels) == (SAMPLE_RATE, 1)
        assert file.read(dtype="int16").astype("<i2").tobytes() == AUDIO.pcm16()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_users_say_does_not_become_audio(dialect: str) -> None:
    mark = dialects._AUDIO.decode()
    options = DecodeOptions(prompt=f'{mark}", "data": {mark}', keywords=(mark,))
    body = json.loads(request_body(mark, AUDIO, options, DIALECTS[dialect], "wav"))
    audio, text = body["messages"][-1]["content"]
    assert mark not in json.dumps(audio)
    assert text["text"] == instruction(options)
    assert mark in text["text"]
    assert body["model"] == mark


@pytest.mark.parametrize(
    ("dialect", "part", "top_k", "thinking"),
    [
        ("vllm", "audio_url", True, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("sglang", "audio_url", True, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("trtllm", "audio_url", True, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("nim", "audio_url", True, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llamacpp", "input_audio", True, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("ollama", "input_audio", False, {"reasoning_effort": "none"}),
    ],
)
def test_each_dialect_has_its_fields(dialect, part, top_k, thinking) -> None:
    body = body_in(dialect)
    user = body["messages"][-1]
    audio = user["content"][0]
    assert audio["type"] == part
    if part == "input_audio":
        assert audio["input_audio"]["format"] == "wav"
        assert base64.b64decode(audio["input_audio"]["data"])[:4] == b"RIFF"
    assert ("top_k" in body) == top_k
    assert {
        key: body[key] for key in ("chat_template_kwargs", "reasoning_effort") if key in body
    } == (thinking)
    assert body["logprobs"] is True
    assert [message["role"] for message in body["messages"]] == (
        ["system", "user"] if dialect == "nim" else ["user"]
    )


def test_the_settings_name_all_dialects() -> None:
    for dialect in DIALECTS:
        engine = load_engine(Settings(vllm_url=URL, vllm_dialect=dialect))
        assert dialect in engine.name


@pytest.mark.parametrize("dialect", ["llamacpp", "ollama", "nim"])
def test_a_format_that_the_server_does_not_decode_is_refused_at_once(dialect: str) -> None:
    settings = Settings(vllm_url=URL, vllm_dialect=dialect, vllm_audio_format="flac")
    with pytest.raises(InvalidOption, match="decodes wav only") as caught:
        load_engine(settings)
    assert caught.value.name == "vllm_audio_format"


# --- the answer ---------------------------------------------------------------------------------


def test_log_probabilities_become_confidences() -> None:
    tokens = [
        {"token": "caf", "bytes": list(b"caf"), "logprob": -0.1},
        {"token": "\ufffd", "bytes": list("\u00e9".encode()), "logprob": -0.3},
        {"token": " open", "bytes": None, "logprob": -1.0},
        {"token": "<|im_end|>", "bytes": [], "logprob": -9.0},
    ]
    heard = transcribe(Vllm(ok("caf\u00e9 open", logprobs={"content": tokens})))
    assert heard.text == "caf\u00e9 open"
    assert heard.word_confidences == pytest.approx((0.8187, 0.3679), abs=1e-4)
    assert heard.avg_logprob == pytest.approx(-1.4 / 3)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_without_log_probabilities_there_is_no_confidence(logprobs: object) -> None:
    heard = read_answer(completion("yes", logprobs=logprobs), 0)
    assert (heard.text, heard.word_confidences, heard.avg_logprob) == ("yes", None, None)


def test_an_answer_without_content_is_empty() -> None:
    assert read_answer(completion(None), 0).text == ""


def test_an_answer_cut_at_the_token_limit_is_marked() -> None:
    assert transcribe(Vllm(httpx.Response(200, json=completion("on", "length")))).is_cut
    assert not transcribe(Vllm(ok())).is_cut


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"choices": []}, {"choices": [{"message": 3}]}, completion(7),
        completion("x", logprobs={"content": [{"token": 1}]}),
        completion("x", logprobs={"content": [{"token": "x", "bytes": [999], "logprob": 0}]}),
    ],
)  # fmt: skip
def test_what_is_no_completion_is_an_error(body: object) -> None:
    with pytest.raises(EngineFailed, match="not a chat completion") as caught:
        read_answer(body, 5)
    assert caught.value.chunk_index == 5


def test_a_body_that_is_no_json_is_an_error() -> None:
    with pytest.raises(EngineFailed, match="not a chat completion"):
        transcribe(Vllm(httpx.Response(200, text="<html>")))


# --- retries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_temporary_failure_is_retried(status: int) -> None:
    vllm = Vllm(httpx.Response(status), httpx.ConnectError("gone"), ok())
    assert transcribe(vllm).text == "at last"
    assert len(vllm.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 415, 422])
def test_a_refusal_is_not_repeated_and_its_reason_is_passed_on(status: int) -> None:
    vllm = Vllm(httpx.Response(status, json={"error": {"message": "At most 1 audio"}}))
    with pytest.raises(EngineFailed, match=f"status {status}: At most 1 audio") as caught:
        transcribe(vllm)
    assert caught.value.chunk_index == 3
    assert len(vllm.requests) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too long"}}, ": too long"),
        ({"error": "too long"}, ": too long"),
        ({"message": "too long", "object": "error"}, ": too long"),
        (
            {"error": {"message": f"bad url data:audio/wav;base64,{'QUJD' * 500}!"}},
            ": bad url ...!",
        ),
        ({"error": {"message": "word " * 200}}, ": " + ("word " * 60)),
        ({"detail": [{"input": "secret speech"}]}, ""),
        (["odd"], ""),
    ],
)
def test_messages_of_servers_are_short_and_hold_no_audio(body: object, said: str) -> None:
    with pytest.raises(EngineFailed) as caught:
        transcribe(Vllm(httpx.Response(400, json=body)))
    assert str(caught.value) == f"the server refused the chunk at 0.0 s: status 400{said}"


def test_retry_after_is_waited_for() -> None:
    vllm = Vllm(httpx.Response(429, headers={"retry-after": "0.4"}), ok())
    started = time.perf_counter()
    assert transcribe(vllm).text == "at last"
    assert time.perf_counter() - started >= 0.4


@pytest.mark.parametrize(
    "value", ["soon", "", "-5", "nan", "1.2.3", "Wed, 21 Oct 2015 07:28:00 GMT"]
)
def test_a_retry_after_that_is_past_or_no_time_is_nothing(value: str) -> None:
    vllm = Vllm(httpx.Response(503, headers={"retry-after": value}), ok())
    assert transcribe(vllm).text == "at last"


def test_a_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    asked = vllm_http._retry_after(httpx.Response(429, headers={"retry-after": date}))
    assert 30 < asked <= 60
    late = httpx.Response(429, headers={"retry-after": "9" * 400})
    assert vllm_http._retry_after(late) == vllm_http.MAX_RETRY_AFTER


@pytest.mark.parametrize("finish", ["abort", "cancelled", "error"])
def test_a_server_that_only_breaks_off_gives_no_transcript(finish: str) -> None:
    with pytest.raises(EngineUnavailable, match="aborted the answer"):
        transcribe(Vllm(*[ok("half a sent", finish=finish)] * 4))


def test_a_server_that_only_fails_is_given_up() -> None:
    vllm = Vllm(*[httpx.Response(503, json={"message": "overloaded"})] * 4)
    with pytest.raises(EngineUnavailable, match="503: overloaded"):
        transcribe(vllm)
    assert vllm.answers == []


def test_a_chunk_that_takes_too_long_times_out() -> None:
    with pytest.raises(EngineTimeout, match=r"chunk at 0\.0 s"):
        transcribe(Vllm(httpx.ReadTimeout("slow")))


def test_waits_count_towards_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_http, "ANSWER_BASE", 0.05)
    monkeypatch.setattr(vllm_http, "ANSWER_PER_SECOND", 0.025)
    with pytest.raises(EngineTimeout):
        transcribe(Vllm(httpx.Response(429, headers={"retry-after": "60"})))


def test_delays_grow_and_differ() -> None:
    delays = [[vllm_http._backoff(attempt) for _ in range(50)] for attempt in (1, 2, 3)]
    for attempt, drawn in enumerate(delays):
        assert all(0.005 * 2**attempt <= delay <= 0.01 * 2**attempt for delay in drawn)
        assert len(set(drawn)) > 40


# --- opening ------------------------------------------------------------------------------------


def opened(handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> VllmHttpEngine:
    async def run() -> VllmHttpEngine:
        given = {"urls": (URL,)} | options
        async with running(
            VllmHttpEngine(VllmOptions(**given), httpx.MockTransport(handler))
        ) as it:
            return it

    return asyncio.run(run())


def test_the_name_says_which_model_answers() -> None:
    assert opened(Vllm()).name == "omni (nvidia/omni on vllm)"


def test_a_model_can_be_chosen() -> None:
    vllm = Vllm(ok())
    transcribe(vllm, model="omni-fp8")
    assert vllm.bodies[0]["model"] == "omni-fp8"


def test_an_unreachable_server_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(EngineUnavailable, match="vllm:8000") as caught:
        opened(refuse, urls=("http://user:password@vllm:8000",))
    assert "password" not in str(caught.value)


def test_why_no_server_can_be_used_is_said() -> None:
    with pytest.raises(EngineUnavailable, match=r"vllm:8000 \(/v1/models: status 401\)"):
        opened(lambda _: httpx.Response(401))


@pytest.mark.parametrize("key", ["two\nlines", "caf\u00e9", "end\n"])
def test_an_invalid_key_is_reported_without_its_value(key: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        VllmOptions((URL,), api_key=key)
    assert caught.value.name == "vllm_api_key"
    assert key not in str(caught.value)


@pytest.mark.parametrize("models", [{"data": []}, {"error": "x"}, [], "<html>"])
def test_a_server_without_models_is_none(models: object) -> None:
    with pytest.raises(EngineUnavailable):
        opened(lambda _: httpx.Response(200, json=models))


def two_models(request: httpx.Request) -> httpx.Response:
    model = {"a": "omni-bf16", "b": "omni-fp8"}[request.url.host]
    return httpx.Response(200, json={"data": [{"id": model}]})


def test_servers_with_different_models_need_a_choice() -> None:
    both = ("http://a", "http://b")
    with pytest.raises(EngineUnavailable, match=r"omni-bf16, omni-fp8.*ASR_VLLM_MODEL"):
        opened(two_models, urls=both)
    assert opened(two_models, urls=both, model="omni-fp8").model == "omni-fp8"


def test_there_are_64_slots_for_each_server_unless_set() -> None:
    assert VllmHttpEngine(VllmOptions((URL,))).slots == 64
    assert VllmHttpEngine(VllmOptions((URL, "http://b"))).slots == 128
    assert VllmHttpEngine(VllmOptions((URL,), slots=7)).slots == 7


def test_what_the_model_is_not_made_for_is_a_warning() -> None:
    engine = VllmHttpEngine(VllmOptions((URL,)))
    assert engine.check(DecodeOptions("en", "context", ("term",))) == ()
    assert "English" in engine.check(DecodeOptions("de"))[0]


def test_the_settings_choose_the_engine() -> None:
    assert load_engine(Settings(engine="moonshine")).model == "moonshine-tiny-en"
    engine = load_engine(Settings(vllm_url="http://a/v1/, http://b:8000", engine_slots=5))
    assert (engine.model, engine.slots) == ("omni", 5)
    assert [server.url for server in engine._servers.all] == ["http://a", "http://b:8000"]
    with pytest.raises(EngineUnavailable, match="ASR_VLLM_URL"):
        load_engine(Settings(engine="omni"))


# --- the key ------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vllm = Vllm(httpx.Response(503), httpx.Response(401, json={"error": {"message": "no"}}))
    with pytest.raises(EngineFailed) as caught:
        transcribe(vllm, api_key="sesame")
    assert [it.headers["authorization"] for it in vllm.requests] == ["Bearer sesame"] * 2
    settings = Settings(vllm_api_key="sesame", api_key="sesame")
    options = VllmOptions((URL,), api_key="sesame")
    told = [caplog.text, str(caught.value), repr(settings), repr(options)]
    assert not any("sesame" in text for text in told)


def test_without_a_key_none_is_sent() -> None:
    vllm = Vllm(ok())
    transcribe(vllm)
    assert "authorization" not in vllm.requests[0].headers
