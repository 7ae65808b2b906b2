"""The exercises of chapter 1."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    whole_numbers,
)

STOP = 4  # the token that ends a text in the toy of `check_tell`


@exercise("tell")
def check_tell(answer: Any) -> str:
    """Section 1.4: guess, draw, append."""
    seen: list[list[int]] = []

    def after_its_last(tokens: list[int]) -> Tensor:
        # Token 0 is followed by 1, 1 by 2, 2 by 0 or 3, and 3 by the stop.
        seen.append([*map(int, tokens)])
        odds = torch.zeros(5)
        odds[[[1], [2], [0, 3], [STOP]][seen[-1][-1]]] = 1
        return odds / odds.sum()

    texts = []
    for seed in range(12):
        seen.clear()
        texts.append(_told(answer, after_its_last, [2, 0], 40, seed))
        if not seen:
            raise NotYet("it never calls `guess`")
        if len(seen[-1]) == 1:
            raise NotYet(
                "`guess` was given the last token alone; it needs the whole "
                "text up to there"
            )
        _check_text(texts[-1])
    if len({*map(tuple, texts)}) == 1:
        raise NotYet(
            "every seed tells the same text; draw from the probabilities, "
            "do not take the likeliest token"
        )
    seen.clear()
    short = _told(answer, lambda tokens: torch.eye(5)[0], [2, 0], 7, 0)
    if len(short) != 9:
        raise NotYet(
            f"with at_most=7 and a `guess` that never stops, two tokens "
            f"became {len(short)}; expected 9"
        )
    return "guess, draw, append"


def _told(
    answer: Any,
    guess: Callable[[list[int]], Tensor],
    start: list[int],
    at_most: int,
    seed: int,
) -> list[int]:
    """Let the reader's loop tell a text twice, and check its form."""
    texts = []
    for _ in range(2):
        given, die = list(start), torch.Generator().manual_seed(seed)
        got = call(answer, guess, given, STOP, at_most, die)
        if given != start:
            raise NotYet("it changes the list that it was given; copy it")
        if not isinstance(got, list):
            raise NotYet(
                f"it should return a list of ids; got {describe(got)}"
            )
        try:
            texts.append([int(token) for token in got])
        except (TypeError, ValueError):
            raise NotYet(
                f"it should return a list of ids; got {describe(got)}"
            ) from None
    if texts[0] != texts[1]:
        raise NotYet(
            "the same seed tells different texts; pass the generator on to "
            "torch.multinomial"
        )
    if texts[0][: len(start)] != start:
        raise NotYet("the result should begin with the tokens it was given")
    return texts[0]


def _check_text(text: list[int]) -> None:
    """Check that a text follows the toy's rules to its end."""
    if STOP in text:
        raise NotYet("the stop token ends the text and is not part of it")
    follow = {(0, 1), (1, 2), (2, 0), (2, 3)}
    broken = [pair for pair in pairwise(text) if pair not in follow]
    if broken:
        before, after = broken[0]
        raise NotYet(
            f"token {after} follows {before}, and has probability 0 there"
        )
    if text[-1] != 3 and len(text) < 42:
        raise NotYet(
            f"it ends after {len(text)} tokens, and neither was `stop` drawn "
            "nor `at_most` reached"
        )


