"""The engine that runs models of the library onnx-asr.

Models with a CTC or transducer head (Parakeet, GigaAM, Zipformer) time their words themselves.
Models with a text decoder (Whisper, Canary) return text, and the aligner times its words. Such a
model may loop or invent text, so the guards check its answers.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.config import DecodeOptions, check
from asr.engines.base import Capabilities, ignored
from asr.engines.onnx.model import INSTALL, ModelOptions
from asr.engines.onnx.processes import ForkedModel, ServedModel
from asr.engines.onnx.words import hypothesis
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.types import Audio, Chunk, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.engines.onnx.processes import Runner
    from asr.settings import Settings

GPU_SLOTS: Final = 16
"""Chunks in flight on a GPU: one batch is recognised while the next one is prepared."""
RETRY_SILENCE: Final = 0.3
"""Seconds of silence before the audio in a second attempt."""
LONGEST_SECONDS: Final = 30.0
"""Whisper ignores audio after this."""


def load(settings: Settings) -> OnnxEngine:
    """Return the engine that the settings describe.

    Raises:
        EngineUnavailable: the extra is not installed.
        InvalidOption: a setting is missing.
    """
    check(bool(settings.onnx_model), "onnx_model", "onnx needs the folder or the name of a model")
    languages = [code.strip().lower() for code in settings.onnx_language.split(",")]
    languages = [code for code in languages if code]
    check(bool(languages), "onnx_language", "must name at least one language, such as en")
    device = _device() if settings.onnx_device == "auto" else settings.onnx_device
    options = ModelOptions(
        settings.onnx_model, settings.onnx_type, settings.onnx_quantization, device
    )
    slots = settings.workers if device == "cpu" else settings.engine_slots or GPU_SLOTS
    return OnnxEngine(options, languages, slots)


def _device() -> str:
    """Return "cuda" if the machine has a GPU and onnxruntime-gpu is installed, otherwise "cpu".

    This does not import onnxruntime, because the import is slow.
    """
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return "cpu"
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


class OnnxEngine:
    """Recognise chunks with a model of onnx-asr.

    Args:
        options: which model, and where it runs.
        languages: ISO-639-1 codes of the languages that it recognises; the first is the default.
        slots: number of chunks in flight. On the CPU this is the number of processes.

    Raises:
        EngineUnavailable: the extra is not installed.
    """

    retry_note = "a second attempt after some silence"

    def __init__(self, options: ModelOptions, languages: Sequence[str], slots: int) -> None:
        if importlib.util.find_spec("onnx_asr") is None:
            raise EngineUnavailable(INSTALL)
        version = importlib.metadata.version("onnx-asr")
        self.slots = slots
        self.language = languages[0]
        self.capabilities = Capabilities(languages=tuple(languages))
        self.preferred_seconds: float | None = None
        self.guarded = False  # until the model is loaded
        self.model = options.folder.resolve().name if options.is_folder else options.model
        self.name = f"onnx ({self.model} on onnx-asr {version}, {options.device})"
        self._languages = tuple(languages)
        self._runner: Runner = (
            ForkedModel(options, slots) if options.device == "cpu" else ServedModel(options)
        )

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Refuse languages that are not listed. Warn about options that have no effect."""
        told = f"the model recognises {', '.join(self._languages)} (ASR_ONNX_LANGUAGE)"
        check(self._code(options.language) in self._languages, "language", told)
        return ignored("onnx", options)

    def _code(self, language: str | None) -> str:
        code = (language or self.language).lower().split("-")[0]
        return "en" if code == "english" else code

    async def open(self) -> None:
        """Load the model."""
        facts = await self._runner.open()
        unknown = [it for it in self._languages if facts.languages and it not in facts.languages]
        if unknown:
            raise EngineUnavailable(
                f"{self.model} does not know {', '.join(unknown)}: correct ASR_ONNX_LANGUAGE; "
                f"it knows {', '.join(facts.languages)}"
            )
        self.guarded = not facts.is_timed  # a decoder that writes text may also invent it

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk."""
        pcm = audio.pcm16()
        if not pcm.strip(b"\0"):  # text decoders invent words in digital silence
            return Hypothesis(chunk.index, "")
        failed = f"onnx failed on the chunk at {chunk.start:.1f} s"
        try:
            answer = await self._runner.recognise(pcm, self._code(options.language))
        except EngineTimeout as error:
            raise EngineTimeout(f"{failed}: {error}") from error
        except WorkerDied as error:
            died = WorkerDied(f"{failed}: {error}", error.signal, error.errno)
            died.chunk_index = chunk.index
            raise died from error
        except EngineFailed as error:
            raise EngineFailed(f"{failed}: {error}", chunk.index) from error
        return hypothesis(chunk.index, answer, audio.duration)

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk with silence before it. These models have no temperature to raise."""
        seconds = min(RETRY_SILENCE, max(0.0, LONGEST_SECONDS - audio.duration))
        silence = np.zeros(round(seconds * audio.sample_rate), np.float32)
        longer = Audio(np.concatenate([silence, audio.samples]), audio.sample_rate)
        return await self.transcribe(chunk, longer, options)

    async def close(self) -> None:
        """End all processes."""
        await self._runner.close()
