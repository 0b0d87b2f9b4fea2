"""Load and run a model with onnx_asr, in a child process.

onnx_asr and onnxruntime are imported only when a model is loaded. The library chooses the class of
a model by its type. The type of a model in a folder comes from its config.json or the setting
`onnx_type`.
"""

from __future__ import annotations

import json
import os
import re
import traceback
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr import pcm
from asr.errors import EngineFailed, EngineUnavailable
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.workers.template import Channel

MIN_SAMPLES: Final = SAMPLE_RATE // 2
"""Shorter audio is padded with silence at its end: some models fail on fewer than two frames."""
CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
PROVIDERS: Final = {"cpu": [CPU], "cuda": [CUDA, CPU]}
INSTALL: Final = "ASR_ENGINE=onnx needs onnx-asr: pip install 'asr-service[onnx]'"
_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")
_NO_LANGUAGES: Final = frozenset({"pnc", "itn"})
"""Control tokens of Canary that look like languages."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model to load, and where it runs.

    Attributes:
        model: folder, or a name that onnx-asr downloads from the Hugging Face hub.
        type: the library's name of the model's type; empty means the one in config.json.
        quantization: suffix of the files, such as "int8"; empty means none.
        device: "cpu" or "cuda".
    """

    model: str
    type: str = ""
    quantization: str = ""
    device: str = "cpu"

    @property
    def is_folder(self) -> bool:
        """Whether `model` is a folder. Nothing is downloaded for a folder, even a missing one."""
        return self.model.startswith(("/", ".", "~")) or Path(self.model).is_dir()

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return Path(self.model).expanduser()


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of a loaded model.

    Attributes:
        is_timed: whether the model reports the times of its tokens.
        languages: codes of the languages that can be chosen; empty if the model has no choice.
    """

    is_timed: bool
    languages: tuple[str, ...]


class Model:
    """A loaded model.

    Raises:
        EngineUnavailable: it cannot be loaded.
    """

    def __init__(self, options: ModelOptions) -> None:
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        self._adapter = _load(options).with_timestamps()
        self._languages = _languages(self._adapter.asr)

    def facts(self) -> Facts:
        """Recognise a second of silence. It fails if the files load but do not fit together."""
        (answer,) = self.recognise([np.zeros(SAMPLE_RATE, np.float32)], None)
        return Facts(answer["starts"] is not None, self._languages)

    def recognise(self, waves: Sequence[np.ndarray], language: str | None) -> list[dict[str, Any]]:
        """Recognise a batch.

        Raises:
            EngineFailed: the model failed. The log has the traceback.
        """
        options = {"language": language} if language and self._languages else {}
        padded = [np.pad(wave, (0, max(0, MIN_SAMPLES - len(wave)))) for wave in waves]
        try:
            results = self._adapter.recognize(padded, sample_rate=SAMPLE_RATE, **options)
        except Exception as error:  # of onnxruntime, numpy or the library
            traceback.print_exc()  # its message may hold paths, which clients must not see
            message = f"the model failed ({type(error).__name__}); the log has the details"
            raise EngineFailed(message) from error
        return [
            {
                "text": result.text,
                "tokens": result.tokens,
                "starts": result.timestamps,
                "logprobs": result.logprobs,
            }
            for result in results
        ]


def _languages(network: Any) -> tuple[str, ...]:
    """Return the languages that Whisper and Canary have control tokens for."""
    found = (_LANGUAGE.fullmatch(token) for token in getattr(network, "_tokens", ()))
    return tuple(sorted({match[1] for match in found if match} - _NO_LANGUAGES))


def _load(options: ModelOptions) -> Any:
    """Load the model.

    Raises:
        EngineUnavailable: the extra is not installed, or the model cannot be loaded.
    """
    folder = options.folder if options.is_folder else None
    if folder is not None and not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise EngineUnavailable(f"{folder} {problem}: correct ASR_ONNX_MODEL")
    if folder is None and options.type:  # the library would download another model of that type
        raise EngineUnavailable(
            "ASR_ONNX_TYPE is for a folder: unset it, or set ASR_ONNX_MODEL to one"
        )
    name = options.type or (_type_of(folder) if folder else options.model)
    try:
        return _load_as(name, folder, options)
    except ImportError as error:
        needed = "onnx-asr[hub]" if error.name == "huggingface_hub" else "asr-service[onnx]"
        message = f"{options.model} needs {error.name}: pip install '{needed}'"
        raise EngineUnavailable(message) from error
    except EngineUnavailable:
        raise
    except Exception as error:  # of onnxruntime, the hub, the file system or the library
        message = f"{options.model} did not load as {name}: {str(error) or type(error).__name__}"
        raise EngineUnavailable(message) from error


def _load_as(name: str, folder: Path | None, options: ModelOptions) -> Any:
    """Import the library and load a model of a named type."""
    from asr import onnx_runtime  # before the library imports onnxruntime

    import onnx_asr  # isort: skip
    from onnx_asr.utils import ModelNotSupportedError

    if options.device == "cuda":
        _find_cuda()
    try:
        loaded = onnx_asr.load_model(
            name,
            folder,
            quantization=options.quantization or None,
            sess_options=onnx_runtime.session_options(),
            providers=PROVIDERS[options.device],
        )
    except ModelNotSupportedError as error:
        raise EngineUnavailable(_unknown(options, name)) from error
    if options.device == "cuda":
        _require_cuda(loaded.asr)
    return loaded


def _unknown(options: ModelOptions, name: str) -> str:
    if options.is_folder:
        return f"onnx-asr knows no type {name!r}: correct ASR_ONNX_TYPE (docs/onnx.md)"
    return (
        f"{name!r} is neither a folder nor a name that onnx-asr knows: "
        "correct ASR_ONNX_MODEL (docs/onnx.md)"
    )


def _type_of(folder: Path) -> str:
    """Read the type of a model from its config.json."""
    fix = "set ASR_ONNX_TYPE to the type of the model (docs/onnx.md)"
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"no readable config.json in {folder}: {fix}") from error
    name = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise EngineUnavailable(f"config.json in {folder} has no model_type: {fix}")
    return name


def _find_cuda() -> None:
    """Load CUDA and cuDNN from pip's packages, which the system's loader does not search."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def _require_cuda(network: Any) -> None:
    """Check that the sessions run on the GPU; onnxruntime falls back to the CPU with a warning."""
    sessions = [it for it in vars(network).values() if hasattr(it, "get_providers")]
    if not all(CUDA in session.get_providers() for session in sessions):
        raise EngineUnavailable(
            "onnxruntime cannot use the GPU: install onnxruntime-gpu[cuda,cudnn] in place of "
            "onnxruntime, or set ASR_ONNX_DEVICE=cpu (docs/onnx.md)"
        )