@exercise("surprises")
def surprises(answer: Any) -> str:
    """Section 1.5: the surprise at each token but the first."""
    generator = torch.Generator().manual_seed(1)
    for n, n_vocab in ((5, 7), (2, 3), (7, 11)):
        logits = torch.randn(n, n_vocab, generator=generator)
        guesses = logits.softmax(dim=-1)  # (T, V)
        tokens = torch.randint(n_vocab, (n,), generator=generator).tolist()
        each = torch.arange(n)
        came = guesses[each[:-1], tokens[1:]]  # (T - 1,)
        itself = guesses[each, tokens]
        mistakes = [
            Mistake("those are the probabilities; take -log", came),
            Mistake("the sign is wrong: a surprise is positive", came.log()),
            Mistake(
                "those are bits; take the natural logarithm", -came.log2()
            ),
            Mistake(
                "row t is the guess at token t + 1; you look up token t in it",
                -itself.log(),
            ),
            Mistake(
                "row t is the guess at token t + 1; you look up token t in it",
                -itself[:-1].log(),
            ),
            Mistake(
                "row t is the guess at token t + 1; you look up token t in it",
                -itself[1:].log(),
            ),
            Mistake(
                "row t is the guess at token t + 1; you look up token t - 1",
                -guesses[each[1:], tokens[:-1]].log(),
            ),
            Mistake(
                "that is one number; each token has a surprise of its own",
                -came.log().sum(),
            ),
            Mistake(
                "that is one number; each token has a surprise of its own",
                -came.log().mean(),
            ),
            Mistake(
                "an index with two slices takes whole rows and columns; give "
                "it two lists, `guesses[rows, columns]`",
                -guesses[:-1][:, tokens[1:]].log(),
            ),
        ]
        what = f"the result for {n} tokens"
        got = call(answer, guesses, tokens)
        if isinstance(got, list | tuple):
            got = torch.tensor([float(one) for one in got])
        same(got, -came.log(), what, mistakes)
    return "row t, at token t + 1"


@exercise("first-word")
def first_word(answer: Any) -> str:
    """Exercise 1.1: how many equal choices the first word has."""
    choices = number(answer)
    if choices > 31:
        raise NotYet("fewer: a story can begin with 31 different words")
    if choices > 21:
        raise NotYet(
            "fewer: the 31 first words are far from equally likely; *One* "
            "alone begins a quarter of the stories"
        )
    if choices < 11:
        raise NotYet(
            "more: three words begin half of the stories, and the other half "
            "is spread over 28"
        )
    return "it is 15.6, and more open than the adjectives are"


@exercise("one-wrong-word")
def one_wrong_word(answer: Any) -> str:
    """Exercise 1.4: how many tokens surprise, for each altered story."""
    counts = whole_numbers(answer, "three numbers, one for each story")
    if len(counts) != 3:
        raise NotYet(f"expected three numbers; got {describe(answer)}")
    first, second, third = counts
    if first == 3:
        raise NotYet(
            "fewer in the first story: nothing has been said about the "
            "trumpet yet, so *blue* is as good there as *little* was"
        )
    if first < 2:
        raise NotYet(
            "more in the first story: once the trumpet is blue, each *little* "
            "that follows contradicts it"
        )
    if second > 1:
        raise NotYet(
            "fewer in the second story: the wrong word surprises, but the "
            "third *little* still agrees with the first"
        )
    if 0 in (second, third):
        raise NotYet("more: *blue* contradicts a *little* that came before")
    if counts != [2, 1, 1]:
        raise NotYet(
            "fewer: only a word about the trumpet's look can contradict it, "
            "and there are three of them"
        )
    return "the model believes what was said first, twice if need be"


SIZES = ((50257, 768, 12), (50257, 1600, 48), (2048, 190, 3))  # V, C, layers


@exercise("table-share")
def table_share(answer: Any) -> str:
    """Exercise 1.2: the share of the parameters that the token table has."""
    for n_vocab, width, n_layer in SIZES:
        table, layers = n_vocab * width, 12 * n_layer * width**2
        same(
            call(answer, n_vocab, width, n_layer),
            table / (table + layers),
            f"the share for V={n_vocab}, C={width} and {n_layer} layers",
            _share_mistakes(n_vocab, width, n_layer),
        )
    return "one C cancels, so the share falls as width and depth grow"


