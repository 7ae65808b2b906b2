"""The exercises of chapter 6."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
    unpack,
)


@exercise("scale-and-shift")
def scale_and_shift(answer: Any) -> str:
    """Exercise 6.2: scale and shift move into the map after the norm."""
    torch.manual_seed(6)
    for n_in, n_out in ((5, 5), (5, 7)):
        gamma, beta = torch.randn(2, n_in)
        weight, bias = torch.randn(n_in, n_out), torch.randn(n_out)
        got = call(answer, gamma, beta, weight, bias)
        what = "two tensors, the new weight and the new bias"
        new_weight, new_bias = unpack(got, 2, what)
        same(
            new_weight,
            gamma[:, None] * weight,
            f"the new weight for a map from {n_in} to {n_out}",
            _weight_mistakes(gamma, beta, weight),
        )
        same(
            new_bias,
            beta @ weight + bias,
            f"the new bias for a map from {n_in} to {n_out}",
            _bias_mistakes(gamma, beta, weight, bias),
        )
    return "with this map, the norm needs no scale and no shift"


def _weight_mistakes(
    gamma: Tensor, beta: Tensor, weight: Tensor
) -> list[Mistake]:
    mistakes = [
        Mistake("that is still the old weight", weight),
        Mistake(
            "that adds up the rows of W; multiply each row by its gamma",
            gamma @ weight,
        ),
        Mistake(
            "gamma is added to W; multiply by it instead",
            gamma[:, None] + weight,
        ),
        Mistake(
            "the rows of W are divided by gamma; multiply them by it",
            weight / gamma[:, None],
        ),
        Mistake(
            "beta has gone into the weight; it belongs in the bias",
            (gamma + beta)[:, None] * weight,
        ),
    ]
    if len(gamma) == weight.size(1):
        why = (
            "you multiply the columns of W by gamma; gamma belongs to the rows"
        )
        mistakes.append(Mistake(why, gamma * weight))
    return mistakes


def _bias_mistakes(
    gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor
) -> list[Mistake]:
    mistakes = [
        Mistake("that is still the old bias; beta is lost", bias),
        Mistake("the old bias is lost", beta @ weight),
        Mistake(
            "you multiply beta by gamma; beta was added after gamma, so it "
            "goes through the old W",
            beta @ (gamma[:, None] * weight) + bias,
        ),
    ]
    if len(gamma) == weight.size(1):
        mistakes += [
            Mistake(
                "you add beta as it is; it should go through W first",
                beta + bias,
            ),
            Mistake(
                "you multiply the old bias by gamma; gamma is applied before "
                "W, and the bias is added after it",
                gamma * bias + beta @ weight,
            ),
            Mistake(
                "that is W @ beta; vectors are rows here, so it is beta @ W",
                weight @ beta + bias,
            ),
        ]
    return mistakes


@exercise("rms-norm")
def rms_norm(answer: Any) -> str:
    """Exercise 6.3: divide by the root of the mean square."""
    torch.manual_seed(6)
    for shape in ((7,), (5, 7), (2, 3, 5)):
        x = 2 * torch.randn(shape) + 1
        right = x / x.square().mean(-1, keepdim=True).sqrt()
        got = call(answer, x)
        same(got, right, f"the result for shape {shape}", _rms_mistakes(x))
    got = call(answer, torch.zeros(2, 3))
    if not bool(torch.as_tensor(got).isfinite().all()):
        raise NotYet(
            "a vector of zeros becomes NaN; add a small number, 1e-5, under "
            "the root"
        )
    quiet = 0.001 * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    mean = quiet.square().mean()
    same(
        call(answer, quiet),
        quiet / (mean + 1e-5).sqrt(),
        "the result for the quiet vector 0.001 * (-1, -1, 1, 1)",
        [
            Mistake(
                "the small number stands outside the root; put it under it",
                quiet / (mean.sqrt() + 1e-5),
            )
        ],
    )
    return "each vector has a mean square of 1, whatever its mean"


def _rms_mistakes(x: Tensor) -> list[Mistake]:
    square = x.square()
    total = square.sum(-1, keepdim=True)
    mean = total / x.size(-1)
    root = mean.sqrt()
    centred = x - x.mean(-1, keepdim=True)
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    all_axes = tuple(range(x.dim()))
    return [
        Mistake(
            "that is the layer norm; RMSNorm does not subtract the mean",
            centred / deviation,
        ),
        Mistake("you still subtract the mean", centred / root),
        Mistake(
            "you divide by the standard deviation, which is around the mean; "
            "take the mean square of x itself",
            x / deviation,
        ),
        Mistake("you divide by the mean square; take its root", x / mean),
        Mistake("you add up the squares; take their mean", x / total.sqrt()),
        Mistake("you multiply by the root; divide by it", x * root),
        Mistake("that is the divisor, not the quotient", root.expand_as(x)),
        Mistake(
            "you divide by the mean absolute value; square the numbers first",
            x / x.abs().mean(-1, keepdim=True),
        ),
        Mistake(
            "you average over all vectors; normalise each vector by itself",
            x / square.mean(all_axes, keepdim=True).sqrt(),
        ),
        Mistake(
            "you average over the positions; normalise each vector by itself",
            x / square.mean(max(x.dim() - 2, 0), True).sqrt(),
        ),
        Mistake(
            "you divide by n - 1; the mean of n squares is their sum over n",
            x / (total / (x.size(-1) - 1)).sqrt(),
        ),
    ]


@exercise("layer-norm")
def layer_norm(answer: Any) -> str:
    """Try it yourself: mean 0, variance 1, scale, shift."""
    torch.manual_seed(6)
    for shape in ((5,), (4, 5), (2, 3, 5)):
        x = 2 * torch.randn(shape) + 1
        gamma, beta = torch.randn(2, 5)
        right = F.layer_norm(x, (5,), gamma, beta)
        got = call(answer, x, gamma, beta)
        what = f"the result for shape {shape}"
        same(got, right, what, _norm_mistakes(x, gamma, beta))
    quiet = 0.001 * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    one, zero = torch.ones(4), torch.zeros(4)
    same(
        call(answer, quiet, one, zero),
        F.layer_norm(quiet, (4,)),
        "the result for the quiet vector 0.001 * (-1, -1, 1, 1)",
        [
            Mistake("ε belongs inside the root", quiet / (0.001 + 1e-5)),
            Mistake("ε is missing: add 1e-5 under the root", quiet / 0.001),
        ],
    )
    return "biased, with ε inside the root, each vector by itself"


def _norm_mistakes(x: Tensor, gamma: Tensor, beta: Tensor) -> list[Mistake]:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    plain = centred / (variance + 1e-5).sqrt()
    all_axes = tuple(range(x.dim()))
    everything = x - x.mean(all_axes, keepdim=True)
    spread = everything.square().mean(all_axes, keepdim=True)
    return [
        Mistake(
            "that is the unbiased variance; divide by C, not by C - 1",
            centred / x.std(-1, keepdim=True) * gamma + beta,
        ),
        Mistake(
            "mean and variance run over all positions; each vector is "
            "normalised by itself",
            everything / (spread + 1e-5).sqrt() * gamma + beta,
        ),
        Mistake(
            "the mean is not subtracted",
            x / (variance + 1e-5).sqrt() * gamma + beta,
        ),
        Mistake(
            "you divide by the variance; take its root",
            centred / (variance + 1e-5) * gamma + beta,
        ),
        Mistake("scale and shift are missing", plain),
        Mistake("the shift is missing", plain * gamma),
        Mistake("the shift comes after the scale", (plain + beta) * gamma),
    ]


@exercise("gelu")
def gelu(answer: Any) -> str:
    """Try it yourself: GPT-2's bend."""
    x = torch.linspace(-3, 3, 13)
    root = (2 / torch.pi) ** 0.5
    half = 0.5 * x
    mistakes = [
        Mistake(
            "that is the exact GELU; GPT-2 has the form with the tanh",
            F.gelu(x),
        ),
        Mistake("that is a ReLU", x.relu()),
        Mistake("that is a SiLU, x times its sigmoid", F.silu(x)),
        Mistake(
            "that is the probability; multiply it by x",
            0.5 * (1 + (root * (x + 0.044715 * x**3)).tanh()),
        ),
        Mistake(
            "the factor ½ is missing",
            x * (1 + (root * (x + 0.044715 * x**3)).tanh()),
        ),
        Mistake(
            "the cube is of x alone: 0.044715 stands outside it",
            half * (1 + (root * (x + (0.044715 * x) ** 3)).tanh()),
        ),
        Mistake(
            "the root of 2/π also multiplies the cube",
            half * (1 + (root * x + 0.044715 * x**3).tanh()),
        ),
    ]
    right = F.gelu(x, approximate="tanh")
    same(call(answer, x), right, "the result", mistakes, tolerance=1e-5)
    return "to the fifth decimal"


