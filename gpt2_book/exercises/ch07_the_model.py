"""The exercises of chapter 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2.layer import GPT2Layer
from gpt2.model import GPT2
from gpt2_book.exercises.checking import (
    Mistake,
    NotYet,
    call,
    describe,
    exercise,
    number,
    same,
)

CONFIG = GPT2Config(n_vocab=17, n_ctx=11, n_embd=12, n_head=3, n_layer=2)
SIZES = (  # V, n_ctx, C, n_layer
    (50257, 1024, 768, 12),
    (50257, 1024, 1600, 48),
    (2048, 250, 192, 5),
)


def _with_weights_of(answer: Any, model: nn.Module) -> nn.Module:
    """Build the reader's module and give it the weights of ours."""
    mine = call(answer, CONFIG)
    if not isinstance(mine, nn.Module):
        raise NotYet(f"expected an nn.Module; got {describe(mine)}")
    theirs = model.state_dict()
    if lacking := theirs.keys() - mine.state_dict().keys():
        raise NotYet(f"it has no `{min(lacking)}`; keep the names")
    if more := mine.state_dict().keys() - theirs.keys():
        raise NotYet(f"it has a parameter too many, `{min(more)}`")
    try:
        mine.load_state_dict(theirs)
    except RuntimeError as error:
        raise NotYet(f"the shapes of its parts differ: {error}") from error
    return mine.eval().requires_grad_(False)


def _loud(module: nn.Module) -> Any:
    """Draw all parameters so widely that every mistake shows."""
    module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.5)
    return module


@exercise("layer")
def layer(answer: Any) -> str:
    """Try it yourself: the layer, from its four parts."""
    torch.manual_seed(7)
    right = _loud(GPT2Layer(CONFIG))
    mine = _with_weights_of(answer, right)
    x = torch.randn(2, 5, CONFIG.n_embd)  # (B, T, C)
    after = x + right.attn(right.ln_1(x))
    post = right.ln_1(x + right.attn(x))
    mistakes = [
        Mistake(
            "that is post-norm; the norm belongs in front of each branch",
            right.ln_2(post + right.mlp(post)),
        ),
        Mistake(
            "the residual stream is missing; add what each branch returns "
            "to `x`",
            right.mlp(right.ln_2(right.attn(right.ln_1(x)))),
        ),
        Mistake(
            "attention adds to nothing; its result is to be added to `x`",
            _second(right, right.attn(right.ln_1(x))),
        ),
        Mistake("the second plus is missing", right.mlp(right.ln_2(after))),
        Mistake(
            "the feed-forward network reads the stream before attention",
            after + right.mlp(right.ln_2(x)),
        ),
        Mistake(
            "the feed-forward network adds to the stream before attention",
            x + right.mlp(right.ln_2(after)),
        ),
        Mistake(
            "the norms are exchanged; `ln_1` comes first",
            _exchanged(right, x),
        ),
        Mistake("the feed-forward network is missing", after),
        Mistake("attention is missing", _second(right, x)),
        Mistake(
            "attention should read a normalised copy, `ln_1(x)`",
            _second(right, x + right.attn(x)),
        ),
        Mistake(
            "the feed-forward network should read a normalised copy, "
            "`ln_2(x)`",
            after + right.mlp(after),
        ),
    ]
    same(call(mine, x), right(x), mistakes=mistakes)
    return "two norms, two branches, two plus signs"


def _second(layer: Any, x: Tensor) -> Tensor:
    """Run the second half of a layer."""
    return x + layer.mlp(layer.ln_2(x))


def _exchanged(layer: Any, x: Tensor) -> Tensor:
    x = x + layer.attn(layer.ln_2(x))
    return x + layer.mlp(layer.ln_1(x))


