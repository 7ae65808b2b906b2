"""The exercises of chapter 14."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    act,
    call,
    describe,
    exercise,
    same,
    unpack,
)

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)


@exercise("without-positions")
def without_positions(answer: Any) -> str:
    """Try it yourself: a model without positions."""
    torch.manual_seed(14)
    whole = GPT2(CONFIG).eval().requires_grad_(False)
    for parameter in whole.parameters():
        parameter.normal_(std=0.3)
    tokens = torch.randint(CONFIG.n_vocab, (2, 9))

    def logits(*emptied: str) -> Tensor:
        model = copy.deepcopy(whole)
        for name in emptied:
            model.get_parameter(name).zero_()
        return model(tokens)

    same_everywhere = copy.deepcopy(whole)
    rows = same_everywhere.wpe.weight
    rows.copy_(rows.mean(dim=0).expand_as(rows))
    mistakes = [
        Mistake(
            "nothing has changed: change the model that you are given, and "
            "not a copy",
            logits(),
        ),
        Mistake(
            "you have emptied the table of the tokens, `wte`",
            logits("wte.weight"),
        ),
        Mistake(
            "every position adds the same row now; it should add nothing",
            same_everywhere(tokens),
        ),
    ]
    patient = copy.deepcopy(whole)
    act(answer, patient)
    try:
        got = patient(tokens)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise NotYet(f"the model does not run any more: {what}") from error
    same(got, logits("wpe.weight"), "a logit", mistakes)
    return "tokens alone enter the first layer"


@exercise("bag-of-words")
def bag_of_words(answer: Any) -> str:
    """Exercise 14.1: whether shuffling the words moves the last logits."""
    what = "two truth values: without both, and without the positions only"
    both, positions = unpack(answer, 2, what)
    for got in (both, positions):
        if not isinstance(got, bool):
            raise NotYet(f"expected True or False; got {describe(got)}")
    if both:
        raise NotYet(
            "without positions a vector does not depend on its place, and "
            "without a mask everybody sees the same set: a sum over a set has "
            "no order"
        )
    if not positions:
        raise NotYet(
            "the mask is still there: who stands first sees only itself, so "
            "the order decides who sees whom"
        )
    return "the mask alone lets a model count a little"


class Peeking(nn.Module):
    """Says the next token if it is in sight, and else what a table says."""

    def __init__(self, n_vocab: int) -> None:
        """Draw the table."""
        super().__init__()
        self.table = torch.randn(n_vocab, n_vocab)

    def forward(self, tokens: Tensor, last_only: bool = False) -> Tensor:
        """Return logits, as GPT-2 does."""
        sure = 8.0 * F.one_hot(tokens[:, 1:], len(self.table))
        guess = self.table[tokens[:, -1:]]
        return guess[:, 0] if last_only else torch.cat((sure, guess), dim=1)


@exercise("honest-loss")
def honest_loss(answer: Any) -> str:
    """Try it yourself: a loss with the future out of sight."""
    torch.manual_seed(14)
    for n_vocab, lengths in ((9, [2, 5, 6]), (13, [4])):
        model, rows = Peeking(n_vocab), torch.randint(n_vocab, (3, 8))
        everything = model(rows)
        honest = [model(rows[:, :n])[:, -1] for n in lengths]
        first = [model(rows[:, :n])[:, 0] for n in lengths]
        asked = [rows[:, n] for n in lengths]
        right = _mean_loss(honest, asked)
        mistakes = [
            Mistake(
                "the model still sees the token that it is asked for; hand "
                "over `rows[:, :n]` and nothing more",
                _mean_loss([everything[:, n - 1] for n in lengths], asked),
            ),
            Mistake(
                "you ask for the last token that was handed over; the next "
                "one is `rows[:, n]`",
                _mean_loss(honest, [rows[:, n - 1] for n in lengths]),
            ),
            Mistake(
                "you ask for the token after the next; the next one is "
                "`rows[:, n]`",
                _mean_loss(honest, [rows[:, n + 1] for n in lengths]),
            ),
            Mistake(
                "you take the first guess of each beginning; the last one is "
                "about the next token",
                _mean_loss(first, asked),
            ),
            Mistake(
                "that is the sum over the lengths; take the mean",
                right * len(lengths),
            ),
        ]
        got = call(answer, model, rows, lengths)
        same(got, right, f"the loss for lengths={lengths}", mistakes)
    return "a model that peeks gains nothing by it"


def _mean_loss(guesses: list[Tensor], asked: list[Tensor]) -> float:
    pairs = zip(guesses, asked, strict=True)
    losses = [F.cross_entropy(guess, token).item() for guess, token in pairs]
    return sum(losses) / len(losses)


@exercise("absorbed-scale")
def absorbed_scale(answer: Any) -> str:
    """Exercise 14.2: a `c_attn` that needs no scale afterwards."""
    torch.manual_seed(14)
    for n_head, size in ((3, 4), (2, 9)):
        width = n_head * size
        weight, bias = torch.randn(width, 3 * width), torch.randn(3 * width)
        what = "two things, the weight and the bias"
        new = unpack(call(answer, weight, bias, n_head), 2, what)
        names = ("weight", "bias")
        for got, old, name in zip(new, (weight, bias), names, strict=True):
            if not isinstance(got, Tensor) or got.shape != old.shape:
                raise NotYet(
                    f"the {name} should keep its shape, {tuple(old.shape)}"
                )
        _compare_scores(weight, bias, new[0], new[1], n_head)
    return "without the scale, the same scores are only further away"


def _compare_scores(
    weight: Tensor,
    bias: Tensor,
    new_weight: Tensor,
    new_bias: Tensor,
    n_head: int,
) -> None:
    """Compare the new maps' unscaled scores with the old maps' scaled ones."""
    width = weight.size(0)
    x = torch.randn(5, width)
    old, new = x @ weight + bias, x @ new_weight + new_bias
    if not torch.allclose(new[:, 2 * width :], old[:, 2 * width :], atol=1e-4):
        raise NotYet(
            "the values have changed, the last third of the columns; only "
            "scores are scaled"
        )
    plain, root = _scores(old, n_head), math.sqrt(width // n_head)
    without_bias = x @ (weight / root) + bias
    without_bias[:, width:] = old[:, width:]
    mistakes = [
        Mistake(
            "nothing has changed yet: the scores are as large as before", plain
        ),
        Mistake(
            "your scores are divided by D instead of √D: you divided both "
            "queries and keys by √D, or one of them by D",
            plain / root**2,
        ),
        Mistake(
            "your scores are divided by √C; each head is only D wide",
            plain / math.sqrt(width),
        ),
        Mistake("you multiply by the scale; divide by it", plain * root),
        Mistake(
            "the bias of the queries is part of the queries: divide it too",
            _scores(without_bias, n_head),
        ),
    ]
    what = f"the scores with H={n_head}"
    same(_scores(new, n_head), plain / root, what, mistakes)


def _scores(made: Tensor, n_head: int) -> Tensor:
    """Return the scores (H, T, S) without their scale."""
    query, key, _ = (
        part.unflatten(-1, (n_head, -1)).transpose(0, 1)
        for part in made.chunk(3, dim=-1)
    )
    return query @ key.mT


@exercise("folded-feed-forward")
def folded_feed_forward(answer: Any) -> str:
    """Exercise 14.3: two linear maps in one."""
    torch.manual_seed(14)
    for width, inner in ((3, 12), (5, 7)):
        w_1, b_1 = torch.randn(width, inner), torch.randn(inner)
        w_2, b_2 = torch.randn(inner, width), torch.randn(width)
        got = call(answer, w_1, b_1, w_2, b_2)
        weight, bias = unpack(got, 2, "two things, W and b")
        mistakes = [
            Mistake(
                "the two maps are in the wrong order: x meets W_1 first, so "
                "W_1 stands on the left",
                w_2 @ w_1,
            ),
            Mistake(
                "W is transposed: a matrix is [in, out] here", (w_1 @ w_2).T
            ),
        ]
        same(weight, w_1 @ w_2, "W", mistakes)
        mistakes = [
            Mistake("b_1 goes through the second map as well", b_2),
            Mistake("b_2 is still to be added", b_1 @ w_2),
        ]
        same(bias, b_1 @ w_2 + b_2, "b", mistakes)
    return "without its activation, a feed-forward network is one matrix"


@exercise("fixed-norm")
def fixed_norm(answer: Any) -> str:
    """Exercise 14.4: a norm that divides by a number fixed beforehand."""
    torch.manual_seed(14)
    for width, sigma in ((6, 2.5), (5, 0.4)):
        x = torch.randn(2, 3, width) + 1
        weight, bias = torch.randn(width), torch.randn(width)
        centred = x - x.mean(-1, keepdim=True)
        own = centred.square().mean(-1, keepdim=True).sqrt()
        mistakes = [
            Mistake(
                "you divide by each vector's own deviation; divide all of "
                "them by `sigma`",
                centred / own * weight + bias,
            ),
            Mistake(
                "the mean of each vector is still to be subtracted",
                x / sigma * weight + bias,
            ),
            Mistake(
                "you subtract one mean from all vectors; each has its own",
                (x - x.mean()) / sigma * weight + bias,
            ),
            Mistake(
                "divide by sigma itself; it is a deviation, not a variance",
                centred / math.sqrt(sigma) * weight + bias,
            ),
            Mistake(
                "weight and bias are still to be applied", centred / sigma
            ),
            Mistake(
                "the bias comes last and is not multiplied by the weight",
                (centred / sigma + bias) * weight,
            ),
            Mistake(
                "you divide weight and bias by sigma, too; they come after "
                "the division",
                (centred * weight + bias) / sigma,
            ),
        ]
        got = call(answer, x, sigma, weight, bias)
        right = centred / sigma * weight + bias
        same(got, right, f"the result for sigma={sigma}", mistakes)
    return "every vector keeps its own scale"
