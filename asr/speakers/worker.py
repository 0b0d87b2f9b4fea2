"""Runs in the child processes: the template loads the model, each fork does one job.

A job takes its request before it says that the model did not load. Otherwise the parent, which is
still sending, would see a closed socket and not the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr import pcm
from asr.errors import SpeakersUnavailable
from asr.speakers.labels import Heard, count_voices, label, snapshot
from asr.speakers.model import SpeakerModel
from asr.speakers.naming import Known
from asr.speakers.packing import from_bytes, pack, unpack
from asr.speakers.thresholds import Thresholds, read_thresholds
from asr.speakers.windows import cut_windows

if TYPE_CHECKING:
    from asr.workers.template import Channel

_template: tuple[SpeakerModel, Thresholds] | SpeakersUnavailable | None = None


def load_template(path: str) -> None:
    """Load a model in the template process. An error is kept for the jobs."""
    global _template  # every forked child inherits it
    try:
        file = Path(path)
        _template = SpeakerModel(file), read_thresholds(file.with_suffix(".json"))
    except Exception as error:  # noqa: BLE001  # of onnxruntime, the file system or our own code
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _template = SpeakersUnavailable(f"the speaker model did not load: {reason}")


def _loaded() -> tuple[SpeakerModel, Thresholds]:
    if isinstance(_template, tuple):
        return _template
    raise _template or SpeakersUnavailable("the template process did not load the speaker model")


def embed_job(channel: Channel) -> None:
    """Embed the windows over the words of one chunk of PCM16."""
    request, data = channel.receive()
    model, thresholds = _loaded()
    chosen = thresholds.fine() if request["fine"] else thresholds
    windows = cut_windows([(start, end) for start, end in request["words"]], chosen)
    embeddings = model.embed(pcm.to_float32(pcm.from_bytes(data)), windows)
    channel.send({"windows": windows, "embeddings": pack(embeddings)})


def voice_job(channel: Channel) -> None:
    """Embed the speech of a known voice, PCM16, and count the voices in it."""
    request, data = channel.receive()
    model, thresholds = _loaded()
    samples = pcm.to_float32(pcm.from_bytes(data))
    windows = [
        window
        for start, end in request["stretches"]
        for window in cut_windows([(start, end)], thresholds)
    ]
    spans = np.array(windows).reshape(-1, 2)
    n_voices = count_voices(spans, model.embed(samples, windows), thresholds)
    channel.send({"embedding": pack(model.embed_voice(samples)), "n_voices": n_voices})


def label_job(channel: Channel) -> None:
    """Label the words of one channel."""
    request, data = channel.receive()
    _, thresholds = _loaded()
    known = [
        Known(voice["name"], unpack(voice["embedding"])[0].astype(np.float32), voice["seconds"])
        for voice in request["known"]
    ]
    chosen = thresholds.fine() if request["fine"] else thresholds
    found = label(_heard(request, data), chosen, request["fewest"], request["most"], known)
    channel.send(
        {
            "names": found.names,
            "voices": found.voices,
            "confidences": found.confidences,
            "overlapped": found.overlapped,
            "warnings": found.warnings,
            "is_loose": found.is_loose,
        }
    )


def snapshot_job(channel: Channel) -> None:
    """Find the voices of a recording that is still being read."""
    request, data = channel.receive()
    _, thresholds = _loaded()
    found = snapshot(
        _heard(request, data), thresholds, request["fewest"], request["most"], request["earlier"]
    )
    channel.send(
        {
            "centres": pack(found.centres),
            "numbers": found.numbers,
            "of_windows": found.of_windows,
        }
    )


def _heard(request: dict[str, Any], data: bytes) -> Heard:
    windows = np.array(request["windows"], np.float64).reshape(-1, 2)
    words = [(float(start), float(end)) for start, end in request.get("words", [])]
    return Heard(windows, from_bytes(data, len(windows)), words)
