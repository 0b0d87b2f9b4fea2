"""Encoder and decoder of Moonshine on ONNX Runtime: samples in, tokens with log probabilities out.

The sizes of the network are read from its files, so that Moonshine base can run, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.engines.moonshine.folder import DECODER, ENCODER
from asr.errors import EngineUnavailable
from asr.onnx_runtime import load_session
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from pathlib import Path

    from onnxruntime import InferenceSession

BEGIN: Final = 1
END: Final = 2
"""Ids of the tokens that begin and end a text."""
TOKENS_PER_SECOND: Final = 6.5
MIN_TOKENS: Final = 8
"""Limit of tokens: this many per second of audio, but at least `MIN_TOKENS`. More is a loop."""
MIN_SAMPLES: Final = SAMPLE_RATE // 10
"""The convolutions of the encoder need 895 samples, and no word is shorter than 0.1 s."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The tokens of one chunk.

    Attributes:
        tokens: ids, without the tokens `BEGIN` and `END`.
        logprobs: natural log probability of each token, and of `END` if it was reached.
        is_cut: whether decoding stopped at the limit of tokens.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_cut: bool


class _Decoding:
    """The decoder's state for one chunk: the keys and values of earlier steps.

    Args:
        decoder: the session of the decoder.
        constant: inputs that are the same in every step: the encoder's output and its mask.
        past: empty keys and values, by the name of the input.
    """

    def __init__(
        self,
        decoder: InferenceSession,
        constant: dict[str, np.ndarray],
        past: dict[str, np.ndarray],
    ) -> None:
        self._decoder = decoder
        self._constant = constant
        self._past = past
        self._has_begun = False

    def step(self, token: int) -> np.ndarray:
        """Feed one token; return the logits of the next one, shape (n_vocabulary,)."""
        # Only the first step computes the cross-attention's keys and values: they do not change.
        names = [it for it in self._past if not self._has_begun or ".decoder." in it]
        logits, *present = self._decoder.run(
            ["logits", *(it.replace("past_key_values", "present") for it in names)],
            {
                "input_ids": np.array([[token]], np.int64),
                "use_cache_branch": np.array([self._has_begun]),
                **self._constant,
                **self._past,
            },
        )
        self._past.update(zip(names, present, strict=True))
        self._has_begun = True
        row: np.ndarray = logits[0, -1]
        return row


class Model:
    """A loaded model. The same samples give the same tokens.

    Args:
        folder: the folder with the model's files.

    Attributes:
        n_tokens: the number of different tokens.

    Raises:
        EngineUnavailable: the files are of another network.
    """

    def __init__(self, folder: Path) -> None:
        self._encoder = load_session(folder / ENCODER)
        self._decoder = load_session(folder / DECODER)
        shapes = {it.name: it.shape for it in self._decoder.get_inputs()}
        self._past = [name for name in shapes if name.startswith("past_key_values.")]
        if not self._past:
            raise EngineUnavailable(f"{DECODER} is not a decoder of Moonshine")
        self.n_tokens: int = self._decoder.get_outputs()[0].shape[-1]
        _, n_heads, _, size = shapes[self._past[0]]
        self._empty = np.zeros((1, n_heads, 1, size), np.float32)
        self._encoder_has_mask = "attention_mask" in {it.name for it in self._encoder.get_inputs()}
        self._decoder_has_mask = "encoder_attention_mask" in shapes

    def decode(self, samples: np.ndarray, padding: float) -> Decoded:
        """Recognise one chunk by greedy decoding.

        Chunks are never batched. Activations are quantised with one scale per batch, so a chunk
        would change the answers for the others.

        Args:
            samples: float32 at 16 kHz, shape (n_samples,).
            padding: seconds of silence to add on both sides.
        """
        limit = max(MIN_TOKENS, math.ceil(TOKENS_PER_SECOND * len(samples) / SAMPLE_RATE))
        tokens: list[int] = []
        logprobs: list[float] = []
        decoding = self._begin(_padded(samples, padding)[None])
        last = BEGIN
        while len(tokens) < limit:
            last, logprob = _most_probable(decoding.step(last))
            logprobs.append(logprob)
            if last == END:
                return Decoded(tuple(tokens), tuple(logprobs), is_cut=False)
            tokens.append(last)
        return Decoded(tuple(tokens), tuple(logprobs), is_cut=True)

    def _begin(self, batch: np.ndarray) -> _Decoding:
        mask = np.ones(batch.shape, np.int64)
        feed = {"input_values": batch}
        if self._encoder_has_mask:
            feed["attention_mask"] = mask
        (hidden,) = self._encoder.run(None, feed)
        constant = {"encoder_hidden_states": hidden}
        if self._decoder_has_mask:
            constant["encoder_attention_mask"] = mask
        return _Decoding(self._decoder, constant, dict.fromkeys(self._past, self._empty))


def _padded(samples: np.ndarray, padding: float) -> np.ndarray:
    n_padding = round(padding * SAMPLE_RATE)
    n_missing = max(0, MIN_SAMPLES - len(samples) - 2 * n_padding)
    return np.pad(samples, (n_padding, n_padding + n_missing))


def _most_probable(logits: np.ndarray) -> tuple[int, float]:
    """The id of the token with the highest logit, and its natural log probability."""
    best = int(logits.argmax())
    return best, -float(np.log(np.exp(logits - logits[best]).sum()))
