"""Check that a server asks the model as it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.doctor.checks import Check, body_of
from asr.engines.omni.trained_form import ROUTE, asks, is_trained

if TYPE_CHECKING:
    import httpx

    from asr.engines.omni.dialects import Dialect


def check_instruction(client: httpx.Client, model: str, dialect: Dialect) -> Check:
    """Compare the tokens of a request with those of the training's text.

    The server's own template and tokenizer are used. The model still works if they differ, because
    then we leave it to the server to place the audio.
    """
    answers = [client.post(ROUTE, json=body) for body in asks(model, dialect)]
    if not all(answer.is_success for answer in answers):
        fix = f"let {ROUTE} pass the proxy before the server, if there is one"
        return Check("instruction", "warn", f"{ROUTE} does not show the prompt", fix)
    expected, rendered = map(body_of, answers)
    if is_trained(expected, rendered):
        return Check("instruction", "ok", "the prompt is that of the training, token for token")
    fix = "start vLLM without --chat-template, so that it uses the model's own"
    return Check("instruction", "warn", "the prompt is not that of the training", fix)
