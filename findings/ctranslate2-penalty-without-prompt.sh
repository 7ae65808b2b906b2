#!/bin/sh
# ctranslate2 4.8.5: whether `repetition_penalty` counts the tokens of the
# prompt depends on `include_prompt_in_result`, which is documented to say only
# whether the result begins with the prompt. If it is true, the default, they
# count, but for the first; if it is false, none of them does. So the same
# prompt with the same penalty is continued differently.
#
# transformers, after which the penalty is modelled, counts every token.
#
# Observed (Linux x86-64), on a model whose logits are always A 4, B 3 and C 0,
# with a penalty of 2, without sampling:
#     prompt   penalty   with the prompt   without
#     C A C    1         A                 A
#     C A C    2         B                 A
#     A C      2         A                 A
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ctranslate2==4.8.5 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.specs import Activation, TransformerDecoderModelSpec

WORDS, LOGITS = ["A", "B", "C", "<|endoftext|>"], [4, 3, 0, -50]
SIZE, PLACES = 32, 16


def zeros(*shape):
    return np.zeros(shape, np.float32)


def write(folder):
    """Write a GPT-2 whose last norm ignores its input."""
    spec = TransformerDecoderModelSpec.from_config(
        1, 2, activation=Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = zeros(len(WORDS), SIZE)
    decoder.position_encodings.encodings = zeros(PLACES, SIZE)
    layer = decoder.layer[0]
    for norm in (
        *(decoder.layer_norm, layer.self_attention.layer_norm),
        layer.ffn.layer_norm,
    ):
        norm.gamma, norm.beta = zeros(SIZE), zeros(SIZE)
    decoder.layer_norm.beta[0] = 1
    for linear, n_out, n_in in (
        (layer.self_attention.linear[0], 3 * SIZE, SIZE),
        (layer.self_attention.linear[1], SIZE, SIZE),
        (layer.ffn.linear_0, 4 * SIZE, SIZE),
        (layer.ffn.linear_1, SIZE, 4 * SIZE),
    ):
        linear.weight, linear.bias = zeros(n_out, n_in), zeros(n_out)
    decoder.projection.weight = zeros(len(WORDS), SIZE)
    decoder.projection.weight[:, 0] = LOGITS
    spec.register_vocabulary(WORDS)
    for name in ("bos_token", "eos_token", "unk_token"):
        setattr(spec.config, name, WORDS[-1])
    spec.validate()
    Path(folder).mkdir()
    spec.save(folder)


def following(prompt, penalty, shown):
    """Return the token that the model writes after the prompt."""
    (result,) = generator.generate_batch(
        [prompt],
        max_length=len(prompt) if shown else 1,
        repetition_penalty=penalty,
        include_prompt_in_result=shown,
    )
    return result.sequences[0][len(prompt) if shown else 0]


write("model")
generator = ctranslate2.Generator("model")
print("ctranslate2", version("ctranslate2"))
print("prompt   penalty   with the prompt   without")
for prompt, penalty, expected in (
    ("CAC", 1, ("A", "A")),
    ("CAC", 2, ("B", "A")),
    ("AC", 2, ("A", "A")),
):
    words = list(prompt)
    came = tuple(following(words, penalty, shown) for shown in (True, False))
    print(f"{' '.join(words):8} {penalty:<9} {came[0]:17} {came[1]}")
    assert came == expected, came
PYTHON
