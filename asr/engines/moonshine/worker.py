"""Runs in the child processes: the template loads the model, each fork recognises one chunk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr import pcm
from asr.engines.moonshine.answer import read_answer
from asr.engines.moonshine.folder import TOKENIZER
from asr.engines.moonshine.model import MIN_SAMPLES, Model
from asr.engines.moonshine.silence import is_doubted, is_noise
from asr.engines.moonshine.tokens import Tokenizer
from asr.errors import EngineUnavailable

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

_template: tuple[Model, Tokenizer] | EngineUnavailable | None = None


def load_template(folder: str) -> None:
    """Load a model in the template process. An error is kept for `check_job`."""
    global _template  # every forked child inherits it
    try:
        _template = _load(Path(folder))
    except Exception as error:  # noqa: BLE001  # of onnxruntime, the file system or our own code
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _template = EngineUnavailable(reason)


def _load(folder: Path) -> tuple[Model, Tokenizer]:
    """Load a model, and recognise a bit of sound.

    This finds files that load but do not fit together.
    """
    model, tokenizer = Model(folder), Tokenizer.read(folder / TOKENIZER)
    if model.n_tokens != len(tokenizer):
        raise EngineUnavailable(f"{TOKENIZER} belongs to another model")
    model.decode(np.zeros(MIN_SAMPLES, np.float32), 0.0)
    return model, tokenizer


def _loaded() -> tuple[Model, Tokenizer]:
    if isinstance(_template, tuple):
        return _template
    raise _template or EngineUnavailable("the template process did not load the model")


def check_job(channel: Channel) -> None:
    """Answer if the model is loaded, otherwise with the reason."""
    channel.receive()
    _loaded()
    channel.send({})


def recognise_job(channel: Channel) -> None:
    """Recognise one chunk of PCM16."""
    model, tokenizer = _loaded()
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
