#!/bin/sh
# ctranslate2 4.8.5: the converter ignores layer_norm_epsilon,
# scale_attn_weights and scale_attn_by_inverse_layer_idx of a GPT-2. There is no
# error and no warning, and the converted model computes something else.
#
# Observed (transformers 5.23.0, Linux x86-64): the largest difference between
# the logits of CTranslate2 and of transformers, for random models of width 32:
#     0.0000   GPT-2's own settings
#     4.0962   layer_norm_epsilon 0.1
#     3.1645   scale_attn_weights False
#     1.3189   scale_attn_by_inverse_layer_idx True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ctranslate2==4.8.5 \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from transformers import GPT2Config, GPT2LMHeadModel

SETTINGS = (
    ({}, 0, 0.001),
    ({"layer_norm_epsilon": 0.1}, 1, 10),
    ({"scale_attn_weights": False}, 1, 10),
    ({"scale_attn_by_inverse_layer_idx": True}, 0.5, 10),
)
ids = list(range(3, 27))
words = {**{f"w{i}": i for i in range(63)}, "<|endoftext|>": 63}


def difference(number, fields):
    """Return how far the logits of CTranslate2 are from transformers'."""
    folder = Path(f"model-{number}")
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=32, n_layer=3, n_head=2,
        bos_token_id=63, eos_token_id=63, **fields
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            scale = ".ln_" in name and name.endswith("weight")
            tensor.copy_(0.3 * torch.randn_like(tensor) + scale)
        right = model(torch.tensor([ids])).logits[0].numpy()
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    TransformersConverter(str(folder)).convert(f"converted-{number}")
    generator = ctranslate2.Generator(f"converted-{number}")
    return abs(np.array(generator.forward_batch([ids]))[0] - right).max()


print("ctranslate2", version("ctranslate2"))
for number, (fields, low, high) in enumerate(SETTINGS):
    found = difference(number, fields)
    print(f"{found:8.4f}", fields or "GPT-2's own settings")
    assert low <= found < high, (fields, found)
PYTHON
