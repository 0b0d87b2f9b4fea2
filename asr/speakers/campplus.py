"""Build the network CAM++ of 3D-Speaker as an ONNX model from the tensors of its checkpoint.

CAM++ turns log-mel features of any length into one embedding. A front of two-dimensional
convolutions halves the mel axis three times. Then come a convolution over time, three dense blocks
whose layers are weighted by the context of the whole window and of 1 s around each frame, the mean
and standard deviation over time, and a linear layer.

The number of layers is read from the checkpoint. The package ``onnx`` is needed here only.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from asr.speakers.fbank import N_MELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

OPSET: Final = 17
IR_VERSION: Final = 8
"""Old enough for every supported ONNX Runtime. Fixed, so that each machine writes the same file."""
INPUT: Final = "features"
OUTPUT: Final = "embeddings"
CONTEXT_FRAMES: Final = 100
"""Frames over which the local context of a layer is averaged."""
EPSILON: Final = 1e-5
"""Of batch normalisation in PyTorch."""
BLOCKS: Final = ((3, 1), (3, 2), (3, 2))
"""Width and dilation of the convolutions of each dense block."""


class _Graph:
    """Nodes and constants of a model that is being built.

    Args:
        tensors: of the checkpoint.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._numbers = count()

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = output or f"{kind.lower()}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant unless there is one of this name; return the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(f"int_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def convolution(self, data: str, name: str, **attributes: Any) -> str:
        """A convolution with the weights of the checkpoint."""
        parts = [f"{name}.{part}" for part in ("weight", "bias")]
        given = [self.constant(it, self.tensors[it]) for it in parts if it in self.tensors]
        return self.op("Conv", data, *given, **attributes)

    def normalised(self, data: str, name: str) -> str:
        """Batch normalisation. One without weights scales by 1 and adds 0."""
        mean = self.tensors[f"{name}.running_mean"]
        values = {
            "weight": self.tensors.get(f"{name}.weight", np.ones_like(mean)),
            "bias": self.tensors.get(f"{name}.bias", np.zeros_like(mean)),
            "running_mean": mean,
            "running_var": self.tensors[f"{name}.running_var"],
        }
        given = [self.constant(f"{name}.{part}", value) for part, value in values.items()]
        return self.op("BatchNormalization", data, *given, epsilon=EPSILON)

    def activated(self, data: str, name: str) -> str:
        """Batch normalisation and ReLU."""
        return self.op("Relu", self.normalised(data, name))


def build_model(tensors: Mapping[str, np.ndarray]) -> ModelProto:
    """The model: features of shape (batch, frames, 80) to embeddings of shape (batch, size).

    Raises:
        KeyError: the tensors are of another network.
    """
    graph = _Graph(tensors)
    data = _front(graph)
    data = graph.convolution(data, "xvector.tdnn.linear", strides=[2], pads=[2, 2])
    data = graph.activated(data, "xvector.tdnn.nonlinear.batchnorm")
    for number, (width, dilation) in enumerate(BLOCKS, 1):
        data = _dense_block(graph, data, number, width, dilation)
    data = graph.activated(data, "xvector.out_nonlinear.batchnorm")
    data = graph.convolution(_statistics(graph, data), "xvector.dense.linear")
    data = graph.normalised(data, "xvector.dense.nonlinear.batchnorm")
    graph.op("Squeeze", data, graph.integers(2), output=OUTPUT)
    return _model(graph, len(tensors["xvector.dense.linear.weight"]))


