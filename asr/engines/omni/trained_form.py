"""Find out whether a server builds the prompt that the model was trained on.

A chat template stands between our request and the model. vLLM's ``/tokenize`` shows the tokens that
it makes of a request. They are compared with the tokens of the training's text. The server's own
template and tokenizer are used, so the comparison is exact.

The answer matters: where a template puts a placeholder of its own before our text, the prompt would
have two placeholders for one audio.
"""

from __future__ import annotations

import json
import logging
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np

from asr.config import DecodeOptions
from asr.engines.omni.dialects import request_body
from asr.engines.omni.instruction import INSTRUCTION, PLACEHOLDER, Question, placed
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.engines.omni.dialects import Dialect

logger = logging.getLogger(__name__)

TIMEOUT: Final = 30.0
"""Seconds. The first audio after a start may have to wait until vLLM has compiled its code."""
BUSY: Final = frozenset({408, 425, 429})
ROUTE: Final = "/tokenize"
START: Final = "<so_start>"
END: Final = "<so_end>"
TURN_END: Final = "<|im_end|>"
TRAINED: Final = placed(INSTRUCTION).replace(PLACEHOLDER, START + PLACEHOLDER + END) + TURN_END
"""The training's text from the audio to the end of the user's turn. The placeholder stands for all
tokens of the audio."""


_PLACED: Final = Question(is_placed=True)


def asks(
    model: str, dialect: Dialect, question: Question = _PLACED
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two requests to `ROUTE`: for the training's text, and for a chunk of audio.

    Args:
        model: the name of the model.
        dialect: the form of a request with audio.
        question: how we ask.
    """
    silence = Audio(np.zeros(SAMPLE_RATE, np.float32))
    chat = json.loads(request_body(model, silence, DecodeOptions(), dialect, "wav", question))
    rendered = {
        "model": model,
        "messages": chat["messages"],
        "add_generation_prompt": True,
        **dialect.no_thinking,
    }
    return {"model": model, "prompt": TRAINED, "add_special_tokens": False}, rendered


def is_trained(expected: Any, rendered: Any) -> bool:
    """Compare the answers to the requests of `asks`.

    vLLM may show the audio as one placeholder or as all of its tokens, so a row of placeholders
    counts once, and the two tokens around it do not count.
    """
    wanted, given = _tokens(expected), _tokens(rendered)
    start, inside, end = (*wanted[:3], None, None, None)[:3]
    wanted = _reduced(wanted, (start, end), inside)
    given = _reduced(given, (start, end), inside)
    size = len(wanted)
    is_there = any(given[at : at + size] == wanted for at in range(len(given) - size + 1))
    return size > 1 and is_there and given.count(inside) == 1


def _tokens(answer: Any) -> list[int | None]:
    found = answer.get("tokens") if isinstance(answer, dict) else None
    return found if isinstance(found, list) else []


def _reduced(
    tokens: Sequence[int | None], around: Sequence[int | None], inside: int | None
) -> list[int | None]:
    """Return the tokens without those around the audio, and with one placeholder for each audio."""
    reduced: list[int | None] = []
    for token, row in groupby(tokens):
        if token == inside:
            reduced.append(token)
        elif token not in around:
            reduced += row
    return reduced


async def builds_trained_prompt(
    client: httpx.AsyncClient, url: str, model: str, dialect: Dialect
) -> bool | None:
    """Ask a server. False also if it has no such route, and None if it cannot tell now."""
    try:
        answers = [
            await client.post(url + ROUTE, json=body, timeout=TIMEOUT)
            for body in asks(model, dialect)
        ]
        expected, rendered = (answer.raise_for_status().json() for answer in answers)
    except (httpx.HTTPError, ValueError) as error:
        logger.warning("%s does not show how it builds a prompt: %s", url, type(error).__name__)
        return None if _may_pass(error) else False
    if not is_trained(expected, rendered):
        logger.warning("%s does not build the prompt that Omni was trained on", url)
        return False
    return True


def _may_pass(error: Exception) -> bool:
    """Whether the server may tell later: it was busy, starting, or not reached."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status in BUSY or (status >= 500 and status != httpx.codes.NOT_IMPLEMENTED)
    return isinstance(error, httpx.HTTPError)