@exercise("whole-model")
def whole_model(answer: Any) -> str:
    """Try it yourself: from tokens to logits."""
    torch.manual_seed(7)
    right = _loud(GPT2(CONFIG))
    mine = _with_weights_of(answer, right)
    tokens = torch.randint(CONFIG.n_vocab, (2, 5))  # (B, T)
    places = torch.arange(5)
    with_places = right.wte(tokens) + right.wpe(places)
    logits = right(tokens)

    def rest(x: Tensor) -> Tensor:
        for layer in right.h:
            x = layer(x)
        return x

    mistakes = [
        Mistake(
            "the positions are missing", _out(right, rest(right.wte(tokens)))
        ),
        Mistake(
            "every token gets the position 0",
            _out(right, rest(right.wte(tokens) + right.wpe(places * 0))),
        ),
        Mistake(
            "positions count from 0, not from 1",
            _out(right, rest(right.wte(tokens) + right.wpe(places + 1))),
        ),
        Mistake(
            "the final norm is missing",
            right.unembed(rest(with_places)),
        ),
        Mistake("no layer is run", _out(right, with_places)),
        Mistake(
            "only the last layer has an effect; each should read what the "
            "one before it returned",
            _out(right, right.h[-1](with_places)),
        ),
        Mistake(
            "those are probabilities; return the logits",
            logits.softmax(-1),
        ),
        Mistake(
            "those are hidden states, (B, T, C); multiply by the token table",
            right.ln_f(rest(with_places)),
        ),
        Mistake(
            "that is for the last position only; every position guesses",
            logits[:, -1],
        ),
    ]
    same(call(mine, tokens), logits, "the logits", mistakes)
    return "the logits of the package's model, with the same weights"


def _out(model: Any, x: Tensor) -> Tensor:
    """Return the logits of a residual stream."""
    return F.linear(model.ln_f(x), model.wte.weight)


@exercise("next-token-loss")
def next_token_loss(answer: Any) -> str:
    """Try it yourself: the mean surprise at each next token."""
    torch.manual_seed(7)
    model = GPT2(CONFIG).eval().requires_grad_(False)
    model.wte.weight.normal_()
    tokens = torch.randint(CONFIG.n_vocab, (3, 6))  # (B, T + 1)
    logits = model(tokens)
    guesses, came = logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    right = F.cross_entropy(guesses, came).item()
    backwards = F.cross_entropy(
        logits[:, 1:].flatten(0, 1), tokens[:, :-1].flatten()
    )
    shown = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    mistakes = [
        Mistake(
            "there is no shift: you ask the model for the token that it has "
            "just read",
            shown.item(),
        ),
        Mistake(
            "there is no shift: you ask the model for the token that it has "
            "just read",
            F.cross_entropy(guesses, tokens[:, :-1].flatten()).item(),
        ),
        Mistake(
            "the shift goes the wrong way: you ask for the token before",
            backwards.item(),
        ),
        Mistake("that is the sum; take the mean", right * len(came)),
        Mistake("the sign is wrong; surprise is -log p", -right),
        Mistake("that is in bits; the unit is the nat", right / 0.6931472),
        Mistake(
            "that is the perplexity; leave out the exponential",
            torch.tensor(right).exp().item(),
        ),
        Mistake(
            "that is the sum over a text; take the mean over all positions",
            right * 5,
        ),
        Mistake(
            "you take the softmax twice; `cross_entropy` wants logits",
            F.cross_entropy(guesses.softmax(-1), came).item(),
        ),
    ]
    same(call(answer, model, tokens), right, "the loss", mistakes)
    return "the mean over all texts and positions, in nats"


@exercise("stammer")
def stammer(answer: Any) -> str:
    """Exercise 7.1: what a new model likes best after each token."""
    tokens = torch.tensor([[3, 14, 1, 5], [9, 2, 6, 7]])  # (B, T)
    got = call(answer, tokens)
    mistakes = [
        Mistake(
            "that is the token before; what is in the stream of a position "
            "from the very beginning?",
            tokens.roll(1, -1),
        ),
        Mistake(
            "that is the token that comes next; a new model cannot know it",
            tokens.roll(-1, -1),
        ),
        Mistake(
            "that is the first token of the text, whichever is read; what is "
            "in the stream of this position?",
            tokens[:, :1].expand(2, 4),
        ),
    ]
    if isinstance(got, Tensor) and got.unique().numel() == 1:
        raise NotYet(
            "one token for all places; a new model has no favourite, but "
            "something is different at each place"
        )
    same(got, tokens, "your prediction", mistakes)
    return (
        "the token itself, whose embedding is still in the stream when it "
        "meets all embeddings"
    )


