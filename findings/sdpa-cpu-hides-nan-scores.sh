#!/bin/sh
# torch 2.13.0, CPU: F.scaled_dot_product_attention returns zeros for a query
# whose scores are all NaN. The same call with the MATH backend returns NaN, and
# so does the formula step by step.
#
# The inputs are finite. Queries and keys of 1e20 overflow in float32, and a
# score of infinity minus infinity is NaN. So a model that has diverged in this
# way has finite outputs, and checking the loss for NaN does not catch it.
#
# Observed (torch 2.13.0+cpu, Linux x86-64):
#     scores         all NaN
#     written out    all NaN
#     MATH backend   all NaN
#     default        all 0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

query = torch.full((1, 1, 3, 4), 1e20)
key = query.clone()
key[..., ::2] *= -1
value = torch.ones(1, 1, 3, 4)
assert query.isfinite().all() and key.isfinite().all()

scores = query @ key.mT / 2
written_out = scores.softmax(-1) @ value
with sdpa_kernel(SDPBackend.MATH):
    by_formula = F.scaled_dot_product_attention(query, key, value)
default = F.scaled_dot_product_attention(query, key, value)

print("torch", torch.__version__)
for name, came in (
    ("scores", scores),
    ("written out", written_out),
    ("MATH backend", by_formula),
):
    print(f"{name:14} all NaN: {bool(came.isnan().all())}")
    assert came.isnan().all(), name
print(f"{'default':14} all 0:   {bool((default == 0).all())}")
assert (default == 0).all(), default
PYTHON
