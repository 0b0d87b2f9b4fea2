"""The engines: a chunk of audio in, a hypothesis out.

- `base`: the interface of an engine.
- `moonshine`: Moonshine, which runs on any CPU.
- `omni`: Nemotron-3-Nano-Omni on vLLM.
- `onnx`: models of the library onnx-asr, an extra.
- `guards`: find suspicious answers of a language model.

`load_engine` imports only the engine that the settings name, because vLLM is large. The package
knows nothing of files, formats or jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.config import check
from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from asr.engines.base import Engine
    from asr.settings import Settings


def load_engine(settings: Settings) -> Engine:
    """Return the engine that the settings name. It is not open yet.

    Raises:
        EngineUnavailable: it cannot be used with these settings.
        InvalidOption: the settings contradict each other.
    """
    if settings.engine_name == "moonshine":
        from asr.engines.moonshine.engine import MoonshineEngine

        return MoonshineEngine(settings.workers, settings.moonshine_model)
    if settings.engine_name == "omni-local":
        from asr.engines.omni.instruction import TEMPLATE
        from asr.engines.omni.local import VllmLocalEngine, read_arguments

        message = "omni-local needs the folder or the id of the model"
        check(bool(settings.vllm_model), "vllm_model", message)
        arguments = read_arguments(settings.vllm_args)
        return VllmLocalEngine(
            settings.vllm_model,
            arguments,
            settings.engine_slots,
            settings.omni_instruction or TEMPLATE,
        )
    if settings.engine_name == "onnx":
        from asr.engines.onnx.engine import load

        return load(settings)
    if not settings.vllm_urls:
        raise EngineUnavailable("the omni engine needs ASR_VLLM_URL, the address of a server")
    from asr.engines.omni.http import VllmHttpEngine, VllmOptions
    from asr.engines.omni.instruction import TEMPLATE

    return VllmHttpEngine(
        VllmOptions(
            urls=settings.vllm_urls,
            model=settings.vllm_model,
            api_key=settings.vllm_api_key,
            ca_file=settings.vllm_ca_file,
            dialect=settings.vllm_dialect,
            audio_format=settings.vllm_audio_format,
            slots=settings.engine_slots,
            template=settings.omni_instruction or TEMPLATE,
        )
    )
