"""Right and wrong answers to the exercises of chapter 1."""

from __future__ import annotations

import torch
from torch import Tensor

Answers = tuple[object, dict[str, object]]


def draw(
    probabilities: Tensor, used: list[int], generator: torch.Generator | None
) -> int:
    """Answer exercise 1.3."""
    left = probabilities.clone()
    left[used] = 0
    return int(torch.multinomial(left, 1, generator=generator))


def without_a_copy(
    probabilities: Tensor, used: list[int], generator: torch.Generator
) -> int:
    """Change the odds that were given."""
    probabilities[used] = 0
    return int(torch.multinomial(probabilities, 1, generator=generator))


def and_note(
    probabilities: Tensor, used: list[int], generator: torch.Generator
) -> int:
    """Add to the list as well."""
    used[:] = [*used, draw(probabilities, used, generator)][:3]
    return used[-1]


def one_removed(
    probabilities: Tensor, used: list[int], generator: torch.Generator
) -> int:
    """Refuse only what was used last."""
    return draw(probabilities, used[-1:], generator)


def shifted(
    probabilities: Tensor, used: list[int], generator: torch.Generator
) -> int:
    """Forget that removing entries changes the places of the others."""
    left = [p for i, p in enumerate(probabilities) if i not in used]
    return int(torch.multinomial(torch.stack(left), 1, generator=generator))


ANSWERS: dict[str, Answers] = {
    "table-share": (
        lambda v, c, n: v / (v + 12 * n * c),
        {
            "a single layer": lambda v, c, n: v / (v + 12 * c),
            "attention's 4 C² only": lambda v, c, n: v / (v + 4 * n * c),
            "that is 8 C²": lambda v, c, n: v / (v + 8 * n * c),
            "share of the layers": lambda v, c, n: (
                12 * n * c / (v + 12 * n * c)
            ),
            "ratio of the table": lambda v, c, n: v / (12 * n * c),
            "terms that have C alone": lambda v, c, n: (
                v / (v + n * (12 * c + 13))
            ),
            "used V alone": lambda v, c, n: v / (v + 12 * n * c**2),
            "between 0 and 1": lambda v, c, n: 100 * v / (v + 12 * n * c),
            "expected a function": 0.31,
        },
    ),
    "draw-unused": (
        draw,
        {
            "modifies a tensor": without_a_copy,
            "500 draws gave a token": one_removed,
            "draws from the used tokens": lambda p, u, g: (
                u[torch.randint(len(u), (), generator=g)] if u else 0
            ),
            "the same token every time": lambda p, u, g: max(
                (i for i in range(5) if i not in u), key=lambda i: float(p[i])
            ),
            "the same chance": lambda p, u, g: draw(torch.ones(5), u, g),
            "that had been used": shifted,
            "the same seed": lambda p, u, g: draw(p, u, None),
            "one id": lambda p, u, g: p,
            "modifies `used`": and_note,
            "expected a function": 1,
        },
    ),
}