# --- calls of the child processes ---------------------------------------------------------------

_template: Model | EngineUnavailable | None = None


def load_template(options: str) -> None:
    """Load the model in the template process. An error is kept for `facts_job`."""
    global _template  # every forked child inherits it
    try:
        _template = Model(ModelOptions(**json.loads(options)))
    except EngineUnavailable as error:
        _template = error


def _loaded() -> Model:
    if isinstance(_template, Model):
        return _template
    raise _template or EngineUnavailable("the template process did not load the model")


def facts_job(channel: Channel) -> None:
    """Report the facts of the template's model, or the reason why it did not load."""
    channel.receive()
    channel.send(_facts(_loaded()))


def recognise_job(channel: Channel) -> None:
    """Recognise one chunk with the template's model."""
    request, payload = channel.receive()
    (answer,) = _loaded().recognise([_wave(payload)], request["language"])
    channel.send(answer)


def serve_job(channel: Channel) -> None:
    """Load the model in this process, report its facts, then answer batches until the end."""
    request, _ = channel.receive()
    model = Model(ModelOptions(**request))
    channel.send(_facts(model))
    while True:
        request, payload = channel.receive()
        channel.send({"answers": _batch(model, request["chunks"], payload)})


def _facts(model: Model) -> dict[str, Any]:
    facts = model.facts()
    return {"is_timed": facts.is_timed, "languages": facts.languages}


def _wave(payload: bytes) -> np.ndarray:
    return pcm.to_float32(pcm.from_bytes(payload))


def _batch(model: Model, chunks: list[dict[str, Any]], payload: bytes) -> list[dict[str, Any]]:
    """Recognise chunks of the same language together. Return an answer or an error for each.

    If a batch fails, for example because the GPU has too little memory, each chunk is tried alone.
    """
    ends = np.cumsum([chunk["n_bytes"] for chunk in chunks])
    waves = [
        _wave(payload[end - chunk["n_bytes"] : end])
        for chunk, end in zip(chunks, ends, strict=True)
    ]
    answers: dict[int, dict[str, Any]] = {}
    order = sorted(range(len(chunks)), key=lambda i: chunks[i]["language"] or "")
    for language, same in groupby(order, key=lambda i: chunks[i]["language"]):
        indexes = list(same)
        found = _tried(model, [waves[i] for i in indexes], language)
        answers.update(zip(indexes, found, strict=True))
    return [answers[i] for i in range(len(chunks))]


def _tried(model: Model, waves: list[np.ndarray], language: str | None) -> list[dict[str, Any]]:
    try:
        return model.recognise(waves, language)
    except EngineFailed as error:
        if len(waves) == 1:
            return [{"failed": str(error)}]
    return [answer for wave in waves for answer in _tried(model, [wave], language)]
