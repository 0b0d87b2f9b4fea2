"""The HTTP engine against real vLLM with random weights; README.md lists what is not tested."""

import asyncio
import base64
import json

import pytest

from asr.config import DecodeOptions
from asr.engines.omni import http as vllm_http
from asr.engines.omni.dialects import DIALECTS, request_body, to_wav
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.engines.omni.instruction import Question
from asr.errors import EngineFailed
from asr.types import Audio, Chunk
from tests.support.makers import tone
from tests.support.serving import wait_for
from tests.vllm.servers import BATCH, MAX_LENGTH, MODEL
from tests.vllm.sounds import sound
from tests.vllm.tiny_text import AUDIO_TOKENS, SENTENCE, THOUGHT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

OPTIONS = DecodeOptions()
N_WORDS = len(SENTENCE.split())


def chunk_of(audio, index=0):
    return Chunk(index, 0, len(audio.samples))


def body_of(audio, **changes):
    """Our own request with some fields changed; the text says where the audio goes."""
    question = Question(is_placed=True)
    body = json.loads(request_body(MODEL, audio, OPTIONS, DIALECTS["vllm"], "wav", question))
    return json.dumps(body | changes)


def endless(monkeypatch, n_tokens):
    """Make requests take long: the model continues past its end, up to a limit."""

    def longer(*arguments):
        body = json.loads(request_body(*arguments))
        return json.dumps(body | {"ignore_eos": True, "max_tokens": n_tokens}).encode()

    monkeypatch.setattr(vllm_http, "request_body", longer)


def with_engine(work, *urls, **options):
    """Run a coroutine function on an open engine."""

    async def run():
        engine = VllmHttpEngine(VllmOptions(urls=urls, **options))
        try:
            await engine.open()
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def transcribe(server, audio, **options):
    async def work(engine):
        return await engine.transcribe(chunk_of(audio), audio, OPTIONS)

    return with_engine(work, server.url, **options)


# --- what we send -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "audio_format"),
    [(name, kind) for name in ("vllm", "llamacpp") for kind in DIALECTS[name].audio_formats],
)
def test_every_form_of_audio_that_we_send_is_heard(parsing, dialect, audio_format):
    heard = transcribe(parsing, sound(3.0), dialect=dialect, audio_format=audio_format)
    assert (heard.text, heard.is_cut) == (SENTENCE, False)
    assert len(heard.word_confidences) == N_WORDS
    assert -1 < heard.avg_logprob < 0


@pytest.mark.parametrize(
    ("seconds", "n_tokens"), [(1, 13), (2, 25), (10, 125), (20, 250), (29.99, 375), (30, 375)]
)
def test_a_second_of_audio_is_twelve_and_a_half_tokens(parsing, seconds, n_tokens):
    answer = parsing.chat(body_of(sound(seconds), return_token_ids=True)).json()
    ids = answer["prompt_token_ids"]
    assert ids.count(AUDIO_TOKENS.inside) == n_tokens
    first = ids.index(AUDIO_TOKENS.start)
    assert ids[first + n_tokens + 1] == AUDIO_TOKENS.end, "the audio is in one piece"


def test_the_audio_comes_before_the_text(parsing):
    answer = parsing.chat(body_of(sound(1.0), return_token_ids=True)).json()
    ids = answer["prompt_token_ids"]
    assert ids.index(AUDIO_TOKENS.end) < 30 < len(ids), "all that follows is our instruction"


def test_what_is_heard_reaches_the_model(parsing):
    """The text is always the same here; its confidence depends on the audio."""
    one, same = (transcribe(parsing, sound(3.0, seed=1)) for _ in range(2))
    other = transcribe(parsing, Audio(tone(3.0)))
    # The weights nearly fix the text, so the audio moves its probability by a ten-thousandth only.
    assert one.avg_logprob == pytest.approx(same.avg_logprob, rel=1e-7)
    assert one.avg_logprob != pytest.approx(other.avg_logprob, rel=1e-5)


# --- thinking -----------------------------------------------------------------------------------


def test_nothing_is_lost_with_or_without_a_reasoning_parser(parsing, plain):
    for server in (parsing, plain):
        message = server.chat(body_of(sound(2.0))).json()["choices"][0]["message"]
        assert message["content"] == SENTENCE
        assert not message.get("reasoning")
        assert transcribe(server, sound(2.0)).text == SENTENCE


