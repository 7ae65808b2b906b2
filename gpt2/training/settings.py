"""How a training run goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

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
        for name in (
            "n_steps",
            "batch_size",
            "n_accumulate",
            "evaluate_every",
            "evaluate_rows",
            "save_every",
            "context",
            "patience",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
        for name in ("n_warmup", "weight_decay", "seed"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {value}")
        if self.batch_size % self.n_accumulate:
            raise ValueError(
                f"batch_size must be a multiple of n_accumulate; got "
                f"{self.batch_size} and {self.n_accumulate}"
            )
        if not (self.learning_rate > 0 and self.clip > 0):  # nor NaN
            raise ValueError(
                f"learning_rate and clip must be above 0; got "
                f"{self.learning_rate} and {self.clip}"
            )
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate must lie between 0 and learning_rate, "
                f"{self.learning_rate}; got {self.final_learning_rate}"
            )
        for name, kind in (
            ("precision", Precision),
            ("windows", Windows),
            ("optimizer", OptimizerName),
        ):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(kind))}; got "
                    f"{value}"
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
