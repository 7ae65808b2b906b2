"""Write a GPT-2 checkpoint with TensorFlow, like those that OpenAI published.

The folder `gpt2_book/data/tensorflow-tiny` came from here; Chapter 8 and the
tests read it without TensorFlow. To write it again, install TensorFlow
somewhere else, so that the project stays without it:

    python -m venv /tmp/tf
    . /tmp/tf/bin/activate
    pip install tensorflow-cpu==2.21.0
    cd gpt2_book/data
    python ../../tests/write_tensorflow_checkpoint.py tensorflow-tiny

`--size 124M` writes random values of the size of the smallest published model,
half a gigabyte. OpenAI's folders also hold `model.ckpt.meta`, the program that
computes the model, which is of no use without TensorFlow and not written here.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

SIZES = {
    "tiny": (17, 8, 12, 3, 2),
    "124M": (50257, 1024, 768, 12, 12),
}


def variable_shapes(
    n_vocab: int, n_ctx: int, n_embd: int, n_layer: int
) -> dict[str, list[int]]:
    """Name the variables of openai/gpt-2 src/model.py, with their shapes."""
    shapes = {"wpe": [n_ctx, n_embd], "wte": [n_vocab, n_embd]}
    for layer in range(n_layer):
        for norm in ("ln_1", "ln_2"):
            shapes[f"h{layer}/{norm}/g"] = [n_embd]
            shapes[f"h{layer}/{norm}/b"] = [n_embd]
        for linear, n_in, n_out in (
            ("attn/c_attn", n_embd, 3 * n_embd),
            ("attn/c_proj", n_embd, n_embd),
            ("mlp/c_fc", n_embd, 4 * n_embd),
            ("mlp/c_proj", 4 * n_embd, n_embd),
        ):
            # A convolution of width 1, hence the first axis.
            shapes[f"h{layer}/{linear}/w"] = [1, n_in, n_out]
            shapes[f"h{layer}/{linear}/b"] = [n_out]
    return {**shapes, "ln_f/g": [n_embd], "ln_f/b": [n_embd]}


def write(folder: Path, size: str) -> None:
    """Write a checkpoint and its `hparams.json` into `folder`."""
    n_vocab, n_ctx, n_embd, n_head, n_layer = SIZES[size]
    tf.compat.v1.disable_eager_execution()
    # Whole numbers over 1024 are exact in float32: every machine draws the
    # same values.
    random = np.random.RandomState(2019)
    with tf.compat.v1.Session() as session:
        with tf.compat.v1.variable_scope("model"):
            shapes = variable_shapes(n_vocab, n_ctx, n_embd, n_layer)
            for name, shape in shapes.items():
                values = random.randint(-512, 513, size=shape) / 1024
                variable = tf.compat.v1.get_variable(
                    name, shape, tf.float32, use_resource=False
                )
                variable.load(values.astype(np.float32), session)
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder / "model.ckpt")
        saver.save(session, path, write_meta_graph=False)
    hparams = {
        "n_vocab": n_vocab,
        "n_ctx": n_ctx,
        "n_embd": n_embd,
        "n_head": n_head,
        "n_layer": n_layer,
    }
    (folder / "hparams.json").write_text(json.dumps(hparams, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a GPT-2 checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.size)
