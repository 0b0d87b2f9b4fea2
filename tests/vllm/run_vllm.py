"""Run vLLM on what our client decodes and sends, to be compared with `run_transformers`.

    python -m tests.vllm.run_vllm FOLDER SOUNDS.npz REQUESTS.json RESULTS.npz

This runs in the environment of vLLM. FOLDER is from `make_reference`. SOUNDS has the samples that
the service decoded, by name, and REQUESTS the messages of our client. RESULTS has, for each name:

NAME/mel, /mask    features of its clips of 30 s, padded to the longest, and the valid frames
NAME/clips         embeddings of the clips, joined
NAME/batched       the same, when all recordings are encoded in one batch
NAME/ids           the prompt's token ids, for our client's request
NAME/logprobs      of the first token, for our client's request
NAME/along         of the tokens of the prompt, but the first
NAME/greedy        tokens, for our client's request
NAME/heard, /rate  what vLLM decodes from our client's request
NAME/direct        log-probabilities of the first token, for the samples without a request
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from vllm import LLM, SamplingParams
from vllm.model_executor.models.parakeet import ParakeetExtractor
from vllm.multimodal.media import MediaConnector

from tests.vllm.in_worker import embeddings, positions

RATE = 16_000
N_GREEDY = 8
ALL = -1
NO_THINKING = {"enable_thinking": False}
DECODER = {"audio": {"audio_backend": "soundfile"}}
GREEDY = SamplingParams(
    temperature=0, max_tokens=N_GREEDY, logprobs=ALL, prompt_logprobs=0, ignore_eos=True
)


def load(folder):
    """The model, loaded for comparison: without anything that only makes it faster."""
    return LLM(
        str(folder),
        trust_remote_code=True,
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=4,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_logprobs=ALL,
        media_io_kwargs=DECODER,
        limit_mm_per_prompt={"audio": 1, "image": 0, "video": 0},
    )


def logprobs(output):
    """Log-probabilities of the first token, by id."""
    first = output.outputs[0].logprobs[0]
    return np.array([first[token].logprob for token in range(len(first))], np.float32)


def along(output):
    """Log-probabilities of the prompt's own tokens but the first."""
    pairs = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return np.array([found[token].logprob for token, found in pairs], np.float32)


def heard(messages):
    """Decode the audio of a request as vLLM does, before it resamples."""
    url = messages[0]["content"][0]["audio_url"]["url"]
    return MediaConnector(media_io_kwargs=DECODER).fetch_audio(url)


def prompt(llm, messages):
    """The text of the prompt, with one placeholder for the audio."""
    content = [
        part if part["type"] == "text" else {"type": "audio"} for part in messages[0]["content"]
    ]
    return llm.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=False,
        **NO_THINKING,
    )


def results(llm, extractor, samples, messages):
    """Everything about one recording."""
    made = extractor([samples])
    mel, mask = (made[key].numpy() for key in ("input_audio_features", "feature_attention_mask"))
    ((clips,),) = llm.apply_model(partial(embeddings, mel, mask, made["audio_num_clips"]))
    chat = partial(llm.chat, chat_template_kwargs=NO_THINKING, use_tqdm=False)
    (answer,) = chat([messages], GREEDY)
    given = {
        "prompt": prompt(llm, messages),
        "multi_modal_data": {"audio": (samples, RATE)},
    }
    (direct,) = llm.generate([given], GREEDY, use_tqdm=False)
    audio, rate = heard(messages)
    return {
        "mel": mel,
        "mask": mask,
        "clips": clips,
        "ids": np.array(list(answer.prompt_token_ids)),
        "logprobs": logprobs(answer),
        "along": along(answer),
        "greedy": np.array(list(answer.outputs[0].token_ids)),
        "heard": audio,
        "rate": np.array(rate),
        "direct": logprobs(direct),
    }


def batched(llm, extractor, sounds):
    """Embeddings of all recordings, encoded in one batch, by name."""
    made = extractor(list(sounds.values()))
    features, mask = made["input_audio_features"], made["feature_attention_mask"]
    run = partial(embeddings, features.numpy(), mask.numpy(), made["audio_num_clips"])
    (every,) = llm.apply_model(run)
    return dict(zip(sounds, every, strict=True))


def main(folder, sounds, requests, target):
    sounds = dict(np.load(sounds))
    messages = json.loads(requests.read_text(encoding="utf-8"))
    llm = load(folder)
    extractor = ParakeetExtractor(llm.llm_engine.model_config.hf_config.sound_config)
    found = {}
    for name, samples in sounds.items():
        values = results(llm, extractor, samples, messages[name])
        found |= {f"{name}/{key}": value for key, value in values.items()}
    for name, value in batched(llm, extractor, sounds).items():
        found[f"{name}/batched"] = value
    (found["positions"],) = llm.apply_model(positions)
    np.savez(target, **found)


if __name__ == "__main__":
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # functions for the worker, our own
    main(Path(sys.argv[1]) / "vllm", *map(Path, sys.argv[2:5]))
