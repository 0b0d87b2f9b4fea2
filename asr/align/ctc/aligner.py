"""Forced alignment by any CTC model of Hugging Face transformers, on CPU or GPU. Extra ``[ctc]``.

    samples -> features -> model, in batches -> log-probabilities -> trellis -> words with times

Three kinds of thread keep the event loop free and the model busy: a few threads prepare single
chunks, one thread runs the model, and one searches the trellis of the previous batch. Concurrent
calls of `align` are collected into padded batches. While the model runs, the next batch is
collected.

This is the only module that imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from asr.align.ctc.batching import Batcher
from asr.align.ctc.frames import FrameGrid, measure_grid
from asr.align.ctc.spelling import Speller, as_written, make_speller
from asr.align.ctc.trellis import Symbols, best_paths
from asr.align.ctc.word_times import place_words
from asr.align.interpolate import interpolate
from asr.errors import EngineUnavailable
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asr.align.ctc.spelling import Speak
    from asr.align.ctc.trellis import Target
    from asr.types import Audio, Hypothesis, Word

    Features = dict[str, torch.Tensor]

logger = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 0.01
"""How long an idle model waits for more chunks after the first one."""
BATCH_SECONDS: Final = {"cpu": 60.0, "cuda": 240.0}
"""Maximum seconds of audio in a batch, padding included. More needs memory and is no faster."""
TRELLIS_FRAMES: Final = 50_000
"""Maximum frames in a batch of the search, padding included."""
CHUNK_THREADS: Final = 4
"""Threads that spell, compute features and time words, one chunk each."""


class CtcModel:
    """A model with its feature extractor and its alphabet; knows nothing of words or asyncio.

    Args:
        model: a transformers model with a CTC head, already on its device and in its dtype.
        extractor: computes the model's input from samples.
        speller: for the model's alphabet.

    Attributes:
        grid: the times of its frames.
        can_pad: whether its input has a mask. Without a mask, padding would change the scores of a
            chunk, so every chunk runs alone. An example is wav2vec2-base, which normalises over
            time.
    """

    def __init__(self, model: Any, extractor: Any, speller: Speller) -> None:
        self.speller = speller
        self._model = model.eval()
        self._extractor = extractor
        parameter = next(model.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        self.grid: FrameGrid = measure_grid(self._count)
        self.can_pad = "attention_mask" in self.features(np.zeros(SAMPLE_RATE, np.float32))

    def features(self, samples: np.ndarray) -> Features:
        """Compute the model's input for one chunk, normalised as its configuration says."""
        made = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return {name: torch.as_tensor(value)[0] for name, value in made.items()}

    def emissions(self, batch: Sequence[Features], n_samples: Sequence[int]) -> list[np.ndarray]:
        """Compute log-probabilities of each chunk, float32 of shape (n_frames, n_columns).

        Args:
            batch: features of the chunks.
            n_samples: number of samples of each chunk.

        Raises:
            RuntimeError: torch failed, for example for lack of memory, or the model gave NaN.
        """
        logits = self._logits(batch)
        scores = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        n_frames = map(self.grid.n_frames, n_samples)
        rows = [row[:size] for row, size in zip(scores, n_frames, strict=True)]
        if any(np.isnan(row).any() for row in rows):
            raise RuntimeError("the model gave NaN")
        return rows

    def _logits(self, batch: Sequence[Features]) -> torch.Tensor:
        inputs = {}
        for name in batch[0]:
            padded = torch.nn.utils.rnn.pad_sequence(
                [features[name] for features in batch], batch_first=True
            )
            kind = self._dtype if padded.is_floating_point() else padded.dtype
            inputs[name] = padded.to(self.device, kind)
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs).logits
        return logits

    def _count(self, n_samples: int) -> int:
        noise = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
        return int(self._logits([self.features(noise)]).shape[1])


