"""Replays the audio encoder of vLLM's model as CUDA graphs.

vLLM captures the language model in CUDA graphs, but it launches the 24 layers of the audio encoder
kernel by kernel from Python, in every step in which chunks start. Here the encoder is captured
once for each of a few numbers of clips, with all clips padded to 30 s. The encoder masks the
padding, so its output changes only by rounding.

`benchmarks.gpu.plugin` installs it in vLLM.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Encoder = Callable[[Any, torch.Tensor, torch.Tensor | None], torch.Tensor]

CLIP_FRAMES: Final = 3008
"""Mel frames that each clip is padded to. vLLM cuts audio into clips of at most 30 s, which have
3001 frames. With a multiple of 64 the number of tokens suits the fastest kernel of attention."""
SIZES: Final = (48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
"""Numbers of clips with a graph, largest first, so that the smaller graphs fit into its memory."""

logger = logging.getLogger("vllm.asr")


def replaying(eager: Encoder) -> Encoder:
    """The encoder's `forward` with graphs in place of the usual launches."""
    graphs: dict[int, EncoderGraphs] = {}

    def forward(
        module: Any, features: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if mask is None or not features.is_cuda or features.shape[1] > CLIP_FRAMES:
            return eager(module, features, mask)
        if id(module) not in graphs:
            graphs[id(module)] = EncoderGraphs(eager, module, features)
        return graphs[id(module)](features, mask)

    return forward


class EncoderGraphs:
    """The graphs of one encoder. They share their memory, so only one may run at a time."""

    def __init__(self, eager: Encoder, module: Any, like: torch.Tensor) -> None:
        shape = (SIZES[0], CLIP_FRAMES, like.shape[2])
        self._features = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self._mask = torch.ones(shape[:2], dtype=torch.bool, device=like.device)
        pool = torch.cuda.graph_pool_handle()
        self._graphs = {n: self._capture(eager, module, n, pool) for n in SIZES}
        logger.info("The audio encoder has CUDA graphs for up to %d clips", SIZES[0])

    def _capture(self, eager: Encoder, module: Any, n: int, pool: Any) -> tuple[Any, torch.Tensor]:
        inputs = self._features[:n], self._mask[:n]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # the first runs choose algorithms, which a graph may not
            for _ in range(2):
                eager(module, *inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Another thread of the engine may copy tokens to the CPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = eager(module, *inputs)
        return graph, output

    def __call__(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode clips: features (n, frames, mels), mask (n, frames) -> (n, 376, width)."""
        batches = zip(features.split(SIZES[0]), mask.split(SIZES[0]), strict=True)
        return torch.cat([self._replay(*batch) for batch in batches])

    def _replay(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        n, n_frames = mask.shape
        size = min(size for size in SIZES if size >= n)
        self._features[:n, :n_frames] = features
        self._features[:n, n_frames:] = 0
        self._mask[:n, :n_frames] = mask
        self._mask[:n, n_frames:] = False
        self._mask[n:size] = True  # attention to a clip without any frame would be undefined
        graph, output = self._graphs[size]
        graph.replay()
        return output[:n].clone()  # the next replay overwrites it
