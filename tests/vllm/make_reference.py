"""Write the tiny checkpoint with random weights, for vLLM and for transformers.

    python -m tests.vllm.make_reference FOLDER      # in the environment of vLLM or of transformers

FOLDER/vllm has the configuration that vLLM reads, and FOLDER/transformers the one that transformers
reads (`nemotron_h_omni`). Both are derived from `make_tiny.model_config`, and the weights, the
tokenizer and the chat template are the same files.

Unlike the weights of `make_tiny`, no weight is constructed, and all are large enough that other
audio gives another answer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from tests.vllm import make_tiny as tiny
from tests.vllm.tiny_text import AUDIO_TOKENS, SPECIAL

LANGUAGE_STD = 0.15
BIAS_STD = 0.1
ENCODER_GAIN = 1.5
ATTENTION_GAIN = 2.0
SHARED = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class RandomWeights(tiny.Weights):
    """Random weights, large enough that audio and positions change the output."""

    def draw(self, *shape, std=0.02):
        return super().draw(*shape, std=max(std, LANGUAGE_STD))

    def chain(self):
        """No token has a successor by construction."""
        return []

    def encoders(self):
        """Also biases and statistics of batch norms, which begin as 0 and 1."""
        super().encoders()
        for name, tensor in self.tensors.items():
            if not name.startswith("sound_encoder") or not tensor.is_floating_point():
                continue
            random = torch.randn(tensor.shape, generator=self._generator)
            if name.endswith("running_var"):
                self.tensors[name] = 0.5 + random.abs()
            elif name.endswith(("bias", "bias_u", "bias_v", "running_mean")):
                self.tensors[name] = random * BIAS_STD
            elif tensor.ndim > 1:
                gain = ATTENTION_GAIN if "_proj" in name else ENCODER_GAIN
                self.tensors[name] = random * gain / tensor[0].numel() ** 0.5


def transformers_config(config):
    """The configuration of the same model in transformers' words.

    The names of the released checkpoint stay where transformers accepts them. The image encoder is
    as small as possible: it has no weights here, and no test sends images.
    """
    vision = {
        "model_type": "radio",
        "hidden_size": tiny.VISION_HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
        "image_size": 64,
        "max_img_size": 64,
        "num_cls_tokens": 2,
        "num_registers": 1,
        "video_temporal_patch_size": 2,
    }
    left = {"auto_map", "architectures", "model_type", "vision_config"}
    return {
        **{key: value for key, value in config.items() if key not in left},
        "architectures": ["NemotronH_Omni_Reasoning_V3"],
        "model_type": "nemotron_h_omni",
        "vision_config": vision,
        "sound_context_token_id": AUDIO_TOKENS.inside,
        "img_context_token_id": SPECIAL.index("<image>"),
    }


def main(folder):
    """Write both forms of the checkpoint."""
    torch.set_num_threads(1)  # the same weights on every machine
    ours, theirs = folder / "vllm", folder / "transformers"
    tiny.main(ours, RandomWeights)
    theirs.mkdir(exist_ok=True)
    for name in SHARED:
        shutil.copy(ours / name, theirs / name)
    config = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(transformers_config(config))
    (theirs / "config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
