"""Run the reference implementation on recordings, step by step.

    python -m tests.vllm.run_transformers FOLDER FILES SOUNDS.npz INSTRUCTION RESULTS.npz

This runs in the environment of transformers. FOLDER is from `make_reference`, FILES a folder of WAV
files, SOUNDS has what the service decoded from each of them, and INSTRUCTION is the text of the
request. RESULTS has, for each file:

NAME/loaded        the samples that transformers loads from the file
NAME/loaded_mel    their features
NAME/loaded_clips  their embeddings, as `clips32`

and from what the service decoded:

NAME/text          the prompt from the chat template, before the audio is inserted
NAME/ids           the prompt's token ids, as transformers' processor makes them
NAME/mel, /mask    features of the whole recording, and which of its frames are valid
NAME/whole         embeddings of the whole recording, as many as the processor counts
NAME/clips         embeddings of its clips of 30 s, joined, as many as vLLM counts
NAME/clips32       the same, computed in float32
NAME/rounded       the same, computed in float32 from rounded frequencies of the positions
NAME/logprobs      of the first token, after the prompt with `clips`
NAME/logprobs32    the same, computed in float32
NAME/along         of the tokens of the prompt with `clips`, but the first
NAME/along32       the same, computed in float32
NAME/native        of the first token, after transformers' own prompt with `whole`
NAME/greedy        tokens, after the prompt with `clips`
NAME/leads         the difference of logits between each of them and the second best
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    NemotronH_Omni_Reasoning_V3,
    NemotronH_Omni_Reasoning_V3Processor,
    ParakeetFeatureExtractor,
    PreTrainedTokenizerFast,
)
from transformers.audio_utils import load_audio

from tests.vllm.tiny_text import AUDIO_TOKENS

RATE = 16_000
CLIP = 30 * RATE
LEAST = RATE // 10
N_GREEDY = 8


class AudioProcessor(NemotronH_Omni_Reasoning_V3Processor):
    """The processor without images, whose parts need torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        """Let the parts for images be None."""
        if argument is None:
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)


class Reference:
    """Model and processor, as transformers' documentation puts them together."""

    def __init__(self, folder):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.processor = AudioProcessor(
            tokenizer=tokenizer,
            feature_extractor=ParakeetFeatureExtractor(feature_size=128),
            chat_template=tokenizer.chat_template,
        )
        self.models = {
            name: NemotronH_Omni_Reasoning_V3.from_pretrained(folder, dtype=name).eval()
            for name in ("bfloat16", "float32")
        }

    def prompt(self, instruction):
        """The text that the chat template makes of audio and instruction."""
        parts = [{"type": "audio"}, {"type": "text", "text": instruction}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
        )

    def embeddings(self, features, mask, dtype):
        model = self.models[dtype]
        return model.get_audio_features(features, mask).pooler_output

    def clip_embeddings(self, samples, dtype):
        """Embeddings of clips of 30 s, without the last one that only transformers counts."""
        found = []
        for clip in clips(samples):
            made = self.processor.feature_extractor([clip], sampling_rate=RATE, return_tensors="pt")
            every = self.embeddings(made.input_features, made.attention_mask, dtype)
            model = self.models[dtype]
            n = model.audio_tower._get_subsampling_output_length(made.attention_mask.sum(-1))
            found.append(every[: int(n)])
        return torch.cat(found)

    @contextlib.contextmanager
    def rounded_positions(self):
        """As in vLLM, which casts the frequencies of the positions with the weights."""
        positions = self.models["float32"].audio_tower.encode_positions
        exact = positions.inv_freq
        positions.inv_freq = exact.bfloat16().float()
        yield
        positions.inv_freq = exact

    def inputs(self, ids, embeddings, dtype):
        """Embeddings of `ids`, with the audio's in place of the audio tokens."""
        found = self.models[dtype].get_input_embeddings()(ids)
        places = (ids == AUDIO_TOKENS.inside).unsqueeze(-1).expand_as(found)
        return found.masked_scatter(places, embeddings.to(found.dtype))

    def logprobs(self, inputs, dtype):
        """Log-probabilities after each position."""
        return self.models[dtype](inputs_embeds=inputs).logits[0].float().log_softmax(-1)

    def greedy(self, inputs):
        """The next tokens, and the lead of each over the second best."""
        model = self.models["bfloat16"]
        embed = model.get_input_embeddings()
        made = model(inputs_embeds=inputs, use_cache=True)
        found, leads = [], []
        for _ in range(N_GREEDY):
            best = made.logits[0, -1].float().topk(2)
            found.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
            last = embed(torch.tensor([[found[-1]]]))
            made = model(inputs_embeds=last, past_key_values=made.past_key_values, use_cache=True)
        return np.array(found), np.array(leads)


