"""What the tests share: one tiny model, and one of GPT-2's own size.

The tiny sizes have no factor in common by accident (B=2, T=5, H=3, D=4,
V=17), so that code which swaps two axes cannot pass.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from gpt2.commands import screen
from gpt2.config import GPT2Config
from gpt2.model import GPT2

# They start their processes by forking, which Windows has not.
collect_ignore = (
    []
    if hasattr(os, "fork")
    else ["test_mutations.py", "test_training_processes.py"]
)

# With one thread the sums are added up in one order everywhere, and tests that
# run side by side do not fight over the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slow machine show progress where a test expects none."""
    monkeypatch.setattr(screen, "PATIENCE", 1e6)


@pytest.fixture
def tiny() -> GPT2Config:
    """The config of a GPT-2 that runs in a millisecond."""
    return GPT2Config(n_vocab=17, n_ctx=16, n_embd=12, n_head=3, n_layer=2)


Module = TypeVar("Module", bound=nn.Module)


def _shake(module: Module, std: float = 0.3) -> Module:
    """Move every parameter, so that each of them matters to the result.

    In a new model the biases are 0, the norms do nothing, and attention is
    nearly uniform: much could be wrong there without being seen.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(std * torch.randn_like(parameter))
    return module


@pytest.fixture
def shake() -> Callable[..., nn.Module]:
    """`shake(module)` moves every parameter at random, and returns it."""
    return _shake


@pytest.fixture
def model(tiny: GPT2Config) -> GPT2:
    """A tiny model in which every parameter matters, without dropout."""
    return _shake(GPT2(tiny)).eval()


@pytest.fixture
def tokens(tiny: GPT2Config) -> Tensor:
    """Random token ids, (B, T) = (2, 5)."""
    return torch.randint(tiny.n_vocab, (2, 5))


@pytest.fixture
def make_pipe() -> Iterator[Callable[[Path], None]]:
    """`make_pipe(path)` makes a named pipe that nobody waits at for ever.

    Whoever opens it all the same finds it empty, and the test fails.
    """
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes are POSIX's")
    made: list[tuple[Path, threading.Thread]] = []

    def make(path: Path) -> None:
        os.mkfifo(path)
        writer = threading.Thread(target=lambda: path.open("wb").close())
        writer.daemon = True
        writer.start()
        made.append((path, writer))

    yield make
    for path, writer in made:
        while writer.is_alive():  # it waits for a reader
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            writer.join(0.01)


@pytest.fixture(scope="session")
def full_size_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 124M, written by `transformers`.

    Half a gigabyte: tests that use it carry
    `@pytest.mark.xdist_group("full_size")`, so that it is written once.
    """
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    torch.manual_seed(124)
    folder = tmp_path_factory.mktemp("gpt2-124M")
    _shake(GPT2LMHeadModel(TheirConfig()), 0.02).save_pretrained(folder)
    return folder
