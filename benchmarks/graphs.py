"""GPT-2 as the graphs that OpenVINO and ONNX Runtime read.

Both engines want keys and values as inputs and outputs of the graph. Their own
converters do not run with this project's version of transformers
(optimum-intel 2.2 and optimum-onnx 0.1 ask for an older one, and the model
builder of onnxruntime-genai does not know GPT-2). So the graphs are made here,
out of the operators that those converters use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt2.config import GPT2Config
from gpt2.layer import GPT2Layer
from gpt2.layer_norm import LayerNorm
from gpt2.linear import Linear
from gpt2.model import GPT2

OPENVINO_INPUTS = ("input_ids", "position_ids", "attention_mask", "beam_idx")


class Traced(nn.Module):
    """GPT-2 as plain tensor operations, with all keys and values visible."""

    def __init__(self, model: GPT2) -> None:
        """Take the weights of a model."""
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,  # (B, T)
        position_ids: Tensor,  # (B, T)
        attention_mask: Tensor,  # (B, S)
        beam_idx: Tensor,  # (B,), int32: which cached sequence each continues
        past: list[Tensor],  # keys and values of each layer, (B, H, S - T, D)
    ) -> tuple[Tensor, ...]:
        """Return logits (B, T, V), and the keys and values (B, H, S, D)."""
        model, now = self.model, []
        n_head, size = model.config.n_head, model.config.head_size
        x = model.wte.weight[input_ids] + model.wpe.weight[position_ids]
        for layer, *before in zip(model.h, past[::2], past[1::2], strict=True):
            parts = layer.attn.c_attn(layer.ln_1(x)).chunk(3, -1)
            query, *new = (
                part.unflatten(-1, (n_head, size)).transpose(1, 2)
                for part in parts
            )
            key, value = (
                torch.cat([old.index_select(0, beam_idx), more], 2)
                for old, more in zip(before, new, strict=True)
            )
            now += [key, value]
            places = torch.arange(key.size(2))
            mask = places <= position_ids[:, None, :, None]
            mask = mask & attention_mask.bool()[:, None, None]
            mixed = nn.functional.scaled_dot_product_attention(
                query, key, value, mask
            )
            x = x + layer.attn.c_proj(mixed.transpose(1, 2).flatten(2))
            wide = layer.mlp.c_fc(layer.ln_2(x))
            wide = nn.functional.gelu(wide, approximate="tanh")
            x = x + layer.mlp.c_proj(wide)
        return (model.ln_f(x) @ model.wte.weight.T, *now)


def openvino_graph(model: GPT2) -> Any:
    """Return the graph with keys and values as its state.

    See "Obtaining a Stateful OpenVINO Model",
    https://docs.openvino.ai/2024/openvino-workflow/running-inference/stateful-models/obtaining-stateful-openvino-model.html
    """
    import openvino
    from openvino._offline_transformations import (
        apply_make_stateful_transformation,
    )

    config = model.config
    shape = (2, config.n_head, 3, config.head_size)
    past = [torch.zeros(shape) for _ in range(2 * config.n_layer)]
    with torch.no_grad():
        graph = openvino.convert_model(
            Traced(model).eval(),
            example_input=(
                torch.zeros(2, 4, dtype=torch.long),
                torch.arange(3, 7).expand(2, 4),
                torch.ones(2, 7, dtype=torch.long),
                torch.arange(2, dtype=torch.int32),
                past,
            ),
        )
    state = _name_places(graph, config)
    apply_make_stateful_transformation(graph, state)
    _begin_empty(graph, config)
    return graph


def _name_places(graph: Any, config: GPT2Config) -> dict[str, str]:
    """Name inputs and outputs, and return which outputs replace which inputs.

    OpenVINO GenAI finds the inputs by the names of their nodes, not only by
    those of their tensors.
    """
    import openvino

    for name, place in zip(OPENVINO_INPUTS, graph.inputs, strict=False):
        place.get_tensor().set_names({name})
        place.get_node().set_friendly_name(name)
    graph.outputs[0].get_tensor().set_names({"logits"})
    shape = openvino.PartialShape([-1, config.n_head, -1, config.head_size])
    state = {}
    for i, (old, new) in enumerate(
        zip(graph.inputs[4:], graph.outputs[1:], strict=True)
    ):
        old.get_tensor().set_names({f"past.{i}"})
        new.get_tensor().set_names({f"present.{i}"})
        old.get_node().set_partial_shape(shape)
        state[f"past.{i}"] = f"present.{i}"
    graph.validate_nodes_and_infer_types()
    return state


def _begin_empty(graph: Any, config: GPT2Config) -> None:
    """Let each sequence begin without keys and values."""
    from openvino import opset13 as ops

    sizes = ops.shape_of(graph.input("input_ids"), output_type="i64")
    zero = ops.constant(0, dtype=np.int64)
    n_rows = ops.gather(sizes, ops.constant([0], dtype=np.int64), zero)
    rest = np.array([config.n_head, 0, config.head_size], np.int64)
    empty = ops.concat([n_rows, ops.constant(rest)], 0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            nothing = ops.constant(0.0, dtype=np.float32)
            node.set_arguments([ops.broadcast(nothing, empty)])
    graph.validate_nodes_and_infer_types()


def write_openvino(folder: Path, model: GPT2, source: Path, kind: str) -> None:
    """Write a folder for OpenVINO GenAI.

    Args:
        folder: Where to write.
        model: The model.
        source: Its folder in the layout of transformers.
        kind: The weights: "float32", or compressed as in "LLM Weight
            Compression",
            https://docs.openvino.ai/2024/openvino-workflow/model-optimization-guide/weight-compression.html
            to "int8" or "int4".
    """
    import nncf
    import openvino
    import openvino_tokenizers
    from transformers import AutoTokenizer

    graph = openvino_graph(model)
    if kind == "int8":
        graph = nncf.compress_weights(graph)
    elif kind == "int4":
        mode = nncf.CompressWeightsMode.INT4_SYM
        graph = nncf.compress_weights(
            graph, mode=mode, group_size=64, ratio=1.0
        )
    folder.mkdir(parents=True)
    path = folder / "openvino_model.xml"
    openvino.save_model(graph, path, compress_to_fp16=False)
    # The pipeline wants a tokenizer, although it gets token ids.
    both = openvino_tokenizers.convert_tokenizer(
        AutoTokenizer.from_pretrained(source), with_detokenizer=True
    )
    for name, one in zip(("tokenizer", "detokenizer"), both, strict=True):
        openvino.save_model(one, folder / f"openvino_{name}.xml")
    config = (source / "config.json").read_bytes()
    (folder / "config.json").write_bytes(config)


class Builder:
    """An ONNX graph that grows node by node."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, values: Tensor) -> str:
        """Add a weight, and return its name."""
        from onnx import numpy_helper

        array = values.detach().contiguous().numpy()
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self,
        kind: str,
        inputs: list[str],
        name: str,
        more: tuple[str, ...] = (),
        **settings: Any,
    ) -> str:
        """Add a node, and return the name of its first output.

        Kinds that start with "+" are ONNX Runtime's own:
        https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
        """
        from onnx import helper

        node = helper.make_node(
            kind.removeprefix("+"),
            inputs,
            [name, *more],
            name=name,
            domain="com.microsoft" if kind.startswith("+") else "",
            **settings,
        )
        self.nodes.append(node)
        return name

    def linear(
        self, x: str, module: Linear, name: str, kind: str = "Add"
    ) -> str:
        """Multiply by a matrix, and add its bias in a node of some kind."""
        weight = self.weight(f"{name}.weight", module.weight)
        bias = self.weight(f"{name}.bias", module.bias)
        product = self.add("MatMul", [x, weight], name)
        return self.add(kind, [product, bias], f"{name}.out")

    def norm(
        self, x: str, delta: str, module: LayerNorm, name: str
    ) -> tuple[str, str]:
        """Return the names of x + delta, if there is one, and of its norm."""
        weight = self.weight(f"{name}.weight", module.weight)
        bias = self.weight(f"{name}.bias", module.bias)
        kind, inputs, total = "LayerNormalization", [x], x
        more: tuple[str, ...] = ()
        if delta:
            kind, inputs = "+SkipLayerNormalization", [x, delta]
            total = f"{name}.sum"
            more = ("", "", total)
        inputs += [weight, bias]
        self.add(kind, inputs, name, more, epsilon=module.epsilon)
        return total, name