def clips(samples):
    """Cut as vLLM cuts: every 30 s, and nothing is shorter than 0.1 s."""
    pieces = [samples[at : at + CLIP] for at in range(0, len(samples), CLIP)]
    return [np.pad(piece, (0, max(0, LEAST - len(piece)))) for piece in pieces]


def with_audio_tokens(ids, n):
    """The prompt's ids with n audio tokens in place of those that are there."""
    keep = ids[0][ids[0] != AUDIO_TOKENS.inside]
    at = int((keep == AUDIO_TOKENS.start).nonzero()) + 1
    return torch.cat([keep[:at], torch.full((n,), AUDIO_TOKENS.inside), keep[at:]]).unsqueeze(0)


def of_tokens(logprobs, ids):
    """The log-probability of each token of the prompt but the first."""
    return logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0]


def results(reference, samples, instruction):
    """Everything about one sound."""
    text = reference.prompt(instruction)
    made = reference.processor(text=text, audio=[samples], return_tensors="pt")
    mel, mask = made["input_features"], made["input_features_mask"]
    ids = torch.as_tensor(made["input_ids"])
    whole = reference.embeddings(mel, mask, "bfloat16")
    clip, clip32 = (reference.clip_embeddings(samples, it) for it in ("bfloat16", "float32"))
    with reference.rounded_positions():
        rounded = reference.clip_embeddings(samples, "float32")
    cut = with_audio_tokens(ids, len(clip))
    inputs = reference.inputs(cut, clip, "bfloat16")
    inputs32 = reference.inputs(cut, clip32, "float32")
    greedy, leads = reference.greedy(inputs)
    native = reference.inputs(ids, whole, "bfloat16")
    every = reference.logprobs(inputs, "bfloat16")
    every32 = reference.logprobs(inputs32, "float32")
    return {
        "text": np.array(text),
        "ids": ids[0],
        "mel": mel[0],
        "mask": mask[0],
        "whole": whole.float(),
        "clips": clip.float(),
        "clips32": clip32,
        "rounded": rounded,
        "logprobs": every[-1],
        "logprobs32": every32[-1],
        "along": of_tokens(every, cut),
        "along32": of_tokens(every32, cut),
        "native": reference.logprobs(native, "bfloat16")[-1],
        "greedy": greedy,
        "leads": leads,
    }


def loaded(reference, path):
    """What transformers makes of the file itself."""
    samples = load_audio(str(path), sampling_rate=RATE, backend="soundfile")
    extractor = reference.processor.feature_extractor
    made = extractor([samples], sampling_rate=RATE, return_tensors="pt")
    return {
        "loaded": samples,
        "loaded_mel": made.input_features[0],
        "loaded_clips": reference.clip_embeddings(samples, "float32"),
    }


@torch.inference_mode()
def main(folder, files, sounds, instruction, target):
    reference = Reference(folder)
    decoded = np.load(sounds)
    found = {}
    for path in sorted(files.glob("*.wav")):
        values = loaded(reference, path)
        values |= results(reference, decoded[path.stem], instruction)
        found |= {f"{path.stem}/{key}": np.asarray(value) for key, value in values.items()}
    buffer = reference.models["bfloat16"].audio_tower.encode_positions.inv_freq
    found["positions"] = buffer.float().numpy()
    np.savez(target, **found)


if __name__ == "__main__":
    given, wanted, ours, text, results_path = sys.argv[1:6]
    main(Path(given) / "transformers", Path(wanted), Path(ours), text, Path(results_path))
