"""Names of results: a hash of the content of a recording and of the settings that matter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from asr.speakers.folder import model_id

if TYPE_CHECKING:
    from asr.config import Options
    from asr.settings import Settings

VERSION: Final = 1
"""Raise it when the same recording and settings give another transcript than before. All results
then count as missing."""
BLOCK_BYTES: Final = 1 << 20


def fingerprint(settings: Settings, options: Options, model: str) -> str:
    """A hash of everything but the recording that the transcript depends on.

    Addresses, numbers of processes, folders and limits do not matter. Neither do formats and rules
    for subtitles, which are applied to a finished transcript.

    Args:
        settings: name the engine and the aligner.
        options: of every recording.
        model: of the engine, as it names itself when it is open.
    """
    chosen = asdict(options)
    del chosen["limits"]
    facts: dict[str, Any] = {
        "version": VERSION,
        "engine": settings.engine_name,
        "model": model,
        "aligner": settings.aligner_name,
        "options": chosen,
        "settings": {name: getattr(settings, name) for name in _settings_of(settings)},
    }
    if options.speakers is not None:
        facts["speaker_model"] = model_id(settings.speaker_model)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _settings_of(settings: Settings) -> tuple[str, ...]:
    """The settings that change what the engine or the aligner answers."""
    by_engine = {
        "moonshine": ("moonshine_model",),
        "omni-local": ("vllm_model", "vllm_args"),
        "onnx": ("onnx_model", "onnx_type", "onnx_quantization", "onnx_language"),
    }
    of_aligner = ("ctc_model",) if settings.aligner_name == "ctc" else ()
    return by_engine.get(settings.engine_name, ()) + of_aligner


def row_id(content: str, settings: str) -> str:
    """The name of a result: 40 hexadecimal digits.

    Args:
        content: SHA-256 of the recording.
        settings: the `fingerprint`.
    """
    return hashlib.sha256(f"{content} {settings}".encode()).hexdigest()[:40]


def short_hash(*parts: object) -> str:
    """A name for something that is no recording, such as a task."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