def _share_mistakes(n_vocab: int, width: int, n_layer: int) -> list[Mistake]:
    table, square = n_vocab * width, n_layer * width**2
    layers, vectors = 12 * square, 13 * n_layer * width
    total = table + layers
    return [
        Mistake(
            "you counted a single layer; there are `n_layer` of them",
            table / (table + 12 * width**2),
        ),
        Mistake(
            "that is attention's 4 C² only; the feed-forward part has 8 C²",
            table / (table + 4 * square),
        ),
        Mistake(
            "that is 8 C² for a layer; attention has 4 C², and each of the "
            "feed-forward network's two matrices has 4 C²",
            table / (table + 8 * square),
        ),
        Mistake("that is the share of the layers", layers / total),
        Mistake(
            "that is the ratio of the table to the layers; for a share, "
            "divide by the total, which includes the table",
            table / layers,
        ),
        Mistake("you divided the total by the table", total / table),
        Mistake(
            "leave out the terms that have C alone: biases and norms",
            table / (total + vectors),
        ),
        Mistake(
            "that is the exact share; leave out biases, norms and positions",
            table / (total + vectors + 2 * width + 1024 * width),
        ),
        Mistake(
            "leave out the table of positions",
            table / (total + 1024 * width),
        ),
        Mistake(
            "the table has V times C parameters, and you used V alone",
            n_vocab / (n_vocab + layers),
        ),
        Mistake(
            "that is a percentage; a share is between 0 and 1",
            100 * table / total,
        ),
    ]


@exercise("draw-unused")
def draw_unused(answer: Any) -> str:
    """Exercise 1.3: sample a token, but none of those already used."""
    used, n = [0, 2], 500
    drawn = _draws(answer, used, n)
    shares = torch.bincount(torch.tensor(drawn), minlength=len(ODDS)) / n
    if (shares == 1).any():
        raise NotYet(
            "it returns the same token every time; draw one at random, by "
            "the model's probabilities"
        )
    if set(drawn) <= set(used):
        raise NotYet("it draws from the used tokens; leave those out")
    if shares[used].max() > 0:
        n_used = sum(token in used for token in drawn)
        raise NotYet(f"{n_used} of {n} draws gave a token that had been used")
    _check_odds(shares, used, n)
    if _draws(answer, used, 20) != drawn[:20]:
        raise NotYet(
            "the same seed gives different draws; pass the generator on to "
            "torch.multinomial"
        )
    if not {0, 1, 3} <= set(_draws(answer, [], 200)):
        raise NotYet("when nothing has been used, every token may be drawn")
    return "used tokens never come up, and the odds among the others stay"


ODDS = torch.tensor([0.35, 0.3, 0.05, 0.2, 0.1])  # (V,)


def _check_odds(shares: Tensor, used: list[int], n: int) -> None:
    """Check that the other tokens keep their odds relative to each other."""
    left = ODDS.clone()
    left[used] = 0
    even = (left > 0) / (left > 0).sum()
    if (shares - even).abs().max() < 0.08:
        raise NotYet(
            "all other tokens get the same chance; keep the model's odds "
            "among them"
        )
    right = left / left.sum()
    if (shares - right).abs().max() > 0.08:
        worst = int((shares - right).abs().argmax())
        raise NotYet(
            f"token {worst} came up in {shares[worst]:.0%} of {n} draws; its "
            f"share among the unused tokens is {right[worst]:.0%}"
        )


def _draws(answer: Any, used: list[int], n: int) -> list[int]:
    """Draw `n` times, and check that every result is a token id."""
    generator, drawn = torch.Generator().manual_seed(1), []

    def draw(probabilities: Tensor, used: list[int]) -> list[Any]:
        return [answer(probabilities, used, generator) for _ in range(n)]

    given = list(used)
    results = call(draw if callable(answer) else answer, ODDS.clone(), given)
    if given != used:
        raise NotYet("it modifies `used`, a list that belongs to the caller")
    for got in results:
        one = isinstance(got, Tensor) and got.numel() == 1
        token = got.item() if one else got
        if isinstance(token, bool) or not isinstance(token, int):
            raise NotYet(f"it should return one id; got {describe(got)}")
        if not 0 <= token < len(ODDS):
            raise NotYet(f"it returned {token}; the ids go from 0 to 4")
        drawn.append(token)
    return drawn
