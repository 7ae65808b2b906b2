"""How a training run goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gpt2.data import Windows

Precision = Literal["float32", "bfloat16"]
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the outcome of a run, beside model and data."""

    n_steps: int = 1000
    """How many times the weights are changed."""
    batch_size: int = 32
    """Rows for each step, over all processes and micro-batches."""
    n_accumulate: int = 1
    """Micro-batches that a step's rows are cut into, where memory is short."""
    context: int | None = None
    """Tokens in a row; None: the model's `n_ctx`."""
    windows: Windows = "anywhere"
    """What a row is: see `gpt2.data.draw_batch`."""
    optimizer: OptimizerName = "adamw"
    """`muon`: for the matrices of the layers; the rest stays with AdamW. See
    `gpt2.training.optimizer`."""
    learning_rate: float = 1e-3
    """The highest, reached after the warm-up."""
    final_learning_rate: float = 1e-4
    """Where the cosine ends."""
    n_warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases are left alone."""
    beta_1: float = 0.9
    """How much of the mean gradient each step of AdamW keeps."""
    beta_2: float = 0.95
    """The same for the mean squared gradient."""
    clip: float = 1.0
    """The longest gradient; a longer one is scaled down to it."""
    precision: Precision = "float32"
    """`bfloat16`: matrix products in it, by autocast; weights stay float32."""
    fused_attention: bool = True
    """False spells attention out, which on a CPU can be faster for short
    contexts."""
    compile: bool = False
    """Let `torch.compile` fuse the model; slow to start, faster to run."""
    seed: int = 0
    """Of the order of the data and of dropout."""
    evaluate_every: int = 100
    """Steps between two looks at the held-out loss."""
    evaluate_rows: int = 64
    """Rows that it is measured on, the same every time."""
    patience: int | None = None
    """Stop after so many looks without a new best; None: never."""
    save_every: int = 100
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("context", "patience"):
                continue
            if type(value) is not int or value < least:
                raise ValueError(
                    f"{name} must be a whole number, {least} or more; got "
                    f"{value}"
                )
        rate, rows = self.learning_rate, self.batch_size
        for name, fine, allowed in (
            (
                "n_accumulate",
                rows % self.n_accumulate == 0,
                f"a divisor of batch_size, {rows}",
            ),
            ("learning_rate", 0 < rate < math.inf, "above 0, and finite"),
            (
                "final_learning_rate",
                0 <= self.final_learning_rate <= rate,
                f"from 0 to learning_rate, {rate}",
            ),
            (
                "weight_decay",
                0 <= self.weight_decay < math.inf,
                "0 or more, and finite",
            ),
            ("beta_1", 0 <= self.beta_1 < 1, "from 0 up to but not 1"),
            ("beta_2", 0 <= self.beta_2 < 1, "from 0 up to but not 1"),
            ("clip", 0 < self.clip < math.inf, "above 0, and finite"),
            ("windows", *_one_of(self.windows, Windows)),
            ("optimizer", *_one_of(self.optimizer, OptimizerName)),
            ("precision", *_one_of(self.precision, Precision)),
        ):
            if not fine:
                raise ValueError(
                    f"{name} must be {allowed}; got {getattr(self, name)}"
                )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step: a line up, then half a cosine.

        Args:
            step: From 0.
        """
        if step < self.n_warmup:
            return self.learning_rate * (step + 1) / self.n_warmup
        n_rest = max(1, self.n_steps - 1 - self.n_warmup)
        done = min(1.0, (step - self.n_warmup) / n_rest)
        height = self.learning_rate - self.final_learning_rate
        cosine = (1 + math.cos(math.pi * done)) / 2  # from 1 down to 0
        return self.final_learning_rate + height * cosine


_LEAST = {
    "n_steps": 1,
    "batch_size": 1,
    "n_accumulate": 1,
    "context": 1,
    "n_warmup": 0,
    "seed": 0,
    "evaluate_every": 1,
    "evaluate_rows": 1,
    "patience": 1,
    "save_every": 1,
}


def _one_of(name: str, kind: Any) -> tuple[bool, str]:
    names = get_args(kind)
    return name in names, f"one of {', '.join(names)}"
