"""A model without dropout, while others use it with dropout."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from generating import GREEDY, spoil, varied
from torch import Tensor, nn

from gpt2.beams import beam_search
from gpt2.dropout import without_dropout
from gpt2.generation import generate, stream
from gpt2.model import GPT2


@pytest.fixture
def model(model: GPT2) -> GPT2:
    return varied(model)


class Shared:
    """A model with much dropout in training mode, which others use too."""

    def __init__(self, model: GPT2) -> None:
        self.model = spoil(model)
        model.h[1].eval()  # half of it, as one who fine-tunes may have it
        self.modes = [module.training for module in model.modules()]

    def is_as_it_was(self) -> bool:
        return self.modes == [m.training for m in self.model.modules()]


def test_dropout_is_off_and_the_model_as_it_was(
    model: GPT2, tokens: Tensor
) -> None:
    expected = generate(model, tokens, 9, GREEDY)
    shared = Shared(model)
    assert torch.equal(generate(model, tokens, 9, GREEDY), expected)
    assert torch.equal(beam_search(model, tokens, 9, n_beams=1)[0], expected)
    steps = stream(model, tokens, 9, GREEDY)
    for drawn, right in zip(steps, expected[:, 5:].T, strict=True):
        assert torch.equal(drawn, right)
        assert shared.is_as_it_was()  # while it is half read, too
        assert not torch.equal(model(tokens), model(tokens))
    with pytest.raises(ValueError, match="attention_mask"):
        generate(model, tokens, attention_mask=torch.ones(2, 4))

    def interrupt(module: nn.Module, inputs: Any) -> None:
        raise KeyboardInterrupt

    handle = model.h[1].register_forward_pre_hook(interrupt)
    for run in (generate, beam_search):
        with pytest.raises(KeyboardInterrupt):
            run(model, tokens)
        assert shared.is_as_it_was()
    handle.remove()


def test_streams_side_by_side_have_no_dropout(
    model: GPT2, tokens: Tensor
) -> None:
    """The first is dropped while the second is half read."""
    expected = generate(model, tokens, 9, GREEDY)
    shared = Shared(model)
    first, second = (stream(model, tokens, 9, GREEDY) for _ in range(2))
    found = [tokens, next(first)[:, None], next(second)[:, None]]
    assert torch.equal(found[1], found.pop())
    first.close()
    found += [drawn[:, None] for drawn in second]
    assert torch.equal(torch.cat(found, dim=1), expected)
    assert shared.is_as_it_was()


@pytest.mark.parametrize("outer", ["begins first", "ends last"])
def test_threads_have_no_dropout(
    model: GPT2, tokens: Tensor, outer: str
) -> None:
    """One thread generates while another is in the middle of a layer.

    The other has begun before it, or else begins during its first step.
    """
    expected = generate(model, tokens, 9, GREEDY)
    shared = Shared(model)
    inside, go_on = threading.Event(), threading.Event()
    found: list[Tensor] = []

    def write() -> None:
        found.append(generate(model, tokens, 9, GREEDY))

    other = threading.Thread(target=write)

    def pause(module: nn.Module, inputs: Any) -> None:
        if threading.current_thread() is other and not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    model.h[1].register_forward_pre_hook(pause)
    steps = stream(model, tokens, 9, GREEDY)
    if outer == "ends last":
        next(steps)
    other.start()
    assert inside.wait(60)
    if outer == "begins first":
        next(steps)
    rest = list(steps)
    go_on.set()
    other.join()
    assert torch.equal(found[0], expected)
    assert torch.equal(torch.stack(rest, dim=1), expected[:, 6:])
    assert shared.is_as_it_was()


def test_another_thread_may_train_meanwhile(
    model: GPT2, tokens: Tensor
) -> None:
    """It switches between its modes, as a loop with held-out losses does."""
    expected = generate(model, tokens, 4, GREEDY)[:, 5:]
    spoil(model)
    for training in (False, True):
        model.train(training)
        for right, drawn in zip(
            expected.T, stream(model, tokens, 4, GREEDY), strict=True
        ):
            assert torch.equal(drawn, right)
            training = not training
            model.train(training)


def test_a_model_without_dropout_shares_what_it_has(model: GPT2) -> None:
    twin = without_dropout(model.train())
    assert type(twin) is GPT2
    assert twin.config is model.config
    assert not any(module.training for module in twin.modules())
    theirs = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        assert parameter is theirs.pop(name)
    assert not theirs
    seen: list[nn.Module] = []
    model.h[0].register_forward_hook(lambda *_: seen.append(model))
    without_dropout(model)(torch.zeros(1, 1).long())
    assert seen == [model]  # the model's hooks are called
    twin.h[0].register_forward_hook(lambda *_: seen.append(twin))
    model(torch.zeros(1, 1).long())
    assert seen == [model, model]  # the twin's are its own


@pytest.mark.parametrize("way", ["a compiled module", "compiled in place"])
def test_a_compiled_model_has_no_dropout_either(
    model: GPT2, tokens: Tensor, way: str
) -> None:
    expected = generate(model, tokens, 1, GREEDY)
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph(*arguments)

        return run

    compiled = model
    if way == "a compiled module":
        compiled = torch.compile(model, backend=backend)
    else:
        model.compile(backend=backend)
    spoil(model)
    assert torch.equal(generate(compiled, tokens, 1, GREEDY), expected)
    assert not calls
    model.eval()  # then what was compiled is what runs
    assert torch.equal(generate(compiled, tokens, 1, GREEDY), expected)
    assert calls


def test_a_forward_that_was_replaced_is_not_run_with_dropout(
    model: GPT2, tokens: Tensor
) -> None:
    """It would run the module that it was taken from."""
    expected = generate(model, tokens, 3, GREEDY)
    for module in (model, model.drop):
        own = module.forward
        module.forward = lambda *a, own=own, **k: own(*a, **k)
        with pytest.raises(ValueError, match=r"call `model\.eval\(\)` first"):
            generate(model.train(), tokens, 3, GREEDY)
        assert torch.equal(generate(model.eval(), tokens, 3, GREEDY), expected)
        del module.forward