@exercise("feed-forward")
def feed_forward(answer: Any) -> str:
    """Try it yourself: widen, bend, narrow."""
    torch.manual_seed(6)
    for shape in ((5,), (2, 3, 5)):
        x = torch.randn(shape)
        up, down = torch.randn(5, 20), torch.randn(20, 5)
        b_up, b_down = torch.randn(20), torch.randn(5)
        wide = x @ up + b_up
        bent = F.gelu(wide, approximate="tanh")
        mistakes = [
            Mistake("the bend is missing", wide @ down + b_down),
            Mistake(
                "that is the other GELU; GPT-2 has the tanh form",
                F.gelu(wide) @ down + b_down,
            ),
            Mistake("that is a ReLU", wide.relu() @ down + b_down),
            Mistake("the second bias is missing", bent @ down),
            Mistake(
                "the first bias is missing",
                F.gelu(x @ up, approximate="tanh") @ down + b_down,
            ),
            Mistake(
                "there is a second bend after the second map; leave it out",
                F.gelu(bent @ down + b_down, approximate="tanh"),
            ),
        ]
        got = call(answer, x, up, b_up, down, b_down)
        right = bent @ down + b_down
        same(got, right, f"the result for shape {shape}", mistakes)
    return "wide, bent, and narrow again"


