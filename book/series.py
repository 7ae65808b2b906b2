"""Train a tiny model, and save it at several moments of its training.

    python book/series.py       # some minutes on two cores

The model reads lists of random words, each written twice:
` kite drum goose. kite drum goose.` The first half of a list is unpredictable.
In the second half, the next word is the one that followed the same word
before. An induction head finds it (Olsson et al., 2022), which takes two
layers: one that copies to each word what precedes it, and one that searches
for it. The series shows how the two develop.

It is saved in `gpt2/pretrained/echo`, with the words of the lists
(`words.txt`), the measurements (`scores.json`) and a plot of them.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib.figure import Figure

import gpt2
from gpt2.evaluation import circuits
from gpt2_book import drawing

PLACE = Path(gpt2.__file__).parent / "pretrained" / "echo"
WORDS = (PLACE / "words.txt").read_text(encoding="utf-8").split()
MOMENTS = (0, 200, 400, 600, 800, 1000, 1250, 1500, 2000, 2500, 3000)
OPTIONS = (
    *("--n-vocab=600", "--n-ctx=128", "--n-embd=96", "--n-layer=2"),
    *("--n-steps=3000", "--evaluate-every=500", "--evaluate-rows=64"),
    *("--batch-size=32", "--save-every=1000", "--quiet"),
)


def write_lists(path: Path, n_lists: int = 60_000) -> None:
    """Write lists of 4 to 24 words to a file, each of them twice."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n_lists):
            words = rng.choices(WORDS, k=rng.randint(4, 24))
            file.write(2 * f" {' '.join(words)}.")


def measure(folder: Path) -> dict[str, float]:
    """Measure a model on new lists of 20 words, each of them twice.

    Returns:
        The strongest head's scores, from 0 to 1, and the mean loss in each
        half of the lists, in nats per token.
    """
    model, tokenizer = gpt2.load(folder)
    ids = [tokenizer.encode(f" {word}") for word in WORDS]
    choices = torch.tensor([one[0] for one in ids if len(one) == 1])
    once = circuits.repeated_tokens(choices, 32, 20)[:, :20]
    (stop,) = tokenizer.encode(".")
    once = torch.cat([once, torch.full((32, 1), stop)], dim=1)  # (B, 21)
    tokens = once.repeat(1, 2)
    weights = circuits.record_attention(model, tokens)
    with torch.no_grad():
        guesses = model(tokens)[:, :-1].log_softmax(dim=-1)
    surprise = -guesses.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return {
        "previous_token": circuits.previous_token_scores(weights).max().item(),
        "induction": circuits.induction_scores(weights, 21).max().item(),
        "first_telling": surprise[:, :19].mean().item(),
        "second_telling": surprise[:, 21:40].mean().item(),
    }


def draw(scores: dict[int, dict[str, float]], path: Path) -> None:
    """Plot how the heads develop, and how the losses respond."""
    figure = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = list(scores)
    for axes, lines in (
        (upper, (("previous_token", "key"), ("induction", "query"))),
        (
            lower,
            (("first_telling", "position"), ("second_telling", "surprise")),
        ),
    ):
        for name, color in lines:
            values = [scores[step][name] for step in steps]
            axes.plot(
                steps,
                values,
                "o-",
                color=drawing.COLORS[color],
                label=name.replace("_", " "),
            )
        axes.legend(frameon=False)
    upper.set(ylabel="strongest head", ylim=(0, 1))
    lower.set(ylabel="surprise (nats)", xlabel="steps", ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    """Train, save the snapshots, measure and plot them."""
    with TemporaryDirectory() as place:
        text, run = Path(place) / "lists.txt", Path(place) / "run"
        write_lists(text)
        command = [sys.executable, "-m", "gpt2", "train", str(run)]
        command += [*OPTIONS, "--data", str(text), "--snapshots"]
        print("Training ...", flush=True)
        subprocess.run([*command, *map(str, MOMENTS)], check=True)
        for old in PLACE.glob("step-*"):
            shutil.rmtree(old)
        scores = {}
        for step in MOMENTS:
            folder = PLACE / f"step-{step:04d}"
            model, tokenizer = gpt2.load(
                run / "snapshots" / f"step-{step:08d}", dtype="bfloat16"
            )
            gpt2.save(model, tokenizer, folder)
            scores[step] = measure(folder)
            print(f"step {step}: {scores[step]}", flush=True)
    (PLACE / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    draw(scores, PLACE / "heads.png")


if __name__ == "__main__":
    main()