@exercise("count-parameters")
def count_parameters(answer: Any) -> str:
    """Exercise 7.2: a formula for the number of parameters."""
    for v, n_ctx, c, n_layer in SIZES:
        right = (v + n_ctx) * c + n_layer * (12 * c**2 + 13 * c) + 2 * c
        got = call(answer, v, n_ctx, c, n_layer)
        what = f"the number for V={v}, n_ctx={n_ctx}, C={c}, L={n_layer}"
        mistakes = [
            *_small_parts(right, c, n_layer),
            *_tables(right, v, n_ctx, c, n_layer),
            *_maps(right, c, n_layer),
        ]
        same(got, right, what, mistakes)
    return "12 C² + 13 C for each layer, two tables, and a final norm"


def _small_parts(right: int, c: int, n_layer: int) -> list[Mistake]:
    """Norms and biases that people forget."""
    return [
        Mistake("the final norm is missing, 2 C", right - 2 * c),
        Mistake(
            "in each layer, the two norms are missing, 4 C",
            right - 4 * c * n_layer,
        ),
        Mistake(
            "in each layer, one norm is missing; there are two",
            right - 2 * c * n_layer,
        ),
        Mistake(
            "you count no norm at all; each has 2 C",
            right - 4 * c * n_layer - 2 * c,
        ),
        Mistake(
            "no bias is counted; every linear map has one number for each "
            "output, 9 C in a layer",
            right - 9 * c * n_layer,
        ),
        Mistake(
            "the terms with C alone are missing: biases and norms",
            right - 13 * c * n_layer - 2 * c,
        ),
    ]


def _tables(
    right: int, v: int, n_ctx: int, c: int, n_layer: int
) -> list[Mistake]:
    """Mistakes about the tables of tokens and positions."""
    return [
        Mistake(
            "you give the output a matrix of its own; it shares the token "
            "table",
            right + v * c,
        ),
        Mistake(
            "you give the output a bias, which GPT-2 does not have", right + v
        ),
        Mistake("the position table is missing", right - n_ctx * c),
        Mistake("the token table is missing", right - v * c),
        Mistake("both tables are missing", right - (v + n_ctx) * c),
        Mistake(
            "you give each layer a position table; the model has one",
            right + (n_layer - 1) * n_ctx * c,
        ),
    ]


def _maps(right: int, c: int, n_layer: int) -> list[Mistake]:
    """Mistakes about the layers and their linear maps."""
    one_map = c**2 + c
    return [
        Mistake(
            "you counted a single layer; there are L of them",
            right - (n_layer - 1) * (12 * c**2 + 13 * c),
        ),
        Mistake(
            "you count only attention's `c_proj`; `c_attn` makes queries, "
            "keys and values",
            right - 3 * n_layer * one_map,
        ),
        Mistake(
            "you count `c_attn` as one map from C to C; it makes queries, "
            "keys and values",
            right - 2 * n_layer * one_map,
        ),
        Mistake("attention's `c_proj` is missing", right - n_layer * one_map),
        Mistake(
            "you count one map of the feed-forward network; there is one up "
            "and one down",
            right - n_layer * (4 * c**2 + c),
        ),
    ]