def _front(graph: _Graph) -> str:
    """The two-dimensional convolutions; their channels and mel bands become one axis."""
    data = graph.op("Transpose", INPUT, perm=[0, 2, 1])
    data = graph.op("Unsqueeze", data, graph.integers(1))
    data = graph.convolution(data, "head.conv1", pads=[1, 1, 1, 1])
    data = graph.activated(data, "head.bn1")
    for layer in ("head.layer1", "head.layer2"):
        data = _residual(graph, data, f"{layer}.0", stride=2)
        data = _residual(graph, data, f"{layer}.1", stride=1)
    data = graph.convolution(data, "head.conv2", strides=[2, 1], pads=[1, 1, 1, 1])
    data = graph.activated(data, "head.bn2")
    n_channels = len(graph.tensors["head.conv2.weight"])
    return graph.op("Reshape", data, graph.integers(0, n_channels * N_MELS // 8, -1))


def _residual(graph: _Graph, data: str, name: str, stride: int) -> str:
    """Two convolutions and a shortcut. The stride is along the mel axis."""
    strides = [stride, 1]
    inner = graph.convolution(data, f"{name}.conv1", strides=strides, pads=[1, 1, 1, 1])
    inner = graph.activated(inner, f"{name}.bn1")
    inner = graph.convolution(inner, f"{name}.conv2", pads=[1, 1, 1, 1])
    inner = graph.normalised(inner, f"{name}.bn2")
    if f"{name}.shortcut.0.weight" in graph.tensors:
        data = graph.convolution(data, f"{name}.shortcut.0", strides=strides)
        data = graph.normalised(data, f"{name}.shortcut.1")
    return graph.op("Relu", graph.op("Add", inner, data))


def _dense_block(graph: _Graph, data: str, number: int, width: int, dilation: int) -> str:
    """A block in which each layer sees the outputs of all earlier ones, and its transition."""
    block = f"xvector.block{number}"
    for layer in count(1):
        name = f"{block}.tdnnd{layer}"
        if f"{name}.linear1.weight" not in graph.tensors:
            break
        added = _dense_layer(graph, data, name, width, dilation)
        data = graph.op("Concat", data, added, axis=1)
    data = graph.activated(data, f"xvector.transit{number}.nonlinear.batchnorm")
    return graph.convolution(data, f"xvector.transit{number}.linear")


def _dense_layer(graph: _Graph, data: str, name: str, width: int, dilation: int) -> str:
    data = graph.activated(data, f"{name}.nonlinear1.batchnorm")
    data = graph.convolution(data, f"{name}.linear1")
    data = graph.activated(data, f"{name}.nonlinear2.batchnorm")
    cam = f"{name}.cam_layer"
    pad = (width - 1) // 2 * dilation
    local = graph.convolution(data, f"{cam}.linear_local", pads=[pad, pad], dilations=[dilation])
    context = graph.convolution(_context(graph, data), f"{cam}.linear1")
    mask = graph.convolution(graph.op("Relu", context), f"{cam}.linear2")
    return graph.op("Mul", local, graph.op("Sigmoid", mask))


def _context(graph: _Graph, data: str) -> str:
    """The mean over all frames plus the mean over the second in which a frame lies."""
    pooled = graph.op(
        "AveragePool",
        data,
        kernel_shape=[CONTEXT_FRAMES],
        strides=[CONTEXT_FRAMES],
        ceil_mode=1,
    )
    # Repeat each mean for its frames: (b, c, s) -> (b, c, s, 100) -> (b, c, 100 s)
    wide = graph.op("Unsqueeze", pooled, graph.integers(3))
    wide = graph.op("Expand", wide, graph.integers(1, 1, 1, CONTEXT_FRAMES))
    wide = graph.op("Reshape", wide, graph.integers(0, 0, -1))
    n_frames = graph.op("Shape", data, start=2, end=3)
    wide = graph.op("Slice", wide, graph.integers(0), n_frames, graph.integers(2))
    return graph.op("Add", graph.op("ReduceMean", data, axes=[2], keepdims=1), wide)


def _statistics(graph: _Graph, data: str) -> str:
    """Mean and unbiased standard deviation over time, concatenated."""
    mean = graph.op("ReduceMean", data, axes=[2], keepdims=1)
    apart = graph.op("Sub", data, mean)
    total = graph.op("ReduceSum", graph.op("Mul", apart, apart), graph.integers(2), keepdims=1)
    n_frames = graph.op("Cast", graph.op("Shape", data, start=2, end=3), to=TensorProto.FLOAT)
    freedom = graph.op("Sub", n_frames, graph.constant("one", np.ones(1, np.float32)))
    deviation = graph.op("Sqrt", graph.op("Div", total, freedom))
    return graph.op("Concat", mean, deviation, axis=1)


def _model(graph: _Graph, size: int) -> ModelProto:
    kind = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(INPUT, kind, ["batch", "frames", N_MELS])]
    outputs = [helper.make_tensor_value_info(OUTPUT, kind, ["batch", size])]
    made = helper.make_graph(
        graph.nodes, "campplus", inputs, outputs, list(graph.constants.values())
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
    checker.check_model(model)
    return model
