"""The tokens that real vLLM makes of our requests, compared with those of the training.

The tokenizer and the chat template are ours: the template does with audio what NVIDIA's does.
`asr doctor` makes the same comparison on a server with the real ones.
"""

from itertools import groupby

import httpx
import pytest

from asr.doctor.instruction import check_instruction
from asr.engines.omni.dialects import DIALECTS, request_body
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.engines.omni.instruction import Question
from asr.engines.omni.trained_form import ROUTE
from tests.engines.omni.test_instruction import TRAINED
from tests.vllm.servers import MODEL
from tests.vllm.sounds import sound
from tests.vllm.test_engine import OPTIONS, with_engine
from tests.vllm.tiny_text import AUDIO_TOKENS, SENTENCE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def ids_of(server, question):
    """The tokens of our request in vLLM; a row of audio tokens counts once."""
    body = request_body(MODEL, sound(2.0), OPTIONS, DIALECTS["vllm"], "wav", question)
    answer = server.chat(body[:-1] + b', "return_token_ids": true}').json()
    assert answer["choices"][0]["message"]["content"] == SENTENCE
    rows = groupby(answer["prompt_token_ids"])
    return [it for token, row in rows for it in ([token] if token == AUDIO_TOKENS.inside else row)]


def encoded(server, text):
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    return httpx.post(server.url + ROUTE, json=body, timeout=60).json()["tokens"]


def test_vllm_builds_the_prompt_of_the_training_token_for_token(parsing, plain):
    turn = f"<|im_start|>user\n<so_start><so_embedding><so_end>{TRAINED}<|im_end|>\n"
    for server in (parsing, plain):
        expected = encoded(server, turn + "<|im_start|>assistant\n<think></think>")
        assert ids_of(server, Question(is_placed=True)) == expected


def test_without_our_placeholder_the_template_adds_a_line_break(parsing):
    """This is why the text says where the audio goes."""
    ids = ids_of(parsing, Question())
    after = ids[ids.index(AUDIO_TOKENS.end) + 1 :]
    instruction = TRAINED.removeprefix(". ")
    assert instruction.startswith("\n")
    assert after[: len(encoded(parsing, instruction))] == encoded(parsing, instruction)


def test_the_engine_and_the_doctor_recognise_the_form_of_the_training(parsing, plain):
    async def asked(engine):
        return engine._question

    for server in (parsing, plain):
        assert with_engine(asked, server.url) == Question(is_placed=True)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert check_instruction(client, MODEL, DIALECTS["vllm"]).level == "ok"
    assert VllmHttpEngine(VllmOptions((parsing.url,))).question_id == Question().fingerprint