def load_model(source: str, device: str, speak: Speak = as_written) -> CtcModel:
    """Load a model from a folder or from the hub.

    Args:
        source: a folder or hub id, as for transformers' ``from_pretrained``.
        device: auto, cpu or cuda.
        speak: gives the spoken words of each token.

    Raises:
        EngineUnavailable: the model cannot be loaded, or the device does not exist.
    """
    import transformers

    if device == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailable("ASR_CTC_DEVICE is cuda, and torch finds no GPU; set cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        model = transformers.AutoModelForCTC.from_pretrained(source, dtype=kind).to(device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        message = f"ASR_CTC_MODEL: {source!r} cannot be loaded as a CTC model: {error}"
        raise EngineUnavailable(message) from error
    return CtcModel(model, extractor, speller_for(tokenizer, model.config.pad_token_id, speak))


def speller_for(tokenizer: Any, blank: int, speak: Speak = as_written) -> Speller:
    """Make the speller of a transformers tokenizer, whose blank has the label `blank`."""
    lock = threading.Lock()  # fast tokenizers raise "Already borrowed" if two threads use them

    def encode(text: str) -> list[int]:
        with lock:
            labels = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [label for label in labels if label != tokenizer.unk_token_id]

    vocabulary = tokenizer.get_vocab()
    delimiter = vocabulary.get(getattr(tokenizer, "word_delimiter_token", None) or "|")
    symbols = Symbols(blank, delimiter)
    return make_speller(vocabulary, tokenizer.all_special_tokens, symbols, encode, speak)


@dataclass(frozen=True, slots=True)
class _Prepared:
    features: Features
    n_samples: int


class CtcAligner:
    """Times words with a CTC model. Use it from one event loop.

    Args:
        source: folder or hub id of the model.
        device: auto, cpu or cuda.
        speak: gives the spoken words of each token.
        load: loads the model; tests and benchmarks replace it.
        batch_seconds: maximum seconds of audio in a batch, padding included; None means the default
            of the device.
    """

    def __init__(
        self,
        source: str,
        device: str = "auto",
        speak: Speak = as_written,
        load: Callable[[str, str, Speak], CtcModel] = load_model,
        batch_seconds: float | None = None,
    ) -> None:
        self.name = f"ctc ({source})"
        self.language = None  # whatever language the model was trained on
        self._load = functools.partial(load, source, device, speak)
        self._batch_seconds = batch_seconds
        self._stack = contextlib.AsyncExitStack()
        self._running: _Running | None = None

    async def open(self) -> None:
        """Load the model and start the threads; this may take minutes.

        Raises:
            EngineUnavailable: the model cannot be loaded.
        """
        if self._running is not None:
            return
        model = await asyncio.to_thread(self._load)
        limit = self._batch_seconds or BATCH_SECONDS[model.device.type]
        self._running = await self._stack.enter_async_context(_Running(model, limit))

    async def close(self) -> None:
        """End the threads and drop the model."""
        self._running = None
        await self._stack.aclose()

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Time every word of the text; see `asr.align.base.Aligner`.

        If the model fails or the text is too long for the audio, the words are spread over the loud
        audio, and a warning says so.

        Raises:
            EngineUnavailable: the aligner is not open.
        """
        if self._running is None:
            raise EngineUnavailable("the CTC aligner is not open")
        texts = hypothesis.text.split()
        if not texts:
            return dataclasses.replace(hypothesis, words=())
        try:
            words = await self._running.align(audio, texts)
        except (RuntimeError, ValueError, MemoryError) as error:
            logger.warning("chunk %d cannot be aligned: %r", hypothesis.chunk_index, error)
            return _spread(audio, hypothesis, f"the aligner failed ({type(error).__name__})")
        if words is None:
            reason = f"its words do not fit {audio.duration:.1f} s of audio, or have no labels"
            return _spread(audio, hypothesis, reason)
        return dataclasses.replace(hypothesis, words=words)


class _Running:
    """A loaded model and its threads."""

    def __init__(self, model: CtcModel, batch_seconds: float) -> None:
        self._model = model
        self._threads = ThreadPoolExecutor(CHUNK_THREADS, thread_name_prefix="ctc")
        self._forward = Batcher(
            self._emit,
            lambda item: item.n_samples / SAMPLE_RATE,
            limit=batch_seconds if model.can_pad else 0.0,
            window=WINDOW_SECONDS if model.can_pad else 0.0,
        )
        self._search = Batcher(self._find, lambda item: len(item[0]), TRELLIS_FRAMES)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> _Running:
        await self._stack.enter_async_context(self._forward)
        await self._stack.enter_async_context(self._search)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await asyncio.to_thread(self._threads.shutdown)

    async def align(self, audio: Audio, texts: Sequence[str]) -> tuple[Word, ...] | None:
        """Time the words; None if the audio has too few frames for them, or none has a label."""
        loop, grid, samples = asyncio.get_running_loop(), self._model.grid, audio.samples
        threads, duration = self._threads, audio.duration
        spelled = await loop.run_in_executor(threads, self._model.speller.spell, texts)
        if not len(spelled.word) or spelled.target.min_frames > grid.n_frames(len(samples)):
            return None
        features = await loop.run_in_executor(threads, self._model.features, samples)
        emission = await self._forward.submit(_Prepared(features, len(samples)))
        path = await self._search.submit((emission, spelled.target))
        if path is None:
            return None
        place = functools.partial(place_words, texts, spelled, path, emission, grid, duration)
        return await loop.run_in_executor(threads, place)

    def _emit(self, batch: Sequence[_Prepared]) -> list[np.ndarray]:
        sizes = [item.n_samples for item in batch]
        return self._model.emissions([item.features for item in batch], sizes)

    def _find(self, batch: Sequence[tuple[np.ndarray, Target]]) -> list[np.ndarray | None]:
        emissions, targets = zip(*batch, strict=True)
        return best_paths(emissions, targets, self._model.speller.symbols)


def _spread(audio: Audio, hypothesis: Hypothesis, reason: str) -> Hypothesis:
    warning = f"{reason}: word times are interpolated"
    spread = interpolate(audio, hypothesis)
    return dataclasses.replace(spread, warnings=(*spread.warnings, warning))