def onnx_graph(model: GPT2) -> Any:
    """Return an ONNX graph of the operators that ONNX Runtime fuses to.

    `GroupQueryAttention` writes keys and values into the buffers that it reads
    them from, so that no step copies them.
    """
    from onnx import helper

    config, g = model.config, Builder()
    table = g.weight("wte", model.wte.weight)
    places = g.weight("wpe", model.wpe.weight)
    x = g.add("Gather", [table, "tokens"], "token_vectors")
    at = g.add("Gather", [places, "positions"], "position_vectors")
    x, delta = g.add("Add", [x, at], "embeddings"), ""
    for i, layer in enumerate(model.h):
        x, delta = _layer(g, i, layer, x, delta)
    _, y = g.norm(x, delta, model.ln_f, "ln_f")
    last = g.weight("minus_one", torch.tensor(-1))
    y = g.add("Gather", [y, last], "last_vectors", axis=1)
    head = g.weight("lm_head", model.wte.weight.T)
    g.add("MatMul", [y, head], "logits")
    graph = helper.make_graph(g.nodes, "gpt2", *_interface(config), g.weights)
    versions = [
        helper.make_opsetid("", 21),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def _layer(
    g: Builder, i: int, layer: GPT2Layer, x: str, delta: str
) -> tuple[str, str]:
    """Add a layer, and return the names of its input and of what it adds.

    What the last layer adds is added to x on the way, with the norm.
    """
    name, attention = f"h.{i}.", layer.attn
    x, y = g.norm(x, delta, layer.ln_1, f"{name}ln_1")
    qkv = g.linear(y, attention.c_attn, f"{name}c_attn")
    past = (f"past.{2 * i}", f"past.{2 * i + 1}")
    mixed = g.add(
        "+GroupQueryAttention",
        [qkv, "", "", *past, "last", "total"],
        f"{name}attention",
        (f"present.{2 * i}", f"present.{2 * i + 1}"),
        num_heads=attention.n_head,
        kv_num_heads=attention.n_head,
    )
    back = g.linear(mixed, attention.c_proj, f"{name}attn_c_proj")
    x, y = g.norm(x, back, layer.ln_2, f"{name}ln_2")
    # The bias is part of the activation.
    wide = g.linear(y, layer.mlp.c_fc, f"{name}c_fc", "+FastGelu")
    return x, g.linear(wide, layer.mlp.c_proj, f"{name}mlp_c_proj")


def _interface(config: GPT2Config) -> tuple[list[Any], list[Any]]:
    """Return the inputs and the outputs of the ONNX graph."""
    from onnx import TensorProto, helper

    def value(name: str, kind: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    names = [f".{i}" for i in range(2 * config.n_layer)]
    kept = ("B", config.n_head, "S", config.head_size)
    numbers, wholes = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        value("tokens", wholes, "B", "T"),
        value("positions", wholes, "B", "T"),
        value("last", TensorProto.INT32, "B"),
        value("total", TensorProto.INT32),
        *(value(f"past{name}", numbers, *kept) for name in names),
    ]
    outputs = [
        value("logits", numbers, "B", config.n_vocab),
        *(value(f"present{name}", numbers, *kept) for name in names),
    ]
    return inputs, outputs


def write_onnx(path: Path, model: GPT2, kind: str) -> None:
    """Write a file for ONNX Runtime.

    Args:
        path: Where to write.
        model: The model.
        kind: The weights: "float32"; "int8", quantised dynamically; or "int4",
            in groups of 32. See "Quantize ONNX models",
            https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnx

    graph = onnx_graph(model)
    if kind == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Shapes behind ONNX Runtime's own kinds of node are not inferred.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return
    if kind == "int4":
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            MatMulNBitsQuantizer,
        )

        quantizer = MatMulNBitsQuantizer(
            graph,
            block_size=32,
            is_symmetric=True,
            accuracy_level=4,  # multiply in int8
        )
        quantizer.process()
        graph = quantizer.model.model
    onnx.save(graph, path)
