"""What the processes of the pool run: load the model once, then recognise one chunk in a fork."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asr import pcm
from asr.engines.moonshine.answer import read_answer
from asr.engines.moonshine.folder import TOKENIZER
from asr.engines.moonshine.model import Model
from asr.engines.moonshine.silence import is_invented
from asr.engines.moonshine.tokens import Tokenizer

if TYPE_CHECKING:
    from asr.workers.template import Channel

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
        channel.send({"text": "", "confidences": [], "avg_logprob": None, "is_cut": False})
        return
    decoded = model.decode(pcm.to_float32(pcm.from_bytes(data)), request["padding"])
    answer = read_answer(decoded, tokenizer)
    is_speech = not is_invented(answer)
    channel.send(
        {
            "text": answer.text if is_speech else "",
            "confidences": answer.confidences if is_speech else [],
            "avg_logprob": answer.avg_logprob if is_speech else None,
            "is_cut": answer.is_cut and is_speech,
        }
    )
