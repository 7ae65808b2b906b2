"""The settings of a training run, and their defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

if TYPE_CHECKING:  # for a type only: the command's --help needs no torch
    from gpt2.data import Windows

Precision = Literal["float32", "bfloat16"]
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything but model and data that decides the outcome of a run.

    The defaults suit a small model and any text; `for_stories` has those of
    the shipped model. `gpt2 train` takes its defaults from here.
    """

    n_steps: int = 7500
    """Optimizer steps."""
    batch_size: int = 48
    """Rows per step, over all processes and micro-batches."""
    n_accumulate: int = 1
    """Micro-batches per step and process; more of them need less memory."""
    context: int | None = None
    """Tokens per row; None: the model's `n_ctx`."""
    windows: Windows = "anywhere"
    """What a row holds; see `gpt2.data.draw_batch`."""
    optimizer: OptimizerName = "muon"
    """`muon` for the matrices of the layers, with AdamW for the rest; or
    `adamw` for all. See `gpt2.training.optimizer`."""
    learning_rate: float = 2e-3
    """The highest learning rate, reached at the end of the warm-up."""
    final_learning_rate: float = None  # type: ignore[assignment]
    """The last learning rate; None: a hundredth of the highest."""
    n_warmup: int = 200
    """Steps over which the learning rate rises from near 0."""
    weight_decay: float = 0.01
    """Decay of matrices; norms and biases have none."""
    beta_1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta_2: float = 0.95
    """AdamW's decay of the mean squared gradient."""
    clip: float = 1.0
    """Maximum norm of the gradient; a longer one is scaled down to it."""
    precision: Precision = "bfloat16"
    """Of the matrix products, by autocast; the weights stay float32."""
    fused_attention: bool = False
    """Use PyTorch's fused attention. On a CPU, explicit attention was faster
    for 256 tokens."""
    compile: bool = False
    """Run the model through `torch.compile`: a slow start, then faster."""
    seed: int = 0
    """Seed of the rows and of dropout."""
    evaluate_every: int = 200
    """Steps between measurements of the held-out loss."""
    evaluate_rows: int = 256
    """Rows to measure it on, always the same."""
    patience: int | None = None
    """Stop after this many measurements without a new best; None: never."""
    save_every: int = 200
    """Steps between checkpoints."""

    @classmethod
    def for_stories(cls, *, new: bool = True, **changes: Any) -> Self:
        """Return settings for a model of stories.

        Args:
            new: The model is untrained; the shipped model was trained so.
                Otherwise it is fine-tuned, at a lower learning rate.
            **changes: Fields that are to differ.

        Raises:
            ValueError: A field has a value that is not allowed.
        """
        own = dict(STORIES)
        if changes.get("batch_size", cls.batch_size) % own["n_accumulate"]:
            del own["n_accumulate"]
        if new:
            own |= NEW_STORIES
        return cls(**own | changes)

    def __post_init__(self) -> None:
        """Fill in the final learning rate, and check all values."""
        if self.final_learning_rate is None:
            object.__setattr__(
                self, "final_learning_rate", self.learning_rate / 100
            )
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("context", "patience"):
                continue
            if type(value) is not int or value < least:
                raise ValueError(
                    f"{name} must be a whole number, {least} or more; got "
                    f"{value}"
                )
        for name, is_allowed, allowed in self._conditions():
            if not is_allowed:
                raise ValueError(
                    f"{name} must be {allowed}; got {getattr(self, name)}"
                )

    def _conditions(self) -> Iterator[tuple[str, bool, str]]:
        """Yield a field's name, whether it is allowed, and what would be."""
        from gpt2.data import Windows

        rate, rows = self.learning_rate, self.batch_size
        fits = rows % self.n_accumulate == 0
        yield "n_accumulate", fits, f"a divisor of batch_size, {rows}"
        for name in ("learning_rate", "clip"):
            fits = 0 < getattr(self, name) < math.inf
            yield name, fits, "above 0, and finite"
        fits = 0 <= self.final_learning_rate <= rate
        yield "final_learning_rate", fits, f"from 0 to learning_rate, {rate}"
        fits = 0 <= self.weight_decay < math.inf
        yield "weight_decay", fits, "0 or more, and finite"
        for name in ("beta_1", "beta_2"):
            yield name, 0 <= getattr(self, name) < 1, "from 0 up to but not 1"
        choices = {**CHOICES, "windows": get_args(Windows)}
        for name, values in choices.items():
            fits = getattr(self, name) in values
            yield name, fits, f"one of {', '.join(values)}"

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step: a line up, then half a cosine.

        Loshchilov and Hutter (2017), equation 5, without restarts.

        Args:
            step: Counted from 0.
        """
        if step < self.n_warmup:
            return self.learning_rate * (step + 1) / self.n_warmup
        n_rest = max(1, self.n_steps - 1 - self.n_warmup)
        done = min(1.0, (step - self.n_warmup) / n_rest)
        height = self.learning_rate - self.final_learning_rate
        cosine = (1 + math.cos(math.pi * done)) / 2  # from 1 down to 0
        return self.final_learning_rate + height * cosine


# Rows of stories end where their story ends, and the rows of a step come
# sorted by length: smaller parts need less padding.
STORIES: dict[str, Any] = {"windows": "documents", "n_accumulate": 3}
"""What `for_stories` changes."""

# Decay holds back the logits of words that never come: with it, a model of
# stories ends with more probability on words that cannot follow.
NEW_STORIES: dict[str, Any] = {"learning_rate": 4e-3, "weight_decay": 0.0}
"""What `for_stories` changes for an untrained model."""

CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(OptimizerName),
    "precision": get_args(Precision),
}
"""The values of the fields that have a few."""

LEAST = {
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
"""The least value of the fields that are whole numbers."""
