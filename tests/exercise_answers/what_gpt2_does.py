"""Right and wrong answers to the exercises of chapter 1."""

from __future__ import annotations

from typing import Any

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


def tell(
    guess: Any, tokens: list[int], stop: int, at_most: int, die: Any
) -> list[int]:
    """Write the loop of section 1.4."""
    tokens = list(tokens)
    for _ in range(at_most):
        drawn = int(torch.multinomial(guess(tokens), 1, generator=die))
        if drawn == stop:
            break
        tokens.append(drawn)
    return tokens


def tell_otherwise(
    guess: Any, tokens: list[int], stop: int, at_most: int, die: Any
) -> list[int]:
    """Write it with a tensor of one element, and a condition."""
    added: list[Any] = []
    while len(added) < at_most:
        p = guess([*tokens, *added])
        (drawn,) = torch.multinomial(p, 1, generator=die)
        if drawn == stop:
            return [*tokens, *added]
        added.append(drawn)
    return [*tokens, *added]


def in_place(
    guess: Any, tokens: list[int], stop: int, at_most: int, die: Any
) -> list[int]:
    """Append to the list that was given."""
    tokens += tell(guess, tokens, stop, at_most, die)[len(tokens) :]
    return tokens


def with_the_stop(
    guess: Any, tokens: list[int], stop: int, at_most: int, die: Any
) -> list[int]:
    """Append before looking."""
    tokens = list(tokens)
    while at_most and stop not in tokens:
        tokens.append(int(torch.multinomial(guess(tokens), 1, generator=die)))
        at_most -= 1
    return tokens


def only_new(
    guess: Any, tokens: list[int], stop: int, at_most: int, die: Any
) -> list[int]:
    """Return what was added."""
    return tell(guess, tokens, stop, at_most, die)[len(tokens) :]


def surprises(guesses: Tensor, tokens: list[int]) -> Tensor:
    """Answer the try-it-yourself of section 1.5."""
    return -guesses[range(len(tokens) - 1), tokens[1:]].log()


ANSWERS: dict[str, Answers] = {
    "surprises": (
        surprises,
        {
            "the probabilities": lambda g, t: surprises(g, t).neg().exp(),
            "the sign": lambda g, t: -surprises(g, t),
            "bits": lambda g, t: surprises(g, t) / 0.693147,
            "look up token t in it": lambda g, t: -g[range(len(t)), t].log(),
            "token t - 1": lambda g, t: -g[range(1, len(t)), t[:-1]].log(),
            "one number": lambda g, t: surprises(g, t).sum(),
            "two lists": lambda g, t: -g[:-1, t[1:]].log(),
            "expected a function": 5.5,
        },
    ),
    "tell": (
        tell_otherwise,
        {
            "the same text": lambda g, t, s, n, d: tell(
                lambda x: torch.eye(5)[int(g(x).argmax())], t, s, n, d
            ),
            "the last token alone": lambda g, t, s, n, d: tell(
                lambda x: g(x[-1:]), t, s, n, d
            ),
            "it changes the list": in_place,
            "is not part of it": with_the_stop,
            "begin with the tokens": only_new,
            "different texts": lambda g, t, s, n, d: tell(g, t, s, n, None),
            "has probability 0": lambda g, t, s, n, d: tell(
                lambda x: (g(x) > 0).float() + 0.1, t, s, n, d
            ),
            "nor `at_most` reached": lambda g, t, s, n, d: tell(g, t, s, 2, d),
            "never calls `guess`": lambda g, t, s, n, d: [*t, 1],
            "expected 9": lambda g, t, s, n, d: tell(g, t, s, 40, d),
            "a list of ids; got 'text'": lambda g, t, s, n, d: "text",
            "a list of ids; got [None": lambda g, t, s, n, d: [None, 1],
        },
    ),
    "first-word": (
        15,
        {
            "fewer: a story": 1440,
            "far from equally": 31,
            "more:": 3,
            "expected a number": "many",
        },
    ),
    "one-wrong-word": (
        [2, 1, 1],
        {
            "as good there as": [3, 1, 1],
            "contradicts it": [1, 1, 1],
            "still agrees with the first": [2, 2, 1],
            "more: *blue*": [2, 1, 0],
            "there are three of them": [2, 1, 5],
            "expected three numbers": [2, 1],
            "three numbers, one for each story": 2,
        },
    ),
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
            "the exact share": lambda v, c, n: (
                v / (v + n * (12 * c + 13) + 2 + 1024)
            ),
            "table of positions": lambda v, c, n: v / (v + 12 * n * c + 1024),
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

ALSO_RIGHT: dict[str, list[object]] = {
    "surprises": [
        lambda g, t: -g[:-1].log().gather(1, torch.tensor(t)[1:, None])[:, 0],
        lambda g, t: [-float(g[i, t[i + 1]].log()) for i in range(len(t) - 1)],
    ],
}
