"""Write a tiny checkpoint that real vLLM loads as NVIDIA's Nemotron-3-Nano-Omni.

    python -m tests.vllm.make_tiny FOLDER        # in the environment of vLLM; about 1 MB, 10 s

The architecture is the real one (``NemotronH_Nano_Omni_Reasoning_V3``: Mamba-2, attention and MLP
layers behind a FastConformer audio encoder), without its mixture of experts, which vLLM does not
run on a CPU. Config class, tokenizer and chat template are made here and nothing is downloaded.

The weights are random, except in the output layer. It holds a chain of token pairs: greedy decoding
always gives SENTENCE, after THOUGHT if thinking is on. The audio changes the probabilities only a
little. README.md says what this cannot prove.

vLLM's own ``--load-format dummy`` would not do: it fills the variances of the encoder's batch norms
with negative numbers, and everything after them is NaN.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ParakeetEncoder, ParakeetEncoderConfig

from tests.vllm.tiny_text import SENTENCE, SPECIAL, THOUGHT

ALPHABET = "Transcribe word for word: names, numbers 0123456789 and signs .,:;!?\"'"

LAYERS = "M*-"
KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
BOS, PAD, EOS = 1, 3, 5

_ROOT = Path(__file__).parents[2]
CHAT_TEMPLATE = (_ROOT / "benchmarks/gpu/chat_template.jinja").read_text(encoding="utf-8")
"""The template of the full-size model without weights (`benchmarks.gpu.make_model`)."""

CONFIG_CODE = '''\
"""The configuration class that the checkpoint brings with it."""

from transformers import NemotronHConfig, PretrainedConfig


class TinyOmniConfig(PretrainedConfig):
    model_type = "NemotronH_Nano_Omni_Reasoning_V3"
    is_composition = True

    def __init__(self, text_config=None, vision_config=None, sound_config=None, **others):
        self.text_config = NemotronHConfig(**(text_config or {}))
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        self.sound_config = PretrainedConfig(**(sound_config or {}))
        super().__init__(**others)

    def get_text_config(self, *_, **__):
        return self.text_config
'''

HIDDEN, SOUND_HIDDEN, VISION_HIDDEN, PROJECTION = 64, 64, 384, 128


def text_config(n_tokens):
    return {
        "architectures": ["NemotronHForCausalLM"],
        "vocab_size": -(-n_tokens // 64) * 64,
        "hidden_size": HIDDEN,
        "hybrid_override_pattern": LAYERS,
        "layers_block_type": [KINDS[sign] for sign in LAYERS],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 128,
        "mlp_hidden_act": "relu2",
        "max_position_embeddings": 131072,
        "ssm_state_size": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "n_groups": 2,
        "conv_kernel": 4,
        "expand": 2,
        "chunk_size": 64,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def sound_config():
    return {
        "hidden_size": SOUND_HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_kernel_size": 9,
        "hidden_act": "silu",
        "convolution_bias": False,
        "num_mel_bins": 128,
        "subsampling_factor": 8,
        "subsampling_conv_channels": 32,
        "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2,
        "projection_hidden_size": PROJECTION,
        "projection_bias": False,
        "sampling_rate": 16000,
        "hop_length": 160,
    }


def vision_config():
    """vLLM also builds the image encoder, from a table of sizes; this is the smallest size."""
    arguments = {
        "model": "vit_small_patch16_224",
        "cpe_max_size": 256,
        "min_num_patches": 4,
        "max_num_patches": 64,
        "register_multiple": 8,
        "teachers": [{"name": "none", "use_summary": True}],
    }
    return {
        "args": arguments,
        "preferred_resolution": [64, 64],
        "patch_size": 16,
        "torch_dtype": "bfloat16",
    }


def model_config(n_tokens):
    return {
        "architectures": ["NemotronH_Nano_Omni_Reasoning_V3"],
        "model_type": "NemotronH_Nano_Omni_Reasoning_V3",
        "auto_map": {"AutoConfig": "configuration_tiny_omni.TinyOmniConfig"},
        "dtype": "bfloat16",
        "text_config": text_config(n_tokens),
        "vision_config": vision_config(),
        "sound_config": sound_config(),
        "force_image_size": 64,
        "patch_size": 16,
        "downsample_ratio": 0.5,
        "template": "tiny",
        "ps_version": "v2",
        "image_tag_type": "internvl",
        "vit_hidden_size": VISION_HIDDEN,
        "projector_hidden_size": PROJECTION,
        "use_thumbnail": False,
        "norm_mean": [0.5, 0.5, 0.5],
        "norm_std": [0.25, 0.25, 0.25],
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{SENTENCE} {THOUGHT} {ALPHABET}"] * 4, trainer)
    return tokenizer


def tokenizer_config(tokenizer):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(sign)): {"content": sign, "special": True, **flags}
            for sign in SPECIAL
        },
    }


class Weights:
    """Tensors by name, generated from one seed."""

    def __init__(self, config, tokenizer):
        self.config = config
        self.tokenizer = tokenizer
        self.tensors = {}
        self._generator = torch.Generator().manual_seed(0)

    def draw(self, *shape, std=0.02):
        return torch.randn(*shape, generator=self._generator) * std

    def put(self, prefix, **tensors):
        self.tensors |= {f"{prefix}{k.replace('__', '.')}": v for k, v in tensors.items()}

    def chain(self):
        """Pairs (token, next token); no token has two successors."""
        special = self.tokenizer.token_to_id

        def ids(text):
            return self.tokenizer.encode(text).ids

        answer = [special("</think>"), *ids(SENTENCE), special("<|im_end|>")]
        thought = [ids("\n")[-1], *ids(" " + THOUGHT), special("</think>")]
        pairs = [*pairwise(answer), *pairwise(thought)]
        if len(dict(pairs)) != len(pairs):
            sys.exit("a token would need two successors: change SENTENCE or THOUGHT")
        return pairs

    def language_model(self):
        n_tokens = self.config["text_config"]["vocab_size"]
        embeddings = self.draw(n_tokens, HIDDEN, std=1.0)
        head = self.draw(n_tokens, HIDDEN, std=0.05)
        for before, after in self.chain():
            head[after] += 1.5 * embeddings[before] / embeddings[before].norm()
        ends = {"embeddings__weight": embeddings, "norm_f__weight": torch.ones(HIDDEN)}
        self.put("language_model.backbone.", **ends)
        self.put("language_model.", lm_head__weight=head)
        makers = {"M": self.mamba, "*": self.attention, "-": self.mlp}
        for index, sign in enumerate(LAYERS):
            layer = f"language_model.backbone.layers.{index}."
            self.put(layer, norm__weight=torch.ones(HIDDEN))
            makers[sign](layer + "mixer.", self.config["text_config"])

    def mamba(self, prefix, sizes):
        heads = sizes["mamba_num_heads"]
        inner = heads * sizes["mamba_head_dim"]
        convolved = inner + 2 * sizes["n_groups"] * sizes["ssm_state_size"]
        self.put(
            prefix,
            in_proj__weight=self.draw(inner + convolved + heads, HIDDEN),
            conv1d__weight=self.draw(convolved, 1, sizes["conv_kernel"], std=0.2),
            conv1d__bias=torch.zeros(convolved),
            dt_bias=torch.zeros(heads),
            A_log=torch.log(torch.arange(1, heads + 1).float()),
            D=torch.ones(heads),
            norm__weight=torch.ones(inner),
            out_proj__weight=self.draw(HIDDEN, inner),
        )

    def attention(self, prefix, sizes):
        queries = sizes["num_attention_heads"] * sizes["head_dim"]
        keys = sizes["num_key_value_heads"] * sizes["head_dim"]
        self.put(
            prefix,
            q_proj__weight=self.draw(queries, HIDDEN),
            k_proj__weight=self.draw(keys, HIDDEN),
            v_proj__weight=self.draw(keys, HIDDEN),
            o_proj__weight=self.draw(HIDDEN, queries),
        )

    def mlp(self, prefix, sizes):
        inner = sizes["intermediate_size"]
        self.put(
            prefix,
            up_proj__weight=self.draw(inner, HIDDEN),
            down_proj__weight=self.draw(HIDDEN, inner),
        )

    def encoders(self):
        """The audio encoder, and the projections of both encoders into the language model.

        The image encoder has no weights: vLLM does not require them, and no test sends images.
        """
        known = vars(ParakeetEncoderConfig())
        sizes = {k: v for k, v in self.config["sound_config"].items() if k in known}
        torch.manual_seed(0)
        made = ParakeetEncoderConfig(scale_input=False, attention_bias=False, **sizes)
        state = ParakeetEncoder(made).state_dict()
        self.tensors |= {f"sound_encoder.encoder.{k}": v.clone() for k, v in state.items()}
        self.put(
            "sound_projection.",
            norm__weight=torch.ones(SOUND_HIDDEN),
            linear1__weight=self.draw(PROJECTION, SOUND_HIDDEN, std=0.1),
            linear2__weight=self.draw(HIDDEN, PROJECTION, std=0.1),
        )
        self.tensors["mlp1.0.weight"] = torch.ones(VISION_HIDDEN * 4)
        self.tensors["mlp1.1.weight"] = self.draw(PROJECTION, VISION_HIDDEN * 4)
        self.tensors["mlp1.3.weight"] = self.draw(HIDDEN, PROJECTION)

    def save(self, target):
        small = {
            name: (it.to(torch.bfloat16) if it.is_floating_point() else it).contiguous()
            for name, it in self.tensors.items()
        }
        save_file(small, str(target), metadata={"format": "pt"})


def main(folder, kind=Weights):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    config = model_config(tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config.json": json.dumps(tokenizer_config(tokenizer)),
        "config.json": json.dumps(config),
        "generation_config.json": json.dumps(
            {"eos_token_id": [EOS], "bos_token_id": BOS, "pad_token_id": PAD}
        ),
        "chat_template.jinja": CHAT_TEMPLATE,
        "configuration_tiny_omni.py": CONFIG_CODE,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    weights = kind(config, tokenizer)
    weights.language_model()
    weights.encoders()
    weights.save(folder / "model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