@exercise("parallel-layer")
def parallel_layer(answer: Any) -> str:
    """Exercise 7.3: attention and feed-forward network side by side."""
    torch.manual_seed(7)
    layer = call(answer, CONFIG)
    if not isinstance(layer, nn.Module):
        raise NotYet(f"expected an nn.Module; got {describe(layer)}")
    for name in ("ln_1", "attn", "mlp"):
        if not hasattr(layer, name):
            raise NotYet(f"it has no `{name}`; that part should stay")
    layer = layer.eval().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, 5, CONFIG.n_embd)  # (B, T, C)
    same(call(layer, x), _result(layer, x), mistakes=_layer_mistakes(layer, x))
    spare = sum(p.numel() for p in layer.parameters()) - _n_parameters(layer)
    if spare:
        raise NotYet(
            f"the result is right, but {spare} parameters are left over; "
            "delete the norm that is no longer used"
        )
    _check_mask(layer, x)
    _check_cache(layer, x)
    return "with a mask and with a cache too; one norm is enough"


def _check_mask(layer: Any, x: Tensor) -> None:
    holed = torch.ones(5, 5).tril().bool()
    holed[3:, 0] = False
    ignored = Mistake("it ignores its mask", _result(layer, x))
    right = _result(layer, x, holed)
    same(call(layer, x, holed), right, "the result with a mask", [ignored])


def _check_cache(layer: Any, x: Tensor) -> None:
    shape = (2, CONFIG.n_head, 8, CONFIG.head_size)
    cache = LayerCache(torch.zeros(shape), torch.zeros(shape))
    steps = [call(layer, x[:, t : t + 1], cache=cache) for t in range(5)]
    if cache.length == 0:
        raise NotYet("it does not pass the cache on to attention")
    what = "the result with a cache, token by token,"
    same(torch.cat(steps, dim=1), call(layer, x), what)


def _n_parameters(layer: Any) -> int:
    """Count the parameters of the parts that are needed."""
    parts = (layer.ln_1, layer.attn, layer.mlp)
    return sum(p.numel() for part in parts for p in part.parameters())


def _result(layer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    n = layer.ln_1(x)
    return x + layer.attn(n, mask=mask) + layer.mlp(n)


def _layer_mistakes(layer: Any, x: Tensor) -> list[Mistake]:
    second: Callable[[Tensor], Tensor] = getattr(layer, "ln_2", layer.ln_1)
    mlp, n = layer.mlp, layer.ln_1(x)
    found, raw = layer.attn(n), layer.attn(x)
    after = x + found
    return [
        Mistake(
            "the feed-forward network reads the stream after attention; it "
            "should read what attention reads",
            after + mlp(layer.ln_1(after)),
        ),
        Mistake(
            "that is the old layer; now the feed-forward network should read "
            "what attention reads",
            after + mlp(second(after)),
        ),
        Mistake("both parts should share one norm", after + mlp(second(x))),
        Mistake(
            "the feed-forward network reads the output of attention; it "
            "should read what attention reads",
            after + mlp(found),
        ),
        Mistake("the residual stream is missing; add `x`", found + mlp(n)),
        Mistake("the residual stream is added twice", x + after + mlp(n)),
        Mistake(
            "positions see the future; without a mask attention is causal",
            x + layer.attn(n, causal=False) + mlp(n),
        ),
        Mistake("the feed-forward network needs a norm first", after + mlp(x)),
        Mistake("attention needs a norm first", x + raw + mlp(n)),
        Mistake("neither part has a norm in front of it", x + raw + mlp(x)),
        Mistake(
            "you add to the normalised vectors; add to `x` itself",
            n + found + mlp(n),
        ),
        Mistake("the feed-forward network is missing", after),
        Mistake("attention is missing", x + mlp(n)),
    ]


@exercise("layer-missed")
def layer_missed(answer: Any) -> str:
    """Exercise 7.4: which of four layers is missed most."""
    answer = number(answer)
    if answer not in (0, 1, 2, 3):
        raise NotYet(f"0, 1, 2 or 3; got {describe(answer)}")
    if answer != 0:
        raise NotYet(
            "another one is missed more; which layer's output do all the "
            "others read?"
        )
    return "the first, by far"
