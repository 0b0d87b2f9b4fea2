"""The whole service as a real LitServe process, with real vLLM servers."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.paths import SAMPLES
from tests.support.serving import PATH, REAL, make_wav, serving, wait_for
from tests.vllm.tiny_text import SENTENCE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

OUTAGE_SECONDS = 150
"""An outage of 60 s is waited for; what comes after it is an error that may be retried."""


def service(*servers, **env):
    url = ",".join(server.url for server in servers)
    # An aligner's witness would doubt all text from random weights.
    env = {"ASR_ALIGNER": "none"} | env
    return serving(*REAL, ASR_ENGINE="omni", ASR_VLLM_URL=url, **env)


def post(service, content, timeout=OUTAGE_SECONDS, **fields):
    files = {"file": ("sound.wav", content)}
    return httpx.post(service.url + PATH, files=files, data=fields, timeout=timeout)


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_recording_is_transcribed_and_every_word_has_a_time(parsing, audio_format):
    with service(parsing, ASR_VLLM_AUDIO_FORMAT=audio_format) as running:
        memo = (SAMPLES / "memo.m4a").read_bytes()
        answer = post(running, memo, response_format="full_json")
        assert answer.status_code == 200, answer.text
        transcript = answer.json()
        words = [word for segment in transcript["segments"] for word in segment["words"]]
        assert " ".join(word["text"] for word in words).startswith(SENTENCE)
        assert all(word["start"] <= word["end"] for word in words)
        assert "nemotron" in transcript["engine"]
        srt = post(running, memo, response_format="srt")
        assert "hello world" in srt.text
        assert "-->" in srt.text


def test_a_prompt_and_keywords_are_taken(parsing):
    with service(parsing) as running:
        fields = {"prompt": "About <|im_end|> foxes.", "keywords[]": ["fox"], "language": "en"}
        answer = post(running, make_wav(3.0), **fields)
        assert answer.json()["text"] == SENTENCE


def test_a_client_that_leaves_takes_its_request_out_of_vllm(parsing):
    with service(parsing) as running:
        finished, aborted = parsing.finished(), parsing.aborted()
        with parsing.frozen():
            with pytest.raises(httpx.ReadTimeout):
                post(running, make_wav(3.0), timeout=8)
            wait_for(lambda: parsing.aborted() > aborted, 60, "the end of the request")
        wait_for(lambda: parsing.running() == 0, 60, "an empty batch")
        assert parsing.finished() == finished, "it came to its own end"
        assert post(running, make_wav(2.0)).json()["text"] == SENTENCE


def test_a_server_that_is_told_to_end_leaves_no_half_transcripts(parsing, plain):
    """vLLM aborts running requests and may answer them with 200 and a partial text."""
    with service(parsing, plain) as both, ThreadPoolExecutor() as threads:
        with plain.frozen():
            spread = [threads.submit(post, both, make_wav(2.0 + n)) for n in range(6)]
            time.sleep(3)  # half of them hang in the frozen server now
            plain.ask_to_end()
            time.sleep(1)
        assert [it.result().json().get("text") for it in spread] == [SENTENCE] * 6
    plain.kill()
    plain.start()
    plain.wait()


def test_a_server_that_dies_and_returns(parsing, plain):
    """With a second server, clients notice nothing; without, requests wait or get 503."""
    with (
        service(parsing, plain) as both,
        service(plain) as alone,
        ThreadPoolExecutor() as threads,
    ):
        with plain.frozen():
            spread = [threads.submit(post, both, make_wav(2.0 + n)) for n in range(6)]
            waiting = threads.submit(post, alone, make_wav(3.0))
            time.sleep(3)  # half of them hang in the frozen server now
            plain.kill()
        assert [it.result().json().get("text") for it in spread] == [SENTENCE] * 6
        assert both.is_ready()
        assert not waiting.done()
        plain.start()
        plain.wait()
        answer = waiting.result()
        assert answer.status_code in (200, 503), answer.text
        assert answer.status_code == 503 or answer.json()["text"] == SENTENCE
        print(f"the request that was in the killed server was answered {answer.status_code}")
        wait_for(lambda: post(alone, make_wav(2.0)).status_code == 200, 60, "an answer")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: plain.finished() > 1, 60)
        before = plain.finished()
        for _ in range(4):
            assert post(both, make_wav(2.0)).json()["text"] == SENTENCE
        assert plain.finished() > before, "the server that returned is not asked"
