"""Tiny models in ONNX, in the layouts that onnx-asr loads. They know nothing of speech."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LETTERS = [*"abcdef", *(f"\u2581{letter}" for letter in "abcdefgh"), ",", "<blk>"]
FEATURES = 64
STEP = 4
"""Frames of 10 ms in a step of the model's output."""


def gigaam_ctc(folder, seed=1, endless_from=None):
    """A CTC model of the type gigaam-v2-ctc: one random convolution from the spectrum to letters.

    Args:
        folder: where to write it.
        seed: of the weights.
        endless_from: from so many frames on, it never ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "gigaam-v2-ctc"}')
    vocabulary = [f"{letter} {i}\n" for i, letter in enumerate(LETTERS)]
    (folder / "v2_vocab.txt").write_text("".join(vocabulary), encoding="utf-8")
    nodes = [
        helper.make_node(
            "Conv", ["features", "weights"], ["scores"], strides=[STEP], pads=[0, STEP - 1]
        ),
        helper.make_node("Transpose", ["scores"], ["steps"], perm=[0, 2, 1]),
    ]
    weights = normal(np.random.default_rng(seed), "weights", len(LETTERS), FEATURES, STEP)
    last = "steps"
    if endless_from is not None:
        nodes += _endless(endless_from)
        last = "same"
    nodes.append(helper.make_node("LogSoftmax", [last], ["log_probs"], axis=-1))
    inputs = [
        value("features", TensorProto.FLOAT, ["batch", FEATURES, "frames"]),
        value("feature_lengths", TensorProto.INT64, ["batch"]),
    ]
    outputs = [value("log_probs", TensorProto.FLOAT, ["batch", "steps", len(LETTERS)])]
    save(folder / "v2_ctc.onnx", nodes, inputs, outputs, [weights])
    return folder


def _endless(n_frames):
    """Nodes that copy "steps" to "same", which takes for ever from `n_frames` on."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Abs", ["before"], ["after"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, None)],
    )
    return [
        constant("limit", np.array(n_frames, np.int64)),
        constant("never", np.array(0, np.int64)),
        constant("always", np.array(2**60, np.int64)),
        helper.make_node("ReduceMax", ["feature_lengths"], ["longest"], keepdims=0),
        helper.make_node("Less", ["longest", "limit"], ["is_short"]),
        helper.make_node("Where", ["is_short", "never", "always"], ["times"]),
        helper.make_node("Loop", ["times", "", "steps"], ["same"], body=body),
    ]


WHISPER = [
    *["<|startoftranscript|>", "<|endoftext|>", "<|transcribe|>", "<|notimestamps|>"],
    *["<|en|>", "<|de|>", "\u0120good", "\u0120guten", "\u0120morning", "\u0120Morgen", ","],
]
NEXT = {
    "<|notimestamps|>": "\u0120good",
    "\u0120good": "\u0120morning",
    "\u0120guten": "\u0120Morgen",
    "\u0120morning": ",",
    "\u0120Morgen": ",",
    ",": "<|endoftext|>",
    "<|endoftext|>": "<|endoftext|>",
}


