"""Runs in the child processes: the template loads the model, each fork recognises one chunk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asr import pcm
from asr.engines.moonshine.answer import read_answer
from asr.engines.moonshine.folder import TOKENIZER
from asr.engines.moonshine.model import Model
from asr.engines.moonshine.silence import is_doubted, is_noise
from asr.engines.moonshine.tokens import Tokenizer

if TYPE_CHECKING:
    from asr.engines.moonshine.answer import Answer
    from asr.workers.template import Channel

NOTHING: Final[dict[str, Any]] = {
    "text": "",
    "confidences": (),
    "avg_logprob": None,
    "is_cut": False,
    "n_left_out": 0,
}
"""The message for sound without speech."""

_loaded: tuple[Model, Tokenizer] | None = None


def load_template(folder: str) -> None:
    """Load a model in the template process."""
    global _loaded  # every forked child inherits it
    _loaded = Model(Path(folder)), Tokenizer.read(Path(folder) / TOKENIZER)


def recognise_job(channel: Channel) -> None:
    """Recognise one chunk of PCM16."""
    if _loaded is None:
        raise RuntimeError("the template process did not load the model")
    model, tokenizer = _loaded
    request, data = channel.receive()
    if not data.strip(b"\0"):  # digital silence
        channel.send(NOTHING)
        return
    decoded = model.decode(pcm.to_float32(pcm.from_bytes(data)), request["padding"])
    channel.send(_judged(read_answer(decoded, tokenizer)))


def _judged(answer: Answer) -> dict[str, Any]:
    """The message for an answer; without text if nobody speaks or the words are unsure.

    `n_left_out` counts the unsure words, because they may be speech.
    """
    if is_noise(answer):
        return NOTHING
    if is_doubted(answer):
        return {**NOTHING, "n_left_out": len(answer.words)}
    return {
        "text": answer.text,
        "confidences": answer.confidences,
        "avg_logprob": answer.avg_logprob,
        "is_cut": answer.is_cut,
        "n_left_out": 0,
    }
