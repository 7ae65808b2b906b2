#!/bin/sh
# openvino 2026.4.1, CPU: attention over a cache that is kept as state is one
# operation only if `beam_idx`, which reorders the cache, is int32. With int64,
# which the graph takes as well, it becomes a chain of many operations, which
# compute the same, but slower. Nothing is said.
#
# Observed (Linux x86-64): operations of the compiled model that the other does
# not have
#     beam_idx int32   ScaledDotProductAttention
#     beam_idx int64   Convert, Eltwise, Subgraph, Transpose
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import openvino as ov
from openvino import opset13 as ops

FUSED = "ScaledDotProductAttention"


def compiled(kind):
    """Compile attention with 2 heads of width 16 over a growing cache."""
    shape = [-1, 2, -1, 16]
    query, key, value = (
        ops.parameter(shape, np.float32, name=name) for name in "qkv"
    )
    beam = ops.parameter([-1], kind, name="beam_idx")
    n_rows = ops.gather(
        ops.shape_of(query), ops.constant([0]), ops.constant(0)
    )
    rest = ops.constant(np.array([2, 0, 16], np.int64))
    empty = ops.broadcast(
        ops.constant(0.0, dtype=np.float32), ops.concat([n_rows, rest], 0)
    )
    sinks, parts = [], []
    for name, new in (("key", key), ("value", value)):
        info = ov.op.util.VariableInfo()
        info.data_shape = ov.PartialShape(shape)
        info.data_type, info.variable_id = ov.Type.f32, name
        variable = ov.op.util.Variable(info)
        old = ops.read_value(empty, variable)
        old = ops.gather(old, beam, ops.constant(0))
        both = ops.concat([old, new], 2)
        sinks.append(ops.assign(both, variable))
        parts.append(both)
    mixed = ops.scaled_dot_product_attention(query, *parts)
    result = ops.result(mixed)
    model = ov.Model([result], sinks, [query, key, value, beam])
    # The fused operation would keep the cache in 8 bits.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    return ov.Core().compile_model(model, "CPU", exact)


def steps(model, kind):
    """Attend three times, a position more each time."""
    request, found = model.create_infer_request(), []
    draw = np.random.default_rng(0)
    for _ in range(3):
        q, k, v = draw.standard_normal((3, 1, 2, 1, 16), np.float32)
        came = request.infer([q, k, v, np.zeros(1, kind)])
        found.append(came[model.output(0)].copy())
    return np.stack(found)


def operations(model):
    """Return the kinds of operation that the CPU executes."""
    kinds = [
        node.get_rt_info()["layerType"]
        for node in model.get_runtime_model().get_ops()
    ]
    return {kind if isinstance(kind, str) else kind.get() for kind in kinds}


print("openvino", version("openvino"))
models = {kind: compiled(kind) for kind in (np.int32, np.int64)}
whole, parts = (operations(model) for model in models.values())
print("beam_idx int32  ", ", ".join(sorted(whole - parts)))
print("beam_idx int64  ", ", ".join(sorted(parts - whole)))
assert FUSED in whole - parts, (whole, parts)
outputs = [steps(model, kind) for kind, model in models.items()]
assert np.allclose(*outputs, atol=1e-5)
PYTHON