def whisper(folder):
    """A Whisper model of the type whisper: the next token depends on the last and the language."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "whisper", "num_mel_bins": 80}')
    ids = {token: i for i, token in enumerate(WHISPER)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "added_tokens.json").write_text("{}")
    following = np.zeros((len(WHISPER), len(WHISPER)), np.float32)
    for token, then in NEXT.items():
        following[ids[token], ids[then]] = 5
    bonus = np.zeros_like(following)
    bonus[ids["<|de|>"], ids["\u0120guten"]] = 3
    bonus[ids["\u0120guten"], ids["\u0120guten"]] = -9
    following[ids["<|notimestamps|>"], ids["\u0120guten"]] = 3
    hidden = ["batch", "steps", 80]
    save(
        folder / "onnx" / "encoder_model.onnx",
        [helper.make_node("Transpose", ["input_features"], ["last_hidden_state"], perm=[0, 2, 1])],
        [value("input_features", TensorProto.FLOAT, ["batch", 80, "frames"])],
        [value("last_hidden_state", TensorProto.FLOAT, hidden)],
    )
    save(
        folder / "onnx" / "decoder_model_merged.onnx",
        [
            helper.make_node("Gather", ["following", "input_ids"], ["scores"]),
            helper.make_node("Gather", ["bonus", "input_ids"], ["extra"]),
            constant("axis", np.array([1], np.int64)),
            helper.make_node("ReduceSum", ["extra", "axis"], ["sum"], keepdims=1),
            helper.make_node("Add", ["scores", "sum"], ["logits"]),
        ],
        [
            value("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            value("encoder_hidden_states", TensorProto.FLOAT, hidden),
        ],
        [value("logits", TensorProto.FLOAT, ["batch", "tokens", len(WHISPER)])],
        [numpy_helper.from_array(following, "following"), numpy_helper.from_array(bonus, "bonus")],
    )
    return folder


CONTROL = ["startofcontext", "startoftranscript", "emo:undefined", "pnc", "noitn", "itn"]
CONTROL += ["notimestamp", "nodiarize", "endoftext", "en", "de"]
CANARY = [*(f"<|{name}|>" for name in CONTROL), "\u2581", "\u2581good", "\u2581day", "s", "."]
SAID = ["<|nodiarize|>", "\u2581good", "\u2581day", "s", ".", "<|endoftext|>", "<|endoftext|>"]


def canary(folder):
    """A Canary model of the type nemo-conformer-aed, in which each token decides the next one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "nemo-conformer-aed"}')
    vocabulary = [f"{token} {i}\n" for i, token in enumerate(CANARY)]
    (folder / "vocab.txt").write_text("".join(vocabulary), encoding="utf-8")
    scores = np.full((len(CANARY), len(CANARY)), np.log(0.1 / (len(CANARY) - 1)), np.float32)
    for token, then in pairwise(SAID):
        scores[CANARY.index(token), CANARY.index(then)] = np.log(0.9)
    embeddings = ["batch", "frames", 80]
    save(
        folder / "encoder-model.onnx",
        [
            helper.make_node("Transpose", ["audio_signal"], ["encoder_embeddings"], perm=[0, 2, 1]),
            helper.make_node("Identity", ["length"], ["encoder_mask"]),
        ],
        [
            value("audio_signal", TensorProto.FLOAT, ["batch", 80, "frames"]),
            value("length", TensorProto.INT64, ["batch"]),
        ],
        [
            value("encoder_embeddings", TensorProto.FLOAT, embeddings),
            value("encoder_mask", TensorProto.INT64, ["batch"]),
        ],
    )
    memory = [1, "batch", "remembered", 4]
    save(
        folder / "decoder-model.onnx",
        [
            helper.make_node("Gather", ["scores", "input_ids"], ["logits"]),
            helper.make_node("Identity", ["decoder_mems"], ["decoder_hidden_states"]),
        ],
        [
            value("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            value("encoder_embeddings", TensorProto.FLOAT, embeddings),
            value("encoder_mask", TensorProto.INT64, ["batch"]),
            value("decoder_mems", TensorProto.FLOAT, memory),
        ],
        [
            value("logits", TensorProto.FLOAT, ["batch", "tokens", len(CANARY)]),
            value("decoder_hidden_states", TensorProto.FLOAT, memory),
        ],
        [numpy_helper.from_array(scores, "scores")],
    )
    return folder


DURATIONS = 3
HIDDEN = 8


def parakeet_tdt(folder, seed=2):
    """A transducer of the type nemo-conformer-tdt, which also says how far to go on, at random."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "nemo-conformer-tdt"}')
    vocabulary = [f"{letter} {i}\n" for i, letter in enumerate(LETTERS)]
    (folder / "vocab.txt").write_text("".join(vocabulary), encoding="utf-8")
    random = np.random.default_rng(seed)
    n_outputs = len(LETTERS) + DURATIONS
    save(
        folder / "encoder-model.onnx",
        [
            helper.make_node("Conv", ["audio_signal", "weights"], ["outputs"], strides=[8]),
            constant("step", np.array(8, np.int64)),
            helper.make_node("Div", ["length", "step"], ["encoded_lengths"]),
        ],
        [
            value("audio_signal", TensorProto.FLOAT, ["batch", 80, "frames"]),
            value("length", TensorProto.INT64, ["batch"]),
        ],
        [
            value("outputs", TensorProto.FLOAT, ["batch", HIDDEN, "steps"]),
            value("encoded_lengths", TensorProto.INT64, ["batch"]),
        ],
        [normal(random, "weights", HIDDEN, 80, 8)],
    )
    state = [1, 1, 4]
    names = [f"{way}put_states_{n}" for n in (1, 2) for way in ("in", "out")]
    save(
        folder / "decoder_joint-model.onnx",
        [
            helper.make_node("Gather", ["embedded", "targets"], ["before"]),  # (1, 1, n_outputs)
            helper.make_node("Transpose", ["encoder_outputs"], ["now"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["now", "head"], ["heard"]),
            helper.make_node("Add", ["before", "heard"], ["outputs"]),
            helper.make_node("Identity", names[0:1], names[1:2]),
            helper.make_node("Identity", names[2:3], names[3:4]),
        ],
        [
            value("encoder_outputs", TensorProto.FLOAT, [1, HIDDEN, 1]),
            value("targets", TensorProto.INT32, [1, 1]),
            value("target_length", TensorProto.INT32, [1]),
            *(value(name, TensorProto.FLOAT, state) for name in names[::2]),
        ],
        [
            value("outputs", TensorProto.FLOAT, [1, 1, n_outputs]),
            *(value(name, TensorProto.FLOAT, state) for name in names[1::2]),
        ],
        [
            normal(random, "embedded", len(LETTERS), n_outputs),
            normal(random, "head", HIDDEN, n_outputs),
        ],
    )
    return folder


def normal(random, name, *shape):
    """Random weights."""
    return numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), name)


def value(name, kind, shape):
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, array):
    """A node with a constant."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def save(path, nodes, inputs, outputs, weights=()):
    """Write a model."""
    path.parent.mkdir(exist_ok=True)
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
