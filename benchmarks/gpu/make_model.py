"""Write a model directory with the sizes of Nemotron-3-Nano-Omni-30B-A3B and no weights.

vLLM serves it with ``--load-format dummy``, which makes random weights. The arithmetic, memory and
scheduling are those of the real model, but the text is random. So it can measure speed, but not
accuracy.

    python -m benchmarks.gpu.make_model OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from asr.engines.omni.instruction import INSTRUCTION

VOCABULARY: Final = 131_072
LAYERS: Final = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
"""M is Mamba-2, E a mixture of experts, * attention: 52 layers."""

SPECIALS: Final = [
    *("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    *("<image>", "<img>", "</img>", "<video>", "<so_start>", "<so_end>", "<so_embedding>"),
]

CONFIG_CODE: Final = """
from transformers import PretrainedConfig
from vllm.transformers_utils.configs.nemotron_h import NemotronHConfig


class OmniConfig(PretrainedConfig):
    model_type = "NemotronH_Nano_Omni_Reasoning_V3"
    is_composition = True

    def __init__(self, text_config=None, vision_config=None, sound_config=None, **kwargs):
        self.text_config = NemotronHConfig(**(text_config or {}))
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        self.sound_config = PretrainedConfig(**sound_config) if sound_config else None
        super().__init__(**kwargs)

    def get_text_config(self, *args, **kwargs):
        return self.text_config
"""

CHAT_TEMPLATE: Final = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
"""Thinking is on by default. If it is switched off, the answer begins with an empty thought. Like
NVIDIA's template, it puts a placeholder before the text for each audio, unless the text has one."""

TEXT: Final[dict[str, Any]] = {
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": 2688,
    "num_hidden_layers": len(LAYERS),
    "hybrid_override_pattern": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 1856,
    "max_position_embeddings": 262_144,
    "mlp_hidden_act": "relu2",
    "ssm_state_size": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "mamba_n_groups": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 128,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "n_shared_experts": 1,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "bos_token_id": 1,
    "eos_token_id": 5,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}

SOUND: Final[dict[str, Any]] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "conv_kernel_size": 9,
    "hidden_act": "silu",
    "convolution_bias": False,
    "num_mel_bins": 128,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 256,
    "subsampling_conv_kernel_size": 3,
    "subsampling_conv_stride": 2,
    "projection_hidden_size": 4096,
    "projection_bias": False,
    "sampling_rate": 16_000,
    "hop_length": 160,
}

VISION: Final[dict[str, Any]] = {
    "args": {
        "model": "vit_huge_patch16_224",
        "cpe_max_size": 2048,
        "min_num_patches": 1024,
        "max_num_patches": 13_312,
        "register_multiple": 10,
        "teachers": [{"name": "a", "use_summary": True}],
    },
    "preferred_resolution": [512, 512],
    "patch_size": 16,
    "torch_dtype": "bfloat16",
}

CONFIG: Final[dict[str, Any]] = {
    "architectures": ["NemotronH_Nano_Omni_Reasoning_V3"],
    "model_type": "NemotronH_Nano_Omni_Reasoning_V3",
    "auto_map": {"AutoConfig": "configuration_omni.OmniConfig"},
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "text_config": TEXT,
    "vision_config": VISION,
    "sound_config": SOUND,
    "force_image_size": 512,
    "patch_size": 16,
    "downsample_ratio": 0.5,
    "template": "nemotron",
    "ps_version": "v2",
    "image_tag_type": "internvl",
    "vit_hidden_size": 1280,
    "projector_hidden_size": 20_480,
    "use_thumbnail": True,
    "norm_mean": [0.48145466, 0.4578275, 0.40821073],
    "norm_std": [0.26862954, 0.26130258, 0.27577711],
    "bos_token_id": 1,
    "eos_token_id": 5,
    "pad_token_id": 3,
}

TOKENIZER_CONFIG: Final[dict[str, Any]] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "<|im_end|>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": VOCABULARY,
}


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer with a byte-level vocabulary of the real model's size.

    Every chunk is sent with the same instruction. Each word of it is one token, which is about as
    many tokens as with the real vocabulary. In all other text, except special tokens, each byte is
    one token. The remaining entries (`w` and a number) only fill the vocabulary: no prompt is
    encoded to them.
    """
    # Imported here because it is installed with vLLM, and not with our package.
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    texts += sorted({word for word, _ in split.pre_tokenize_str(INSTRUCTION)} - set(texts))
    texts += [f"w{number}" for number in range(len(texts), VOCABULARY)]
    ids = {text: number for number, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>", ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.save(str(path))


def main(folder: Path) -> None:
    """Write all files of the model directory."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (folder / "configuration_omni.py").write_text(CONFIG_CODE, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
