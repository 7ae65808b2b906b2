"""What fewer bits cost: the loss of the story model, here and in llama.cpp.

    benchmarks/.venv/bin/python benchmarks/rounding.py    # a minute or two

The trained weights are rounded to every format of the package and to those of
llama.cpp that people use, and the loss on new stories is compared with that of
the model in float32. Then an outlier is planted behind every norm: one number
of each vector is made larger, and the row of the matrix that it meets smaller
by the same factor. So the model computes what it did, and only the rounding
becomes harder. Large trained models have such outliers (Dettmers et al., 2022,
arXiv:2208.07339, section 4).
"""

from __future__ import annotations

import copy
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below

from check_gguf import LlamaCpp  # noqa: E402
from checkpoint import LLAMA_QUANTIZED, quantize  # noqa: E402

import gpt2  # noqa: E402
from gpt2 import stories  # noqa: E402
from gpt2.inference.compiled import PRECISIONS  # noqa: E402
from gpt2.weights.gguf_writing import write_gguf  # noqa: E402

RESULTS = HERE / "results" / "rounding.md"
FACTORS = (1, 10, 100, 400)
PLACES = (7, 8, 100)  # which of the numbers becomes an outlier
N_STORIES = 32

Logits = Callable[[list[int]], Tensor]


def planted(model: gpt2.GPT2, factor: float, place: int) -> gpt2.GPT2:
    """Return the same function, with an outlier behind every norm."""
    model = copy.deepcopy(model)
    for layer in model.h:
        for norm, linear in (
            (layer.ln_1, layer.attn.c_attn),
            (layer.ln_2, layer.mlp.c_fc),
        ):
            norm.weight[place] *= factor
            norm.bias[place] *= factor
            linear.weight[place] /= factor
    return model


def loss(logits: Logits, sequences: list[list[int]]) -> float:
    """Return the loss in nats per token."""
    losses = [
        torch.nn.functional.cross_entropy(
            logits(ids[:-1]).float(), torch.tensor(ids[1:]), reduction="none"
        )
        for ids in sequences
    ]
    return torch.cat(losses).mean().item()


def engines(
    model: gpt2.GPT2, tokenizer: gpt2.Tokenizer, folder: Path
) -> Iterator[tuple[str, Logits]]:
    """Yield each engine's name and what computes its logits."""
    for precision in PRECISIONS:
        packed = gpt2.for_inference(model, precision)
        yield (
            f"gpt2 {precision}",
            lambda ids, packed=packed: packed(torch.tensor([ids]))[0],
        )
    full = folder / "full.gguf"
    write_gguf(full, model, tokenizer, "f32")
    for name in ("Q8_0", *LLAMA_QUANTIZED):
        path = folder / f"{name}.gguf"
        quantize(full, path, name)
        theirs = LlamaCpp(path)
        yield (
            f"llama.cpp {name}",
            lambda ids, theirs=theirs: torch.from_numpy(theirs.logits(ids)),
        )
        path.unlink()
    full.unlink()


@torch.no_grad()
def main() -> None:
    """Measure, print a table and keep it."""
    torch.set_num_threads(1)
    model, tokenizer = gpt2.load("story")
    rng, end = random.Random(0), tokenizer.end_of_text
    texts = [stories.sample(rng, "held_out") for _ in range(N_STORIES)]
    sequences = [[end, *tokenizer.encode(text), end] for text in texts]
    exact = loss(lambda ids: model(torch.tensor([ids]))[0], sequences)
    found: dict[str, dict[int, list[float]]] = {}
    for factor in FACTORS:
        for place in PLACES if factor > 1 else PLACES[:1]:
            changed = planted(model, factor, place)
            with tempfile.TemporaryDirectory() as folder:
                for name, logits in engines(changed, tokenizer, Path(folder)):
                    more = loss(logits, sequences) - exact
                    found.setdefault(name, {}).setdefault(factor, [])
                    found[name][factor].append(more)
                    print(f"{name}, {factor} at {place}: {more:+.4f}")
    lines = [
        "| engine | no outlier | "
        + " | ".join(f"{factor} times" for factor in FACTORS[1:])
        + " |",
        "| --- " * (1 + len(FACTORS)) + "|",
        *(
            f"| {name} | "
            + " | ".join(f"{statistics.median(by[f]):+.4f}" for f in FACTORS)
            + " |"
            for name, by in found.items()
        ),
    ]
    RESULTS.write_text(
        "# What rounding costs\n\n"
        f"Nats per token that the story model's loss of {exact:.4f} grows by, "
        f"on {N_STORIES} new stories; with an outlier, the median over "
        f"{len(PLACES)} places for it. At this width of 192, llama.cpp keeps "
        "the token table of Q4_0 in Q8_0, and takes Q5_0, Q6_K and Q8_0 for "
        "most of Q4_K_M. Written by `rounding.py`.\n\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
