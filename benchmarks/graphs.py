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
    from openvino import opset13 as ops
    from openvino._offline_transformations import (
        apply_make_stateful_transformation,
    )

    config = model.config
    heads = (config.n_head, config.head_size)
    past = [
        torch.zeros(2, heads[0], 3, heads[1])
        for _ in range(2 * config.n_layer)
    ]
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
    # OpenVINO GenAI finds the inputs by the names of their nodes too.
    for name, place in zip(OPENVINO_INPUTS, graph.inputs, strict=False):
        place.get_tensor().set_names({name})
        place.get_node().set_friendly_name(name)
    state = {}
    for i, (old, new) in enumerate(
        zip(graph.inputs[4:], graph.outputs[1:], strict=True)
    ):
        old.get_tensor().set_names({f"past.{i}"})
        new.get_tensor().set_names({f"present.{i}"})
        shape = openvino.PartialShape([-1, heads[0], -1, heads[1]])
        old.get_node().set_partial_shape(shape)
        state[f"past.{i}"] = f"present.{i}"
    graph.outputs[0].get_tensor().set_names({"logits"})
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, state)
    # At first there is nothing for any of the sequences.
    sizes = ops.shape_of(graph.input("input_ids"), output_type="i64")
    zero = ops.constant(0, dtype=np.int64)
    n_rows = ops.gather(sizes, ops.constant([0], dtype=np.int64), zero)
    rest = ops.constant(np.array([heads[0], 0, heads[1]], np.int64))
    empty = ops.concat([n_rows, rest], 0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            nothing = ops.constant(0.0, dtype=np.float32)
            node.set_arguments([ops.broadcast(nothing, empty)])
    graph.validate_nodes_and_infer_types()
    return graph


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


def onnx_graph(model: GPT2) -> Any:
    """Return an ONNX graph of the operators that ONNX Runtime fuses to.

    `GroupQueryAttention` writes keys and values into the buffers that it reads
    them from, so that no step copies them.
    """
    from onnx import TensorProto, helper

    config, g = model.config, Builder()
    epsilon = config.layer_norm_epsilon
    table = g.weight("wte", model.wte.weight)
    places = g.weight("wpe", model.wpe.weight)
    x = g.add("Gather", [table, "tokens"], "token_vectors")
    at = g.add("Gather", [places, "positions"], "position_vectors")
    x = g.add("Add", [x, at], "embeddings")
    delta = ""
    for i, layer in enumerate(model.h):

        def named(part: str, i: int = i) -> str:
            return f"h.{i}.{part}"

        def linear(
            module: Any, x: str, part: str, named: Any = named
        ) -> tuple[str, str]:
            """Return the product's name and its bias'."""
            weight = g.weight(named(f"{part}.weight"), module.weight)
            bias = g.weight(named(f"{part}.bias"), module.bias)
            return g.add("MatMul", [x, weight], named(part)), bias

        x, y = _norm(g, x, delta, layer.ln_1, named("ln_1"), epsilon)
        qkv, bias = linear(layer.attn.c_attn, y, "c_attn")
        qkv = g.add("Add", [qkv, bias], named("qkv"))
        past = (f"past.{2 * i}", f"past.{2 * i + 1}")
        mixed = g.add(
            "+GroupQueryAttention",
            [qkv, "", "", *past, "last", "total"],
            named("attention"),
            (f"present.{2 * i}", f"present.{2 * i + 1}"),
            num_heads=config.n_head,
            kv_num_heads=config.n_head,
        )
        back, bias = linear(layer.attn.c_proj, mixed, "attn_c_proj")
        back = g.add("Add", [back, bias], named("attn_out"))
        x, y = _norm(g, x, back, layer.ln_2, named("ln_2"), epsilon)
        wide, bias = linear(layer.mlp.c_fc, y, "c_fc")
        wide = g.add("+FastGelu", [wide, bias], named("gelu"))
        delta, bias = linear(layer.mlp.c_proj, wide, "mlp_c_proj")
        delta = g.add("Add", [delta, bias], named("mlp_out"))
    _, y = _norm(g, x, delta, model.ln_f, "ln_f", epsilon)
    minus_one = g.weight("minus_one", torch.tensor(-1))
    y = g.add("Gather", [y, minus_one], "last_vectors", axis=1)
    head = g.weight("lm_head", model.wte.weight.T)
    g.add("MatMul", [y, head], "logits")

    def value(name: str, kind: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    names = [f".{i}" for i in range(2 * config.n_layer)]
    kept = ("B", config.n_head, "S", config.head_size)
    numbers, wholes = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        g.nodes,
        "gpt2",
        [
            value("tokens", wholes, "B", "T"),
            value("positions", wholes, "B", "T"),
            value("last", TensorProto.INT32, "B"),
            value("total", TensorProto.INT32),
            *(value(f"past{name}", numbers, *kept) for name in names),
        ],
        [
            value("logits", numbers, "B", config.n_vocab),
            *(value(f"present{name}", numbers, *kept) for name in names),
        ],
        g.weights,
    )
    versions = [
        helper.make_opsetid("", 21),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def _norm(
    g: Builder, x: str, delta: str, module: Any, name: str, epsilon: float
) -> tuple[str, str]:
    """Return the names of x + delta and of its layer norm."""
    weight = g.weight(f"{name}.weight", module.weight)
    bias = g.weight(f"{name}.bias", module.bias)
    if not delta:
        return x, g.add(
            "LayerNormalization", [x, weight, bias], name, epsilon=epsilon
        )
    total = f"{name}.sum"
    g.add(
        "+SkipLayerNormalization",
        [x, delta, weight, bias],
        name,
        ("", "", total),
        epsilon=epsilon,
    )
    return total, name


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
