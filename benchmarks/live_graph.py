"""The ONNX graph of a GPT-2 that onnxruntime-web runs fastest.

Attention, residual norms and GELU are ONNX Runtime's fused operators, and the
output is a `Gemm` with the token embeddings transposed; the usual exports are
slower. The graph keeps keys and values of earlier positions, either as these
operators want them, or by the names that transformers.js expects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gpt2.model import GPT2

FUSED = "com.microsoft"


class Graph:
    """Nodes and constants, as they are added."""

    def __init__(self, model: GPT2) -> None:
        """Take the constants of a model."""
        self.config = model.config
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        for name, tensor in model.state_dict().items():
            self.constant(name, tensor.float().numpy())

    def constant(self, name: str, value: Any) -> str:
        """Add a constant; return its name."""
        array = np.asarray(value, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self, kind: str, inputs: list[str], outputs: list[str], **how: Any
    ) -> str:
        """Add a node; return the name of its first output."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, **how))
        return outputs[0]


def embed(graph: Graph, past: str, axis: int) -> str:
    """Add token and position embeddings; positions follow the past."""
    g = graph
    g.constant("one", np.array(1, np.int64))
    g.add("Shape", ["input_ids"], ["shape"], start=1, end=2)
    g.add("Shape", [past], ["past_shape"], start=axis, end=axis + 1)
    g.add("Squeeze", ["shape"], ["new"])
    g.add("Squeeze", ["past_shape"], ["old"])
    g.add("Add", ["new", "old"], ["all"])
    g.add("Range", ["old", "all", "one"], ["positions"])
    g.add("Gather", ["wte.weight", "input_ids"], ["tokens"])
    g.add("Gather", ["wpe.weight", "positions"], ["places"])
    return g.add("Add", ["tokens", "places"], ["x"])


def attend(graph: Graph, normed: str, n: int, hugging_face: bool) -> str:
    """Add one layer's attention, but for `c_proj`."""
    layer, heads = f"h.{n}.attn.", graph.config.n_head
    maps = [f"{layer}c_attn.weight", f"{layer}c_attn.bias"]
    if not hugging_face:
        inputs = [normed, *maps, "", f"past.{n}"]
        outputs = [f"{layer}mixed", f"present.{n}"]
        how = {"num_heads": heads, "unidirectional": 1, "domain": FUSED}
        return graph.add("Attention", inputs, outputs, **how)
    graph.add("MatMul", [normed, maps[0]], [f"{layer}product"])
    graph.add("Add", [f"{layer}product", maps[1]], [f"{layer}qkv"])
    thirds = [f"{layer}{third}" for third in ("query", "key", "value")]
    graph.add("Split", [f"{layer}qkv"], thirds, axis=2, num_outputs=3)
    past = [f"past_key_values.{n}.{kind}" for kind in ("key", "value")]
    present = [f"present.{n}.{kind}" for kind in ("key", "value")]
    return graph.add(
        "MultiHeadAttention",
        [*thirds, "", "", "", *past],
        [f"{layer}mixed", *present],
        num_heads=heads,
        unidirectional=1,
        domain=FUSED,
    )


def write_graph(model: GPT2, path: Path, hugging_face: bool = False) -> None:
    """Write a model as ONNX.

    Args:
        model: In any dtype; the graph is float32.
        path: The file.
        hugging_face: Name inputs and outputs as transformers.js expects.
    """
    g, config = Graph(model), model.config
    first = "past_key_values.0.key" if hugging_face else "past.0"
    x = embed(g, first, 2 if hugging_face else 3)
    epsilon = config.layer_norm_epsilon
    names = [f"h.{n}.ln_1" for n in range(config.n_layer)] + ["ln_f"]
    scale = [f"{names[0]}.weight", f"{names[0]}.bias"]
    normed = g.add(
        "LayerNormalization", [x, *scale], ["normed"], epsilon=epsilon
    )
    for n in range(config.n_layer):
        h = f"h.{n}."
        mixed = attend(g, normed, n, hugging_face)
        g.add("MatMul", [mixed, f"{h}attn.c_proj.weight"], [f"{h}found"])
        normed, x = residual(
            g, f"{h}found", x, f"{h}ln_2", f"{h}attn.c_proj.bias", epsilon
        )
        g.add("MatMul", [normed, f"{h}mlp.c_fc.weight"], [f"{h}wide"])
        g.add(
            "FastGelu",
            [f"{h}wide", f"{h}mlp.c_fc.bias"],
            [f"{h}active"],
            domain=FUSED,
        )
        g.add("MatMul", [f"{h}active", f"{h}mlp.c_proj.weight"], [f"{h}added"])
        normed, x = residual(
            g, f"{h}added", x, names[n + 1], f"{h}mlp.c_proj.bias", epsilon
        )
    unembed(g, normed, hugging_face)
    save(g, path, hugging_face)


def residual(
    g: Graph, added: str, x: str, norm: str, bias: str, epsilon: float
) -> tuple[str, str]:
    """Add to the residual stream; return its norm, and the stream."""
    outputs = [f"{norm}.out", "", "", f"{norm}.stream"]
    inputs = [added, x, f"{norm}.weight", f"{norm}.bias", bias]
    g.add(
        "SkipLayerNormalization",
        inputs,
        outputs,
        domain=FUSED,
        epsilon=epsilon,
    )
    return outputs[0], outputs[3]


def unembed(g: Graph, normed: str, hugging_face: bool) -> None:
    """Add the logits after the last token: (1, V), or (1, 1, V)."""
    g.constant("last", np.array(-1, np.int64))
    g.add("Gather", [normed, "last"], ["end"], axis=1)
    outputs = ["row" if hugging_face else "logits"]
    g.add("Gemm", ["end", "wte.weight"], outputs, transB=1)
    if hugging_face:
        g.constant("axis", np.array([1], np.int64))
        g.add("Unsqueeze", ["row", "axis"], ["logits"])


def save(g: Graph, path: Path, hugging_face: bool) -> None:
    """Declare inputs and outputs, and write the file."""
    config = g.config
    heads, width, size = config.n_head, config.head_size, config.n_vocab
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    of = helper.make_tensor_value_info
    inputs = [of("input_ids", whole, [1, "T"])]
    outputs = [of("logits", real, [1, 1, size] if hugging_face else [1, size])]
    if hugging_face:
        inputs.append(of("attention_mask", whole, [1, "S"]))
    for n in range(config.n_layer):
        if not hugging_face:
            shape = [2, 1, heads, "P", width]
            inputs.append(of(f"past.{n}", real, shape))
            outputs.append(of(f"present.{n}", real, [*shape[:3], "S", width]))
            continue
        for kind in ("key", "value"):
            name, shape = f"{n}.{kind}", [1, heads, "P", width]
            inputs.append(of(f"past_key_values.{name}", real, shape))
            shape = [1, heads, "S", width]
            outputs.append(of(f"present.{name}", real, shape))
    graph = helper.make_graph(g.nodes, "gpt2", inputs, outputs, g.constants)
    sets = [helper.make_opsetid("", 18), helper.make_opsetid(FUSED, 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