def test_thinking_would_be_on_if_we_did_not_switch_it_off(parsing, plain):
    body = body_of(sound(2.0), chat_template_kwargs={})
    message = parsing.chat(body).json()["choices"][0]["message"]
    assert THOUGHT in message["reasoning"]
    assert THOUGHT in plain.chat(body).json()["choices"][0]["message"]["content"]


# --- errors -------------------------------------------------------------------------------------


def replaced_audio(data, times=1):
    body = json.loads(body_of(sound(1.0)))
    parts = body["messages"][0]["content"]
    parts[0]["audio_url"]["url"] = "data:audio/wav;base64," + base64.b64encode(data).decode()
    body["messages"][0]["content"] = parts[:1] * times + parts[1:]
    return json.dumps(body)


def test_bytes_that_are_no_audio_are_refused_and_the_server_lives_on(parsing):
    answer = parsing.chat(replaced_audio(b"no audio at all"))
    assert answer.status_code in (400, 500), "500 where vLLM decodes with soundfile alone"
    assert transcribe(parsing, sound(1.0)).text == SENTENCE


def test_a_second_audio_is_refused(parsing):
    answer = parsing.chat(replaced_audio(to_wav(sound(1.0)), times=2))
    assert answer.status_code == 400
    assert "At most 1 audio" in answer.json()["error"]["message"]


def test_audio_beyond_the_limit_of_the_server_says_which_limit(parsing, plain):
    with pytest.raises(EngineFailed, match="VLLM_MAX_AUDIO_DECODE_DURATION_S"):
        transcribe(parsing, sound(601.0))
    answer = plain.chat(body_of(sound(601.0), max_tokens=20))  # its limit is 700 s
    assert answer.json()["choices"][0]["message"]["content"] == SENTENCE
    assert answer.json()["usage"]["prompt_tokens"] > 601 * 12.5


def test_what_does_not_fit_the_model_is_refused_and_says_why(parsing, plain):
    with pytest.raises(EngineFailed, match=str(MAX_LENGTH)):
        transcribe(plain, sound(660.0))
    answer = parsing.chat(body_of(sound(1.0), max_tokens=MAX_LENGTH + 1))
    assert answer.status_code == 400
    assert str(MAX_LENGTH) in answer.json()["error"]["message"]


# --- many and lost requests ---------------------------------------------------------------------


def test_a_cancelled_chunk_is_aborted_in_the_server(parsing):
    async def work(engine):
        audio = sound(2.0)
        finished, added, aborted = parsing.finished(), parsing.added(), parsing.aborted()
        with parsing.frozen():  # otherwise it may finish first
            task = asyncio.create_task(engine.transcribe(chunk_of(audio), audio, OPTIONS))
            await asyncio.to_thread(wait_for, lambda: parsing.added() > added, 60, "a request")
            task.cancel()
            await asyncio.to_thread(wait_for, lambda: parsing.aborted() > aborted, 60, "its end")
        await asyncio.to_thread(wait_for, lambda: parsing.running() == 0, 60, "no request")
        assert parsing.finished() == finished, "it came to its own end"

    with_engine(work, parsing.url)


def test_chunks_in_flight_fill_the_batch(parsing, monkeypatch):
    endless(monkeypatch, 2000)  # so that the first still runs when the last arrives

    async def work(engine):
        sounds = [sound(2.0 + index / 10, seed=index) for index in range(BATCH)]
        tasks = [
            asyncio.create_task(engine.transcribe(chunk_of(it, index), it, OPTIONS))
            for index, it in enumerate(sounds)
        ]
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, await asyncio.to_thread(parsing.running))
            await asyncio.sleep(0.02)
        heard = [await task for task in tasks]
        assert [it.chunk_index for it in heard] == list(range(BATCH))
        assert all(it.text.startswith(SENTENCE) and it.is_cut for it in heard)
        return most

    assert with_engine(work, parsing.url) == BATCH
    assert parsing.running() == 0


def test_chunks_are_spread_over_the_servers(parsing, plain):
    before = [server.finished() for server in (parsing, plain)]

    async def work(engine):
        assert engine.slots == 128
        sounds = [sound(1.0, seed=index) for index in range(20)]
        heard = await asyncio.gather(
            *(engine.transcribe(chunk_of(it), it, OPTIONS) for it in sounds)
        )
        assert {it.text for it in heard} == {SENTENCE}

    with_engine(work, parsing.url, plain.url)
    shares = [s.finished() - b for s, b in zip((parsing, plain), before, strict=True)]
    assert sum(shares) == 20
    assert min(shares) >= 5
