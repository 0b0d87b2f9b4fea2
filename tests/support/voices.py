"""Synthetic voices: embeddings, sounds, and a tiny speaker model in ONNX that tells them apart."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.signal import lfilter

RATE = 16_000


def directions(n_voices, size=64, shared=0.0, seed=0):
    """Unit vectors of different voices; `shared` is the cosine between any two of them."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return np.sqrt(shared) * basis[-1] + np.sqrt(1 - shared) * basis[:n_voices]


def around(voices, labels, spread=0.6, seed=0):
    """An embedding for each label: its voice plus noise of about this length."""
    rng = np.random.default_rng(seed)
    size = voices.shape[1]
    return voices[labels] + spread / np.sqrt(size) * rng.normal(size=(len(labels), size))


def voice(hertz, seconds, seed=0):
    """Noise with syllables in one band of the spectrum, which tells the voice.

    A band without syllables is constant, and models get features without their mean.
    """
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * RATE)
    angle = 2 * np.pi * hertz / RATE
    carrier = lfilter([1.0], [1.0, -2 * 0.98 * np.cos(angle), 0.98**2], rng.normal(size=n_samples))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(n_samples) / RATE)
    sound = carrier / carrier.std() * syllables + 0.1 * rng.normal(size=n_samples)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def write_model(path):
    """A model whose embedding is how much each mel band varies, less what noise varies."""
    nodes = [
        helper.make_node("Mul", ["features", "features"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variances"], axes=[1], keepdims=0),
        helper.make_node("Sub", ["variances", "noise"], ["embeddings"]),
    ]
    constants = [numpy_helper.from_array(np.array(1.0, np.float32), "noise")]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "frames", 80])]
    outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", 80])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
