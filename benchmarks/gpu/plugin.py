r"""A plugin for vLLM 0.20 that keeps the GPU busy in steps in which chunks start.

In such a step vLLM's engine waits for the GPU three times: twice to read how many tokens of each
request are done, which the CPU knows already, and once to read how many tokens the encoder made,
which follows from the length of the audio. Each time the GPU runs dry. It also launches the audio
encoder kernel by kernel. The plugin removes all of this. It changes no result.

It ran on an H200, where the API processes set the speed, so its gain is not known
(benchmarks/gpu/README.md). Therefore it is an experiment and no part of the service.

vLLM loads plugins through the entry point `vllm.general_plugins` in each of its processes. On a
folder of PYTHONPATH, this makes one:

    mkdir asr_plugin-1.dist-info
    printf 'Metadata-Version: 2.1\nName: asr-plugin\nVersion: 1\n' > asr_plugin-1.dist-info/METADATA
    printf '[vllm.general_plugins]\nasr = benchmarks.gpu.plugin:register\n' \
      > asr_plugin-1.dist-info/entry_points.txt

`ASR_VLLM_PLUGIN=metadata,lengths,graphs` chooses parts of it; an empty value switches it off.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("vllm.asr")


@dataclass(frozen=True, slots=True)
class Change:
    """A function of one of vLLM's classes, and ours."""

    owner: Any
    name: str
    theirs: Any
    ours: Any

    def apply(self, *, on: bool = True) -> None:
        """Put our function in place, or theirs again."""
        setattr(self.owner, self.name, self.ours if on else self.theirs)


changes: dict[str, list[Change]] = {}
"""What was changed in this process, by part."""


def register() -> None:
    """Change vLLM's classes in this process, once."""
    chosen = os.environ.get("ASR_VLLM_PLUGIN", ",".join(PARTS)).split(",")
    if not version("vllm").startswith("0.20."):
        logger.info("the plugin of asr changes nothing: it is for vLLM 0.20")
        return
    for part in PARTS.keys() & set(chosen) - changes.keys():
        changes[part] = PARTS[part]()
        for change in changes[part]:
            change.apply()
    logger.info("the plugin of asr is active: %s", ", ".join(sorted(changes)))


def _change(owner: Any, name: str, ours: Any) -> Change:
    return Change(owner, name, getattr(owner, name), ours)


@dataclass(frozen=True, slots=True)
class _OnCpu:
    """The metadata of a step whose lengths are read on the CPU."""

    common: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.common, name)

    def compute_num_computed_tokens(self) -> Any:
        """How many tokens of each request are done; exact for requests in prefill."""
        starts = self.common.query_start_loc_cpu
        return self.common.seq_lens_cpu_upper_bound - (starts[1:] - starts[:-1])


def read_metadata_on_the_cpu() -> list[Change]:
    """Let the metadata of the Mamba layers wait for nothing."""
    from vllm.v1.attention.backends.mamba2_attn import Mamba2AttentionMetadataBuilder as Builder

    def build(
        self: Any,
        common_prefix_len: int,
        common_attn_metadata: Any,
        fast_build: bool = False,
        **kwargs: Any,
    ) -> Any:
        del common_prefix_len, fast_build
        step = common_attn_metadata
        common = self._compute_common_metadata(
            step, num_accepted_tokens=kwargs.get("num_accepted_tokens")
        )
        fields: dict[str, Any] = {"prep_initial_states": False, "chunk_size": self.chunk_size}
        if common.num_prefills > 0:
            on_cpu = _OnCpu(step)
            done = on_cpu.compute_num_computed_tokens()
            first = common.num_reqs - common.num_prefills
            fields["prep_initial_states"] = bool((done[first : common.num_reqs] > 0).any())
            names = ("cu_chunk_seqlen_p", "seq_idx_p", "last_chunk_indices_p")
            tensors = self._build_chunk_metadata_tensors(self.chunk_size, common, on_cpu)
            fields |= dict(zip(names, tensors, strict=True))
        return replace(common, **fields)

    return [_change(Builder, "build", build)]


def keep_lengths_on_the_cpu() -> list[Change]:
    """Let the model take the lengths of the audio from the CPU instead of the GPU."""
    import torch
    from vllm.model_executor.models import nano_nemotron_vl as model
    from vllm.multimodal.inputs import MultiModalFieldConfig

    def fields(_self: Any, hf_inputs: Any) -> dict[str, Any]:
        counts = torch.as_tensor(hf_inputs["audio_num_clips"])
        flat = MultiModalFieldConfig.flat_from_sizes
        return {
            "input_audio_features": flat("audio", counts),
            "feature_attention_mask": flat("audio", counts, keep_on_cpu=True),
            "audio_num_clips": MultiModalFieldConfig.batched("audio", keep_on_cpu=True),
        }

    def encode(self: Any, audio: Any) -> tuple[Any, ...]:
        encoder = self.sound_encoder
        device = next(encoder.parameters()).device
        n_frames = audio.feature_attention_mask.sum(dim=1).cpu()
        lengths = encoder.encoder._get_subsampling_output_length(n_frames).tolist()
        features = audio.input_audio_features.to(device, self.llm_dtype, non_blocking=True)
        places = torch.arange(features.shape[1], device=device)
        mask = places < n_frames.to(device, non_blocking=True)[:, None]
        clips = [clip[:n] for clip, n in zip(encoder(features, mask), lengths, strict=True)]
        counts = [int(n) for n in audio.audio_num_clips]
        ends = torch.tensor(counts).cumsum(0).tolist()
        return tuple(
            clips[end - 1] if n == 1 else torch.cat(clips[end - n : end])
            for end, n in zip(ends, counts, strict=True)
        )

    classes = [it for it in vars(model).values() if isinstance(it, type)]
    name = "_get_audio_fields_config"
    return [
        _change(model.NemotronH_Nano_VL_V2, "_process_audio_input", encode),
        *(_change(owner, name, fields) for owner in classes if name in vars(owner)),
    ]


def replay_the_encoder() -> list[Change]:
    """Let the audio encoder replay CUDA graphs."""
    from vllm.model_executor.models.parakeet import ProjectedParakeet

    from benchmarks.gpu.encoder_graphs import replaying

    return [_change(ProjectedParakeet, "forward", replaying(ProjectedParakeet.forward))]


PARTS: Final[dict[str, Callable[[], list[Change]]]] = {
    "metadata": read_metadata_on_the_cpu,
    "lengths": keep_lengths_on_the_cpu,
    "graphs": replay_the_encoder,
}