@exercise("equal-numbers")
def equal_numbers(answer: Any) -> str:
    """Exercise 6.1: what a layer norm makes of (7, 7, 7)."""
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        answer = torch.as_tensor(answer, dtype=torch.float32)
    mistakes = [
        Mistake("the mean is subtracted first", torch.full((3,), 7.0)),
        Mistake("nothing is left to be brought to 1", torch.ones(3)),
        Mistake(
            "0 is divided by √ε, which is not 0", torch.full((3,), torch.nan)
        ),
    ]
    same(answer, torch.zeros(3), "the result", mistakes)
    return "nothing is left of them, and ε keeps it from being NaN"


@exercise("neurons-needed")
def neurons_needed(answer: Any) -> str:
    """Exercise 6.4: the fewest neurons that do the work of all 768."""
    answer = number(answer)
    if answer not in (768, 256, 64, 16, 4):
        raise NotYet("one of 768, 256, 64, 16 and 4")
    if answer != 64:
        fewer = "fewer are enough" if answer > 64 else "that is too few"
        raise NotYet(f"{fewer}: measure it")
    return "a twelfth of them"


@exercise("sort-two")
def sort_two(answer: Any) -> str:
    """Exercise 6.5: a feed-forward network that sorts two numbers."""
    what = "two tensors, W_1 [2, n] and W_2 [n, 2]"
    first, second = unpack(answer, 2, what)
    if not (
        isinstance(first, Tensor)
        and isinstance(second, Tensor)
        and first.dim() == second.dim() == 2
        and first.size(0) == second.size(1) == 2
        and first.size(1) == second.size(0)
    ):
        came = f"{describe(first)} and {describe(second)}"
        raise NotYet(f"expected {what}; got {came}")
    torch.manual_seed(6)
    pairs = 3 * torch.randn(40, 2)  # of either sign, in either order
    a, b = pairs.T
    larger, smaller = torch.maximum(a, b), torch.minimum(a, b)
    # Without a negative sum or difference, what is there of a half.
    plus, apart = (a + b).relu() / 2, (a - b).relu() / 2
    mistakes = [
        Mistake(
            "that is the smaller first", torch.stack((smaller, larger), 1)
        ),
        Mistake("that gives the larger twice", larger[:, None].expand(40, 2)),
        Mistake(
            "twice as large: take half of the sum and of the difference",
            2 * torch.stack((larger, smaller), 1),
        ),
        Mistake(
            "a negative sum is lost; give it a neuron of its own",
            torch.stack(
                (plus + (a - b).abs() / 2, plus - (a - b).abs() / 2), 1
            ),
        ),
        Mistake(
            "a negative difference is lost; give it a neuron of its own",
            torch.stack(((a + b) / 2 + apart, (a + b) / 2 - apart), 1),
        ),
    ]
    got = (pairs @ first.float()).relu() @ second.float()
    right = torch.stack((larger, smaller), 1)
    same(got, right, "what your network makes of 40 pairs", mistakes)
    return f"sorted, with {first.size(1)} neurons"
