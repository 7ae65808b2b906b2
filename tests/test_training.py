from __future__ import annotations

import ctypes
import json
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch
from generating import with_spare_rows
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import gpt2
from gpt2 import stories
from gpt2.__main__ import main
from gpt2.commands.parsing import parse
from gpt2.commands.train_settings import (
    read_config,
    read_settings,
    read_source,
)
from gpt2.config import GPT2Config
from gpt2.data import (
    DataError,
    Tokens,
    Windows,
    draw_batch,
    first_documents,
    read_tokens,
    write_tokens,
)
from gpt2.feed_forward import ACTIVATION_FUNCTIONS, gelu_new
from gpt2.files.checksums import write_sums
from gpt2.model import GPT2, IGNORED, next_token_loss
from gpt2.progress import shown_by
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.tokenizer.tokenizer import Tokenizer, TokenizerError
from gpt2.training import activation, loop, metrics
from gpt2.training import corpus as reading
from gpt2.training import cross_entropy as pieces
from gpt2.training.attention import choose_attention
from gpt2.training.checkpoint import ResumeError, checkpoints, read_checkpoint
from gpt2.training.diagnosis import TrainingError
from gpt2.training.loop import Report, Run
from gpt2.training.memory import freed_memory_kept
from gpt2.training.micro_batches import micro_batches
from gpt2.training.optimizer import (
    make_optimizers,
    read_state,
    set_learning_rate,
    write_state,
)
from gpt2.training.settings import OptimizerName, TrainingSettings
from gpt2.training.workers import Workers

CONFIG = GPT2Config(
    n_vocab=17,
    n_ctx=16,
    n_embd=12,
    n_head=3,
    n_layer=2,
    embd_dropout=0.0,
    attn_dropout=0.0,
    resid_dropout=0.0,
)
DROPPING = replace(
    CONFIG, embd_dropout=0.1, attn_dropout=0.1, resid_dropout=0.1
)
SETTINGS = TrainingSettings(
    n_steps=6,
    batch_size=8,
    context=10,
    optimizer="adamw",
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    n_warmup=2,
    weight_decay=0.1,
    precision="float32",
    fused_attention=True,
    evaluate_every=3,
    evaluate_rows=4,
    save_every=2,
)


def counting(n_documents: int, seed: int = 0) -> list[list[int]]:
    """Documents of five consecutive numbers and a 0 at their end."""
    begins = torch.randint(
        1, 12, (n_documents,), generator=torch.Generator().manual_seed(seed)
    )
    return [[*range(begin, begin + 5), 0] for begin in begins.tolist()]


@pytest.fixture
def corpus(tmp_path: Path) -> Tokens:
    return write_tokens(tmp_path / "train.bin", counting(100), 17, 0)


@pytest.fixture
def uneven(tmp_path: Path) -> Tokens:
    """Documents of one to twelve tokens."""
    texts = [[*range(1, 2 + n % 12), 0] for n in range(100)]
    return write_tokens(tmp_path / "uneven.bin", texts, 17, 0)


@pytest.fixture
def held_out(tmp_path: Path) -> Tokens:
    return write_tokens(tmp_path / "held.bin", counting(20, seed=1), 17, 0)


def new_model(config: GPT2Config = CONFIG, seed: int = 0) -> GPT2:
    torch.manual_seed(seed)
    return GPT2(config)


Start = Callable[..., Run]


@pytest.fixture
def start(corpus: Tokens, held_out: Tokens, tmp_path: Path) -> Start:
    """`start(name, config, resume, model=..., **settings)` prepares a run."""

    def start(
        name: str = "run",
        config: GPT2Config = CONFIG,
        resume: bool = False,
        *,
        model: GPT2 | None = None,
        tokens: Tokens = corpus,
        held: Tokens | None = held_out,
        **changes: Any,
    ) -> Run:
        return Run(
            model or new_model(config),
            tokens,
            replace(SETTINGS, **changes),
            tmp_path / name,
            held_out=held,
            resume=resume,
        )

    return start


def finish(run: Run, snapshots: Collection[int] = ()) -> list[Report]:
    return list(run.steps(snapshots))


def weights(run: Run) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def assert_same_weights(a: Run, b: Run, tolerance: float = 0.0) -> None:
    for name, tensor in a.model.state_dict().items():
        difference = (tensor - b.model.state_dict()[name]).abs()
        if tolerance and name.endswith("c_attn.bias"):
            # The bias of the keys shifts all scores of a query equally, so its
            # gradient is nothing but rounding, which Adam scales up.
            difference = difference.view(3, -1)[[0, 2]]
        assert difference.max() <= tolerance, name


# The settings.


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (8, 0.55),
        (12, 0.1),
        (99, 0.1),
    ],
)
def test_the_learning_rate_rises_and_falls(step: int, rate: float) -> None:
    plan = TrainingSettings(
        n_steps=13, n_warmup=4, learning_rate=1.0, final_learning_rate=0.1
    )
    assert plan.learning_rate_at(step) == pytest.approx(rate)


def test_there_may_be_no_warm_up_and_a_single_step() -> None:
    plan = TrainingSettings(n_steps=1, n_warmup=0, learning_rate=1.0)
    assert plan.learning_rate_at(0) == 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_steps", 0),
        ("batch_size", 0),
        ("n_accumulate", 0),
        ("n_accumulate", 3),
        ("context", 0),
        ("windows", "nowhere"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("final_learning_rate", 1.0),
        ("final_learning_rate", -1.0),
        ("n_warmup", -1),
        ("weight_decay", -0.1),
        ("clip", 0.0),
        ("precision", "float8"),
        ("seed", -1),
        ("evaluate_every", 0),
        ("evaluate_rows", 0),
        ("patience", 0),
        ("save_every", 0),
        ("seed", 1.5),
        ("seed", True),
        ("n_steps", 1.5),
        ("batch_size", None),
        ("learning_rate", float("inf")),
        ("final_learning_rate", float("nan")),
        ("weight_decay", float("nan")),
        ("weight_decay", float("inf")),
        ("clip", float("inf")),
        ("clip", float("nan")),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
        ("optimizer", "sgd"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}.* got .*{value}"):
        replace(SETTINGS, **{field: value})


# The optimizers.

both_optimizers = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


@both_optimizers
def test_matrices_decay_and_nothing_else(
    model: GPT2, optimizer: OptimizerName
) -> None:
    decay = {
        parameter: group["weight_decay"]
        for optimizer in make_optimizers(
            model, replace(SETTINGS, optimizer=optimizer)
        )
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        is_matrix = name.endswith("weight") and "ln_" not in name
        expected = SETTINGS.weight_decay if is_matrix else 0.0
        assert decay.pop(parameter) == expected, name
    assert not decay


def test_steps_are_those_of_the_formula() -> None:
    """Loshchilov and Hutter (2019), algorithm 2, in plain floats."""
    module = nn.Module()
    module.matrix = nn.Parameter(torch.tensor([[2.0]]))
    module.vector = nn.Parameter(torch.tensor([-3.0]))
    plan = replace(SETTINGS, weight_decay=0.2, beta_1=0.8, beta_2=0.9)
    (optimizer,) = make_optimizers(module, plan)
    set_learning_rate([optimizer], 0.1)
    for parameter, decay in ((module.matrix, 0.2), (module.vector, 0.0)):
        expected, mean, square = parameter.item(), 0.0, 0.0
        for t, gradient in enumerate((0.5, -2.0, 1.0), start=1):
            parameter.grad = torch.full_like(parameter, gradient)
            optimizer.step()
            optimizer.zero_grad()
            mean = 0.8 * mean + 0.2 * gradient
            square = 0.9 * square + 0.1 * gradient**2
            expected -= 0.1 * decay * expected
            expected -= (
                0.1
                * (mean / (1 - 0.8**t))
                / (math.sqrt(square / (1 - 0.9**t)) + 1e-8)
            )
            assert parameter.item() == pytest.approx(expected, abs=1e-6)


def test_muon_steps_are_as_long_in_every_direction() -> None:
    """Jordan et al. (2024): a step's singular values are all about 1.

    Though the gradient's are twenty times apart; and scaled by 0.2 times the
    root of the longer side.
    """
    model = new_model()
    matrix = model.h[0].mlp.c_fc.weight  # (12, 48)
    settings = replace(SETTINGS, optimizer="muon", weight_decay=0.0)
    adamw, muon = make_optimizers(model, settings)
    inside = {p for group in muon.param_groups for p in group["params"]}
    assert inside == {
        p
        for name, p in model.named_parameters()
        if name.startswith("h.") and p.dim() == 2
    }
    set_learning_rate([adamw, muon], 0.5)
    before = matrix.detach().clone()
    left, _ = torch.linalg.qr(torch.randn(12, 12))
    right, _ = torch.linalg.qr(torch.randn(48, 12))
    matrix.grad = left @ torch.diag(torch.linspace(1, 0.05, 12)) @ right.T
    muon.step()
    step = (before - matrix.detach()) / (0.5 * 0.2 * 48**0.5)
    along = (left.T @ step @ right).diagonal()
    assert along.min() > 0.6
    assert along.max() < 1.3
    strengths = torch.linalg.svdvals(step)
    assert strengths.min() > 0.6
    assert strengths.max() < 1.3


@both_optimizers
def test_the_optimizers_go_on_from_what_was_read(
    optimizer: OptimizerName,
) -> None:
    def step(model: GPT2, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        next_token_loss(model, torch.arange(8)[None]).backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()

    settings = replace(SETTINGS, optimizer=optimizer)
    model = new_model()
    optimizers = make_optimizers(model, settings)
    step(model, optimizers)
    twin = new_model()
    twin.load_state_dict(model.state_dict())
    others = make_optimizers(twin, settings)
    write_state(twin, others, read_state(model, optimizers), Workers())
    for _ in range(2):  # independently: the state was copied
        step(model, optimizers)
        step(twin, others)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


# A step.


def test_a_step_is_what_it_says(start: Start, corpus: Tokens) -> None:
    """Loss, clipping, learning rate and update, computed by hand."""
    run = start(clip=0.05, seed=5)
    twin = new_model()
    (optimizer,) = make_optimizers(twin, run.settings)
    for step, report in enumerate(run.steps()):
        rows, _ = draw_batch(corpus, step, 8, 11, seed=5)
        loss = next_token_loss(twin, rows)
        loss.backward()
        norm = torch.linalg.vector_norm(
            torch.cat([p.grad.flatten() for p in twin.parameters()])
        )
        for parameter in twin.parameters():
            assert parameter.grad is not None
            parameter.grad *= 0.05 / (norm + 1e-6)
        rate = run.settings.learning_rate_at(step)
        set_learning_rate([optimizer], rate)
        optimizer.step()
        optimizer.zero_grad()
        assert norm > 0.05
        assert report.step == step + 1
        assert report.loss == pytest.approx(loss.item(), abs=1e-6)
        assert report.gradient_norm == pytest.approx(float(norm), abs=1e-6)
        assert report.learning_rate == rate
        assert report.n_tokens == (step + 1) * 8 * 10
        for name, tensor in run.model.named_parameters():
            other = twin.get_parameter(name)
            torch.testing.assert_close(tensor, other, atol=1e-6, rtol=0)


def test_a_short_gradient_is_left_alone(start: Start) -> None:
    run = start(clip=1e6)
    report = next(run.steps())
    length = torch.linalg.vector_norm(
        torch.cat([p.grad.flatten() for p in run.model.parameters()])
    )
    assert report.gradient_norm == pytest.approx(float(length), rel=1e-5)


def test_it_learns(start: Start) -> None:
    """To count, down to the entropy of the documents."""
    reports = finish(
        start(
            n_steps=150,
            learning_rate=2e-2,
            windows="documents",
            evaluate_every=50,
            evaluate_rows=20,
        )
    )
    assert reports[0].loss == pytest.approx(math.log(17), abs=0.1)
    looks = [r.held_out_loss for r in reports if r.held_out_loss is not None]
    floor = math.log(11) / 6  # one of six tokens is uncertain
    assert looks[0] > looks[-1]
    assert floor - 0.15 < looks[-1] < floor + 0.15


@pytest.mark.parametrize("windows", get_args(Windows))
def test_parts_of_a_batch_add_up_to_the_whole(
    start: Start, uneven: Tokens, windows: Windows
) -> None:
    """Also if the rows, and so the parts, have unequal numbers of tokens."""
    whole, parts = (
        start(f"{n}", tokens=uneven, windows=windows, n_accumulate=n)
        for n in (1, 4)
    )
    losses = [[r.loss for r in finish(run)] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert_same_weights(whole, parts, tolerance=3e-6)


def test_tokens_of_all_processes_count_alike(
    start: Start, uneven: Tokens
) -> None:
    run = start(tokens=uneven, windows="documents", n_accumulate=2)
    rows, mask = draw_batch(uneven, 0, 8, 11, windows="documents")
    n_predicted, total = int(mask[:, 1:].sum()), torch.zeros(())
    counts = set()
    for rank in range(2):
        for part, real, n_here in micro_batches(
            rows, mask, run.settings, Workers(rank, 2)
        ):
            loss = next_token_loss(run.model, part, real)
            total += loss.detach() * n_here / n_predicted
            counts.add(n_here)
    assert len(counts) > 2
    whole = next_token_loss(run.model, rows, mask)
    torch.testing.assert_close(total, whole.detach())


def test_a_step_over_documents_is_the_mean_over_their_tokens(
    start: Start, uneven: Tokens
) -> None:
    run = start(tokens=uneven, windows="documents", seed=3, n_accumulate=2)
    twin = new_model()
    report = next(run.steps())
    rows, mask = draw_batch(uneven, 0, 8, 11, windows="documents", seed=3)
    nats, count = 0.0, 0
    for row, real in zip(rows, mask, strict=True):
        alone = row[real][None]
        nats += next_token_loss(twin, alone).item() * (alone.size(1) - 1)
        count += alone.size(1) - 1
    assert report.loss == pytest.approx(nats / count, abs=1e-5)
    assert report.n_tokens == count
    assert not mask.all()


def test_each_part_goes_through_the_model_by_itself(start: Start) -> None:
    sizes = []
    run = start(n_accumulate=4)
    run.model.wte.register_forward_pre_hook(
        lambda module, inputs: sizes.append(tuple(inputs[0].shape))
    )
    next(run.steps())
    assert sizes == [(2, 10)] * 4


def test_bfloat16_computes_in_it_and_learns(start: Start) -> None:
    run = start(precision="bfloat16", n_steps=60)
    seen = []
    layer = run.model.h[0].attn.c_attn
    layer.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    reports = finish(run)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert reports[-1].loss < 0.7 * reports[0].loss
    exact = finish(start("exact", n_steps=60))
    assert reports[-1].loss != exact[-1].loss
    assert reports[-1].loss == pytest.approx(exact[-1].loss, rel=0.1)


@pytest.mark.parametrize("fused", [True, False])
def test_who_computes_attention_is_chosen(start: Start, fused: bool) -> None:
    run = start(fused_attention=fused)
    for layer in run.model.h:
        assert layer.attn.fused is fused


@pytest.mark.parametrize("windows", get_args(Windows))
def test_a_compiled_model_learns_the_same(
    start: Start,
    uneven: Tokens,
    windows: Windows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of `torch.compile` but its last stage, which takes minutes."""
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="aot_eager")
    )
    settings = {"tokens": uneven, "windows": windows, "n_steps": 3}
    compiled = start("compiled", compile=True, **settings)
    calls = []
    compiled.forward.register_forward_hook(lambda *_: calls.append(1))
    plain = start("plain", **settings)
    losses = [[r.loss for r in finish(run)] for run in (compiled, plain)]
    assert calls
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert_same_weights(compiled, plain, tolerance=1e-5)
    assert type(gpt2.load_model(compiled.folder)) is GPT2


@pytest.fixture
def one_row(tmp_path: Path) -> Tokens:
    """A corpus with a single row in it: every batch is the same."""
    row = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]
    return write_tokens(tmp_path / "row.bin", row, 17, 0)


def test_dropout_follows_seed_and_step(start: Start, one_row: Tokens) -> None:
    def losses(config: GPT2Config, **changes: Any) -> list[float]:
        folder = f"{config.attn_dropout}{changes}"
        run = start(
            folder, config, tokens=one_row, learning_rate=1e-30, **changes
        )
        return [report.loss for report in finish(run)]

    kept = losses(CONFIG, final_learning_rate=0.0)
    assert len(set(kept)) == 1
    assert losses(CONFIG, seed=1, final_learning_rate=0.0) == kept
    dropped = [
        losses(DROPPING, seed=seed, final_learning_rate=0.0)
        for seed in (0, 1, 2**24, 2**40)
    ]
    different = {loss for run in dropped for loss in run}
    assert len(different) == sum(map(len, dropped))
    again = losses(DROPPING, final_learning_rate=0.0, evaluate_every=1)
    assert again == dropped[0]


def test_a_process_of_another_number_drops_others(
    start: Start, one_row: Tokens
) -> None:
    def loss(rank: int) -> float:
        run = start(f"{rank}", DROPPING, tokens=one_row)
        run.workers = replace(run.workers, rank=rank)
        run.seed_dropout()
        rows, _ = draw_batch(one_row, 0, 8, 11)
        return next_token_loss(run.model, rows).item()

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


# The held-out loss.


def test_documents_are_measured_one_by_one(
    start: Start, held_out: Tokens
) -> None:
    """Without padding, and without dropout."""
    long = write_tokens(
        Path(start("x").folder.parent) / "long.bin",
        [[1, 2, 0], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0], [5, 0], [6, 0]],
        17,
        0,
    )
    run = start("run", DROPPING, windows="documents", held=long, n_steps=3)
    *_, report = finish(run)
    model = run.whole_model().eval()
    rows, mask = first_documents(long, 4, 11)
    nats, count = 0.0, 0
    for row, real in zip(rows, mask, strict=True):
        alone = row[real][None]
        n_predicted = alone.size(1) - 1
        nats += next_token_loss(model, alone).item() * n_predicted
        count += n_predicted
    assert count == 3 + 10 + 2 + 2
    assert report.held_out_loss == pytest.approx(nats / count, abs=1e-5)


def test_it_is_measured_when_it_is_due(start: Start) -> None:
    reports = finish(start(n_steps=8))
    looks = [r.step for r in reports if r.held_out_loss is not None]
    assert looks == [3, 6, 8]


def test_measuring_and_saving_do_not_change_the_run(start: Start) -> None:
    runs = [
        start("never", DROPPING, held=None, evaluate_every=99, save_every=99),
        start("often", DROPPING, evaluate_every=1, save_every=1),
        start("rows", DROPPING, evaluate_rows=9),
    ]
    losses = [
        [report.loss for report in finish(run, snapshots)]
        for run, snapshots in zip(runs, ([], [], [0, 1, 2]), strict=True)
    ]
    assert losses[0] == losses[1] == losses[2]
    assert_same_weights(runs[0], runs[1])
    assert_same_weights(runs[0], runs[2])


def test_the_best_model_lies_in_the_folder(
    start: Start, corpus: Tokens, tmp_path: Path
) -> None:
    """Trained on counting and measured on noise, it soon gets worse."""
    noise = torch.randint(1, 17, (400,)).tolist()
    strange = write_tokens(tmp_path / "noise.bin", [[*noise, 0]], 17, 0)
    run = start(
        held=strange,
        n_steps=200,
        evaluate_every=2,
        patience=4,
        save_every=50,
    )
    reports = finish(run, range(1, 200))
    looks = {
        r.step: r.held_out_loss for r in reports if r.held_out_loss is not None
    }
    best = min(looks, key=lambda step: looks[step])
    assert run.progress.best_step == best
    assert run.progress.best_loss == looks[best]
    assert len(reports) == best + 2 * 4 < 200
    kept = gpt2.load_model(run.folder).state_dict()
    snapshot = run.folder / "snapshots" / f"step-{best:08d}"
    for name, tensor in gpt2.load_model(snapshot).state_dict().items():
        assert torch.equal(kept[name], tensor)
    # Resumed, such a run has nothing left to do.
    again = start(
        held=strange,
        n_steps=200,
        evaluate_every=2,
        patience=4,
        save_every=50,
        resume=True,
    )
    assert again.progress.step == len(reports)
    assert finish(again) == []


def test_patience_begins_anew_with_every_best(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(evaluate_every=1, n_steps=9, patience=2)
    losses = iter([3.0, 4.0, 2.0, 4.0, 2.0, 1.0])
    monkeypatch.setattr(loop, "held_out_loss", lambda run: next(losses))
    assert len(finish(run)) == 5
    assert run.progress.best_loss == 2.0
    assert run.progress.best_step == 3


def test_without_held_out_text_the_last_model_is_kept(start: Start) -> None:
    run = start(held=None)
    reports = finish(run)
    assert all(report.held_out_loss is None for report in reports)
    kept = gpt2.load_model(run.folder).state_dict()
    assert all(torch.equal(kept[k], v) for k, v in weights(run).items())


def test_snapshots_are_models(start: Start) -> None:
    run = start()
    first = weights(run)
    finish(run, [0, 4])
    folder = run.folder / "snapshots"
    assert sorted(p.name for p in folder.iterdir()) == [
        "step-00000000",
        "step-00000004",
    ]
    kept = gpt2.load_model(folder / "step-00000000").state_dict()
    assert all(torch.equal(kept[name], first[name]) for name in first)


# Checkpoints.


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_checkpoints_stay_and_nothing_else(start: Start) -> None:
    run = start(n_steps=7)
    finish(run)
    assert names(run.folder / "checkpoints") == [
        "step-00000006",
        "step-00000007",
    ]
    assert names(run.folder) == [
        "checkpoints",
        "config.json",
        "model.safetensors",
    ]
    state = read_checkpoint(run.folder)
    assert state.progress == run.progress
    assert state.settings == asdict(run.settings)
    assert set(state.optimizer) == {
        f"{name}/{what}"
        for name, _ in run.model.named_parameters()
        for what in ("step", "exp_avg", "exp_avg_sq")
    }
    saved = gpt2.load_model(state.folder).state_dict()
    assert all(torch.equal(saved[k], v) for k, v in weights(run).items())


@pytest.mark.parametrize("stopped_after", [3, 4, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "windows": "documents",
            "optimizer": "muon",
            "precision": "bfloat16",
        },
    ],
    ids=["plain", "as for stories"],
)
def test_a_run_goes_on_as_if_it_had_not_stopped(
    start: Start,
    uneven: Tokens,
    changes: dict[str, Any],
    stopped_after: int,
) -> None:
    changes = changes | {"n_accumulate": 2, "tokens": uneven, "held": uneven}
    whole = start("whole", DROPPING, **changes)
    expected = finish(whole)
    stopped = start("stopped", DROPPING, **changes)
    for report in stopped.steps():
        if report.step == stopped_after:
            break
    resumed = start(
        "stopped",
        model=new_model(DROPPING, seed=9),
        resume=True,
        **changes,
    )
    begun = resumed.progress.step
    assert begun in (stopped_after - 1, stopped_after - 2)
    for was, now in zip(expected[begun:], finish(resumed), strict=True):
        assert replace(was, seconds=0.0) == replace(now, seconds=0.0)
    assert_same_weights(whole, resumed)
    last = [checkpoints(run.folder)[-1] for run in (whole, resumed)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


def test_a_report_is_dealt_with_before_its_checkpoint(start: Start) -> None:
    run = start(save_every=1, n_steps=3)
    for report in run.steps():
        steps = [p.name for p in checkpoints(run.folder)]
        assert f"step-{report.step:08d}" not in steps
    assert checkpoints(run.folder)[-1].name == "step-00000003"


def test_a_folder_with_a_run_is_not_begun_again(start: Start) -> None:
    finish(start())
    with pytest.raises(ResumeError, match="holds a run already"):
        start()


def test_there_must_be_something_to_go_on_from(start: Start) -> None:
    with pytest.raises(ResumeError, match="run holds no checkpoint"):
        start(resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "seed was 0 and is 5"),
        (
            {"n_steps": 9, "clip": 0.5},
            "n_steps was 6 and is 9, clip was 1.0 and is 0.5",
        ),
        ({"config": DROPPING}, "embd_dropout was 0.0 and is 0.1"),
        ({"config": replace(CONFIG, n_layer=1)}, "n_layer was 2 and is 1"),
    ],
)
def test_another_run_is_not_taken_for_this_one(
    start: Start, changes: dict[str, Any], message: str
) -> None:
    finish(start())
    with pytest.raises(ResumeError, match=message):
        start(resume=True, **changes)


def test_another_corpus_is_not_taken_for_this_one(
    start: Start, held_out: Tokens
) -> None:
    finish(start())
    with pytest.raises(ResumeError, match="another corpus"):
        start(resume=True, tokens=held_out)


@pytest.fixture
def trained(start: Start) -> Path:
    """The last checkpoint of a run that has ended."""
    run = start()
    finish(run)
    return checkpoints(run.folder)[-1]


CHECKPOINT = [
    *("SHA256SUMS", "config.json", "model.safetensors"),
    *("optimizer.safetensors", "training.json"),
]


@pytest.mark.parametrize("name", CHECKPOINT)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_checkpoint_is_refused_by_name(
    start: Start, trained: Path, name: str, damage: str
) -> None:
    """The message also names an earlier one, if that is intact."""
    assert names(trained) == CHECKPOINT
    path = trained / name
    before = path.read_bytes()
    rng = random.Random(0)
    for _ in range(10 if damage == "flip" else 1):
        data = bytearray(before)
        if damage == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data[:-1] if damage == "cut" else data)
        if damage == "cut" and name == "SHA256SUMS":
            path.write_bytes(data[:-2])  # without its newline it is intact
        if damage in ("empty", "remove"):
            path.write_bytes(b"")
        if damage == "remove":
            path.unlink()
        with pytest.raises(
            ResumeError,
            match=rf"step-00000006 cannot be read.*{name}.*step-00000004",
        ):
            start(resume=True)
    earlier = trained.parent / "step-00000004" / "training.json"
    earlier.write_text(earlier.read_text() + " ")
    with pytest.raises(ResumeError, match=r"there is no earlier one"):
        start(resume=True)


def test_other_files_in_a_checkpoint_are_of_no_account(
    start: Start, trained: Path
) -> None:
    (trained / "notes.txt").write_text("It is going well.")
    assert start(resume=True).progress.step == 6


def change_facts(folder: Path, change: Callable[[Any], None]) -> None:
    facts = json.loads((folder / "training.json").read_text())
    change(facts)
    (folder / "training.json").write_text(json.dumps(facts))
    rewrite_sums(folder)


def rewrite_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    write_sums(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step", 5, "must be 6, .* got 5"),
        ("step", 6.0, "must be a whole number, got 6.0"),
        ("step", True, "must be a whole number, got True"),
        ("best_step", 7, "must be from 0 to 6, got 7"),
        ("best_step", -1, "must be from 0 to 6, got -1"),
        ("n_without_best", 7, "must be from 0 to 6, got 7"),
        ("n_tokens", -1, "must be from 0 .* got -1"),
        ("n_tokens", [], "must be a whole number, got a list"),
        ("best_loss", "low", "must be a number .* got 'low'"),
        ("best_loss", False, "must be a number .* got False"),
    ],
)
def test_where_it_stood_must_make_sense(
    start: Start, trained: Path, field: str, value: Any, message: str
) -> None:
    """Even if the checksums are right."""
    change_facts(
        trained, lambda facts: facts["progress"].update({field: value})
    )
    with pytest.raises(
        ResumeError, match=rf"training\.json: field '{field}' {message}"
    ):
        start(resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold a JSON object"),
        ("{}", "no field 'progress'"),
        ('{"progress": {}}', "no field 'step'"),
        ('{"progress": 3}', "'progress' must be an object, got 3"),
        pytest.param("[" * 100_000, "nested", id="deep"),
        pytest.param('{"a": 1' + "0" * 5000 + "}", "digits", id="long"),
        ('{"progress": {}, "progress": {}}', "appears twice"),
    ],
)
def test_odd_facts_are_refused_by_name(
    start: Start, trained: Path, text: str, message: str
) -> None:
    (trained / "training.json").write_text(text)
    rewrite_sums(trained)
    with pytest.raises(ResumeError, match=rf"training\.json.*{message}"):
        start(resume=True)


@pytest.mark.parametrize("name", ["settings", "data"])
def test_facts_of_another_kind_are_refused(
    start: Start, trained: Path, name: str
) -> None:
    change_facts(trained, lambda facts: facts.update({name: "x"}))
    with pytest.raises(ResumeError, match=rf"training\.json: field '{name}'"):
        start(resume=True)


ODD_STATES: dict[str, tuple[str, Callable[[Tensor], Tensor | None], str]] = {
    "another shape": (
        "wte.weight/exp_avg",
        lambda tensor: torch.zeros(3),
        r"must be torch.float32 of shape \[17, 12\], got torch.float32 of \[3",
    ),
    "turned": (
        "wpe.weight/exp_avg_sq",
        lambda tensor: tensor.T.contiguous(),
        r"of shape \[16, 12\], got torch.float32 of \[12, 16\]",
    ),
    "another dtype": (
        "ln_f.bias/exp_avg",
        lambda tensor: tensor.bfloat16(),
        "got torch.bfloat16",
    ),
    "missing": ("ln_f.bias/exp_avg", lambda tensor: None, "is missing"),
    "step 5": ("ln_f.bias/step", lambda step: step - 1, "must be 6, .* got 5"),
    "step nan": ("ln_f.bias/step", lambda step: step * math.nan, "not finite"),
    "steps": ("ln_f.bias/step", lambda step: step.expand(2).clone(), "shape"),
    "infinite": (
        "ln_f.bias/exp_avg",
        lambda tensor: tensor / 0,
        "not finite",
    ),
    "negative": (
        "ln_f.bias/exp_avg_sq",
        lambda tensor: -tensor,
        "a mean of squares, .* -",
    ),
}


@pytest.mark.parametrize("odd", ODD_STATES)
def test_an_odd_optimizer_state_is_refused_before_it_is_used(
    start: Start, trained: Path, odd: str
) -> None:
    name, change, message = ODD_STATES[odd]
    path = trained / "optimizer.safetensors"
    state = load_file(path)
    tensor = change(state.pop(name))
    save_file(state | ({} if tensor is None else {name: tensor}), path)
    rewrite_sums(trained)
    model = new_model(seed=9)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        ResumeError,
        match=rf"06/optimizer\.safetensors: tensor '{name}' .*{message}",
    ):
        start(resume=True, model=model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_an_unknown_part_of_an_optimizer_is_refused(
    start: Start, trained: Path
) -> None:
    path = trained / "optimizer.safetensors"
    save_file(load_file(path) | {"wte.weight/exp_max": torch.ones(1)}, path)
    rewrite_sums(trained)
    with pytest.raises(ResumeError, match=r"tensor 'wte.*' is unknown"):
        start(resume=True)


def test_whatever_lies_there_is_refused_by_name_or_makes_sense(
    start: Start, trained: Path
) -> None:
    """Wrong bytes with right checksums are left to the readers."""
    rng = random.Random(1)
    n_refused = 0
    for name in ("training.json", "optimizer.safetensors"):
        path = trained / name
        before = path.read_bytes()
        for _ in range(60):
            path.write_bytes(damaged(before, rng))
            rewrite_sums(trained)
            try:
                run = start(resume=True)
            except ResumeError as error:
                assert str(trained) in str(error)
                n_refused += 1
            else:
                assert run.progress.step == 6
                assert run.progress.best_step <= 6
        path.write_bytes(before)
    assert n_refused > 60


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit, or truncate, remove or insert some bytes."""
    place, way = rng.randrange(len(data)), rng.randrange(4)
    if way == 0:
        flipped = bytes([data[place] ^ 1 << rng.randrange(8)])
        return data[:place] + flipped + data[place + 1 :]
    if way == 1:
        return data[:place]
    if way == 2:
        return data[:place] + data[place + rng.randrange(1, 9) :]
    return data[:place] + rng.randbytes(3) + data[place:]


# One run at a time.


def test_two_runs_do_not_share_a_folder(start: Start) -> None:
    first, second = start(), start()
    steps = first.steps()
    next(steps)
    with pytest.raises(ResumeError, match="run is in use: another run"):
        next(second.steps())
    finish_it = list(steps)
    assert finish_it[-1].step == 6
    assert ".running" not in names(first.folder)
    with pytest.raises(ResumeError, match="holds a run already"):
        next(second.steps())


def test_a_run_that_was_left_gives_its_folder_back(start: Start) -> None:
    for _ in start(save_every=1).steps():
        break
    assert start().progress.step == 0
    again = start(save_every=1)
    steps = again.steps()
    next(steps)
    steps.close()
    assert names(again.folder) == []  # not even a lock


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize(
    "written",
    ["checkpoint", "best", "snapshot"],
)
def test_a_folder_that_was_removed_is_not_made_again(
    start: Start, written: str, replaced: bool
) -> None:
    """Whichever file is the first to be written to it."""
    run = start(
        n_steps=99,
        save_every=2 if written == "checkpoint" else 99,
        evaluate_every=2 if written == "best" else 99,
    )
    steps = run.steps([2] if written == "snapshot" else [])
    next(steps)
    shutil.rmtree(run.folder)
    if replaced:
        run.folder.mkdir()
    with pytest.raises(OSError, match="run was removed or replaced"):
        list(steps)
    assert run.folder.exists() == replaced
    assert not replaced or names(run.folder) == []


def test_a_model_that_cannot_be_saved_there_is_not_trained(
    start: Start, tmp_path: Path
) -> None:
    Tokenizer.bytes_only().save(tmp_path / "run")
    with pytest.raises(ValueError, match="has a tokenizer"):
        start()


def test_what_a_killed_run_left_half_saved_is_finished(start: Start) -> None:
    run = start()
    steps = run.steps()
    for _ in range(4):
        next(steps)
    steps.close()
    best = (run.folder / "model.safetensors").read_bytes()
    marker = run.folder / ".half-saved"
    (marker / "old").mkdir(parents=True)
    (marker / "new").mkdir()
    (run.folder / "model.safetensors").rename(
        marker / "new" / "model.safetensors"
    )
    plan = {"out": [], "in": ["model.safetensors"]}
    (marker / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match="run is half saved"):
        gpt2.load_model(run.folder)
    next(start(resume=True).steps())
    assert (run.folder / "model.safetensors").read_bytes() == best
    gpt2.load_model(run.folder)


def test_a_full_disk_loses_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(save_every=1)
    steps = run.steps()
    for _ in range(3):
        next(steps)
    before = names(run.folder / "checkpoints")

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(
            OSError, match=r"model\.safetensors cannot .*No space left"
        ):
            next(steps)
    assert names(run.folder / "checkpoints") == before
    resumed = start(resume=True, save_every=1)
    finish(resumed)
    whole = start("whole", save_every=1)
    finish(whole)
    assert_same_weights(whole, resumed)


# Failures.


def test_weights_that_are_not_numbers_stop_the_run(start: Start) -> None:
    run = start()
    steps = run.steps()
    for _ in range(3):
        next(steps)
    before = read_checkpoint(run.folder)
    with torch.no_grad():
        run.model.h[1].mlp.c_fc.weight[0, 0] = math.nan
    with pytest.raises(
        TrainingError,
        match=r"step 4 .*loss is nan.*the weights of h\.1\.mlp\.c_fc\.weight"
        r".*last checkpoint is .*step-00000002",
    ):
        next(steps)
    after = read_checkpoint(run.folder)
    assert after.folder == before.folder
    assert all(tensor.isfinite().all() for tensor in after.optimizer.values())


def test_a_learning_rate_beyond_all_bounds_stops_the_run(
    start: Start,
) -> None:
    run = start(learning_rate=1e30, n_warmup=0)
    with pytest.raises(
        TrainingError,
        match=r"step 2 \(learning rate 9\.05e\+29\).*"
        r"the output of h\.0\..*no checkpoint yet",
    ):
        finish(run)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_what_was_dropped_is_dropped_again_to_find_the_place(
    start: Start,
) -> None:
    run = start("run", DROPPING, learning_rate=1e30, n_warmup=0)
    outputs: list[Tensor] = []
    run.model.drop.register_forward_hook(
        lambda module, inputs, output: outputs.append(output.detach().clone())
    )
    with pytest.raises(TrainingError, match="step 2"):
        finish(run)
    _, second, again = outputs
    assert (second == 0).any()
    assert torch.equal(again, second)


def test_a_gradient_that_is_not_a_number_stops_the_run(start: Start) -> None:
    run = start()
    weight = run.model.get_parameter("wte.weight")
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"step 1 .*in the gradient"):
        finish(run)
    assert weight.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 17}, "n_ctx, 16; got 17"),
        ({"config": replace(CONFIG, n_vocab=16)}, "17.* n_vocab is only 16"),
        ({"held": None, "patience": 1}, "patience needs held-out text"),
    ],
)
def test_what_does_not_go_together_is_refused(
    start: Start, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        start(**changes)


@pytest.mark.parametrize("which", ["tokens", "held"])
def test_too_short_a_corpus_is_refused_at_once(
    start: Start, tmp_path: Path, which: str
) -> None:
    short = write_tokens(tmp_path / "s.bin", [[1] * 8 + [0]], 17, 0)
    assert len(short) == 10
    with pytest.raises(DataError, match=r"\b10 tokens.*\b11\b"):
        start(**{which: short})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_accumulate": 8}, "batch_size must be a multiple of 16"),
        ({"evaluate_rows": 5}, r"evaluate_rows.* 2,.* 5 rows"),
    ],
)
def test_rows_must_go_round(
    corpus: Tokens,
    held_out: Tokens,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Run(
            new_model(),
            corpus,
            replace(SETTINGS, **changes),
            tmp_path / "run",
            held_out=held_out,
            workers=Workers(world_size=2),
        )


# The record.


def report(step: int, **changes: Any) -> Report:
    return Report(step, 2.5 / step, 1e-3, 1.0, 80 * step, 0.1, **changes)


def recorded(folder: Path) -> list[Any]:
    return [line["step"] for line in metrics.read(folder)[1:]]


def test_each_step_is_recorded_once(tmp_path: Path) -> None:
    record = metrics.Metrics(tmp_path, {"title": "first"}, 0)
    for step in range(1, 6):
        record.add(report(step))
    # Steps can be read while the run goes on.
    assert recorded(tmp_path) == [1, 2, 3, 4, 5]
    record.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed here
    again = metrics.Metrics(tmp_path, {"title": "second"}, 3)
    assert recorded(tmp_path) == [1, 2, 3]
    again.add(report(4, held_out_loss=1.0))
    again.close()
    facts, *steps = metrics.read(tmp_path)
    assert facts == {"title": "second"}
    assert recorded(tmp_path) == [1, 2, 3, 4]
    assert steps[3] == asdict(report(4, held_out_loss=1.0))
    assert "held_out_loss" not in steps[2]
    assert names(tmp_path) == ["metrics.jsonl"]


def test_a_new_run_begins_a_new_record(tmp_path: Path) -> None:
    for title in ("first", "second"):
        record = metrics.Metrics(tmp_path, {"title": title}, 0)
        assert metrics.read(tmp_path) == [{"title": title}]
        record.add(report(1))
        record.close()


STEP = '{"step": 1, "loss": 2.5, "n_tokens": 9}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "has no line with the facts"),
        ("{}", "has no line with the facts"),
        ("[]\n", "line 1 must hold a JSON object"),
        ('{"title": 3}\n', "line 1: field 'title' must be a string, got 3"),
        ('{"entropy": "low"}\n', "line 1: field 'entropy' must be a number"),
        (f"{{}}\n{{}}\n{STEP}\n", "line 2 has no field 'step'"),
        (f'{{}}\n{STEP}\n{{"step": "2"}}\n', "line 3: field 'step' must be"),
        (STEP.replace("2.5", "NaN").join(["{}\n", "\n"]), "line 2 .*NaN"),
        (STEP.replace("2.5", "[]").join(["{}\n", "\n"]), "'loss' must be"),
        pytest.param(f"{{}}\n{'[' * 9999}\n", "line 2 .*nested", id="deep"),
        pytest.param(f"{{}}\n{'x' * 9**7}\n", "line 2 has more", id="long"),
        ("{}\n\0\0\0\n", "line 2 cannot be read"),
    ],
)
def test_a_damaged_record_is_refused_by_name(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ResumeError, match=rf"metrics\.jsonl.*{message}"):
        metrics.read(tmp_path)


def test_any_record_is_read_or_refused_by_name(tmp_path: Path) -> None:
    record = metrics.Metrics(tmp_path, {"title": "t", "entropy": 0.5}, 0)
    for step in range(1, 4):
        record.add(report(step, held_out_loss=1.5))
    record.close()
    path = tmp_path / "metrics.jsonl"
    before, rng = path.read_bytes(), random.Random(2)
    n_refused = 0
    for _ in range(200):
        path.write_bytes(damaged(before, rng))
        try:
            _, *steps = metrics.read(tmp_path)
        except ResumeError as error:
            assert str(path) in str(error)
            n_refused += 1
        else:
            assert all(isinstance(line["step"], int) for line in steps)
    assert n_refused > 50


@pytest.mark.parametrize("floor", [None, 0.75])
def test_the_picture_shows_loss_and_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor: float | None
) -> None:
    record = metrics.Metrics(tmp_path, {"entropy": floor}, 0)
    record.add(report(1))
    record.add(report(2, held_out_loss=1.5))
    record.close()
    drawn: dict[str, Any] = {}
    places: dict[str, Any] = {}

    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **more: Any) -> None:
        axes = figure.axes[0]
        assert "millions" in axes.get_xlabel()
        assert axes.get_yscale() == "log"
        for line in axes.lines:
            drawn[str(line.get_label())] = list(line.get_ydata())
            places[str(line.get_label())] = list(line.get_xdata())
        save(figure, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    path = metrics.draw(tmp_path)
    expected: dict[str, Any] = {"training": [2.5, 1.25], "held out": [1.5]}
    if floor is not None:
        expected["entropy"] = [floor, floor]
    assert drawn == expected
    assert places["training"] == [80e-6, 160e-6]  # millions of tokens
    assert places["held out"] == [160e-6]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert names(tmp_path) == ["loss.png", "metrics.jsonl"]


# The command.

TEXT = "".join(
    f"One day {name} saw a {thing}.\n\n\n  The {thing}  was {colour}.\n"
    for name in ("Ann", "Bob", "Eve")
    for thing in ("cat", "dog", "kite", "boat")
    for colour in ("red", "blue", "green")
)
SMALL = [
    *("--n-ctx=16", "--n-embd=12", "--n-head=3", "--n-layer=2"),
    *("--n-steps=3", "--batch-size=4", "--n-warmup=1", "--evaluate-rows=4"),
    *("--n-vocab=270", "--seed=3"),
]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_it_trains_on_text_files(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Two here.<|endoftext|>Three.")
    folder = tmp_path / "run"
    arguments = ["train", str(folder), *SMALL, "--data", str(text_file)]
    assert main([*arguments, str(other)]) == 0
    model, tokenizer = gpt2.load(folder)
    assert tokenizer.n_vocab == model.config.n_vocab == 270
    tokens = read_tokens(folder / "data" / "train.bin")
    end = "<|endoftext|>"
    assert tokenizer.decode(tokens.ids.tolist()) == (
        f"{end}{TEXT}{end}Two here.{end}Three.{end}"
    )
    assert (tokens.ids == tokenizer.end_of_text).sum() == 4
    out, err = capfd.readouterr()
    assert "3 steps, 192 tokens" in out
    assert "lowest held-out loss was" in out
    assert "entropy" not in out
    assert re.search(
        r"^gpt2: steps 3/3, loss=\d\.\d{3}, tok/s=[\d,]+, "
        r"held-out=\d\.\d{4}\n\[step 3\] ",
        err,
        re.MULTILINE,
    )
    facts, *steps = metrics.read(folder)
    assert facts["n_parameters"] == model.num_parameters()
    assert facts["entropy"] is None
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert (folder / "loss.png").exists()
    assert "data" in names(folder)


def test_it_trains_on_folders_of_texts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even if the run lies in one; a changed file is detected."""
    place = tmp_path / "texts"
    (place / "b").mkdir(parents=True)
    (place / "c.txt").write_text(TEXT)
    (place / "b" / "d.md").write_text("\ufeffTwo here.<|endoftext|>Three.")
    (place / "b" / ".e.txt").write_text("Hidden.")
    folder = place / "run"
    arguments = ["train", str(folder), *SMALL, "--data", str(place)]
    assert main([*arguments, "--quiet"]) == 0
    assert (folder / "data" / "merges.txt").exists()
    tokens = read_tokens(folder / "data" / "train.bin")
    end = "<|endoftext|>"
    assert gpt2.load(folder)[1].decode(tokens.ids.tolist()) == (
        f"{end}Two here.{end}Three.{end}{TEXT}{end}"
    )
    resume = [*arguments[1:], "--resume"]
    assert main(["train", *resume]) == 0
    (place / "f.txt").write_text("Four.")
    code, error = fails(resume, capfd)
    assert (code, "data was [] and is ['f.txt (" in error) == (2, True), error
    (place / "f.txt").unlink()
    (place / "c.txt").write_text(TEXT + "!")
    code, error = fails(resume, capfd)
    assert (code, "data was ['c.txt (" in error) == (2, True)
    assert "d.md" not in error
    (place / "c.txt").rename(place / "a.txt")
    (place / "a.txt").write_text(TEXT)
    code, error = fails(resume, capfd)
    assert (code, "is ['a.txt (" in error) == (2, True)


def test_it_trains_on_stories(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "_HELD_OUT_STORIES", 20)
    arguments = ["train", *SMALL, "--stories=30", "--tokenizer=bytes"]
    arguments += ["--quiet", "--n-steps=1", "--batch-size=2"]
    long, short = tmp_path / "long", tmp_path / "short"
    assert main([*arguments, str(long), "--n-ctx=1500"]) == 0
    out, err = capfd.readouterr()
    assert "entropy of the stories is" in out
    assert err == ""
    facts = metrics.read(long)[0]
    texts = list(reading._stories(reading._HELD_OUT_SEED, 4))
    nats = -sum(map(stories.log_probability, texts))
    n_predicted = sum(len(text.encode()) + 1 for text in texts)
    assert facts["entropy"] == pytest.approx(nats / n_predicted)
    assert facts["settings"]["windows"] == "documents"
    # If stories do not fit the context, there is no entropy to show.
    assert main([*arguments, str(short)]) == 0
    assert metrics.read(short)[0]["entropy"] is None


@pytest.mark.filterwarnings("ignore:.*'relu'")  # of how others read it
@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_it_goes_on_from_a_checkpoint(
    text_file: Path, tmp_path: Path, file: str
) -> None:
    tokenizer = Tokenizer.train(TEXT, 300)
    config = replace(CONFIG, n_vocab=300, n_ctx=20, activation="relu")
    begun = new_model(config)
    gpt2.save(begun, tokenizer, tmp_path / "old")
    arguments = ["train", str(tmp_path / "new"), "--quiet", *SMALL]
    arguments += ["--data", str(text_file), "--dropout=0.1"]
    arguments += ["--model", str(tmp_path / "old" / file)]
    arguments += ["--learning-rate=1e-9", "--snapshots", "0"]
    assert main(arguments) == 0
    model, own = gpt2.load(tmp_path / "new")
    assert own.ranks == tokenizer.ranks
    assert model.config == replace(
        config, embd_dropout=0.1, attn_dropout=0.1, resid_dropout=0.1
    )
    first = gpt2.load_model(tmp_path / "new" / "snapshots" / "step-00000000")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, begun.state_dict()[name])
    last = model.state_dict()["wte.weight"]
    assert 0 < (last - begun.wte.weight).abs().max() < 1e-7


def test_a_sample_has_no_row_without_a_token(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, n_vocab=257, n_ctx=20)
    wide = with_spare_rows(new_model(config))
    gpt2.save(wide, Tokenizer.bytes_only(), tmp_path / "old")
    arguments = ["train", str(tmp_path / "new"), *SMALL]
    arguments += ["--data", str(text_file), "--learning-rate=1e-9"]
    arguments += ["--model", str(tmp_path / "old"), "--evaluate-every=1"]
    assert main([*arguments, "--save-every=1"]) == 0
    err = capfd.readouterr().err
    assert all(f"[step {step}]" in err for step in (1, 2, 3))
    assert list((tmp_path / "new" / "checkpoints").iterdir())
    model, tokenizer = gpt2.load(tmp_path / "new")
    assert (model.config.n_vocab, tokenizer.n_vocab) == (257 + 47, 257)


@pytest.mark.parametrize(
    ("more", "rate", "decay", "n_parts"),
    [
        ([], 4e-3, 0.0, 3),
        (["--batch-size=8"], 4e-3, 0.0, 1),
        (["--learning-rate=0.1", "--weight-decay=0.2"], 0.1, 0.2, 3),
        (["--model=story"], 2e-3, 0.01, 3),
        (["--data", "text.txt"], 2e-3, 0.01, 1),
        (["--data", "text.txt", "--n-accumulate=2"], 2e-3, 0.01, 2),
    ],
)
def test_what_is_not_said_follows_from_what_is_learned(
    more: list[str], rate: float, decay: float, n_parts: int
) -> None:
    found = read_settings(parse(["train", "run", *more]))
    assert found.learning_rate == rate
    assert found.final_learning_rate == rate / 100
    assert (found.weight_decay, found.n_accumulate) == (decay, n_parts)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], TrainingSettings.for_stories()),
        (["--model=story"], TrainingSettings.for_stories(new=False)),
        (["--data", "text.txt"], TrainingSettings()),
    ],
)
def test_the_command_has_the_defaults_of_the_settings(
    more: list[str], expected: TrainingSettings
) -> None:
    assert read_settings(parse(["train", "run", *more])) == expected


def test_the_sizes_are_those_of_the_shipped_model() -> None:
    options = parse(["train", "run"])
    shipped = asdict(gpt2.load_model("story").config)
    new = asdict(read_config(options, options.n_vocab))
    sizes = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "activation")
    assert {k: new[k] for k in sizes} == {k: shipped[k] for k in sizes}


def source(arguments: list[str]) -> reading.Source:
    """What a command line trains on."""
    return read_source(parse(arguments))


def test_it_takes_the_vocabulary_of_gpt2() -> None:
    try:
        expected = Tokenizer.gpt2()
    except TokenizerError as error:
        pytest.skip(f"no vocabulary of GPT-2: {error}")
    options = source(["train", "run", *SMALL, "--tokenizer=gpt2"])
    assert reading._tokenizer(options).ranks == expected.ranks


def test_a_folder_data_of_somebody_elses_is_left_alone(
    text_file: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "run" / "data" / "theirs.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    options = ["train", str(tmp_path / "run"), *SMALL]
    options += ["--data", str(text_file)]
    with pytest.raises(ValueError, match="no run has made it"):
        reading.prepare(source(options), tmp_path / "run")
    assert theirs.read_text() == "years of work"


def fails(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> Any:
    """Return the exit code and the last line of standard error."""
    try:
        code = main(["train", *arguments])
    except SystemExit as exit:
        code = exit.code
    error = capfd.readouterr().err
    assert "Traceback" not in error
    return code, error.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--data nowhere.txt", 1, "No such file or directory: 'nowhere.txt'"),
        ("--data empty.txt", 2, "empty.txt is empty"),
        ("--data ends.txt --tokenizer=bytes", 2, "expected text"),
        (
            "--data short.txt --tokenizer=bytes --held-out=0",
            2,
            "the corpus has 12 tokens, and a row needs 17; use more text or a "
            "shorter --context",
        ),
        (
            "--data text.txt --tokenizer=bytes --held-out=0.995",
            2,
            "the part to train on has 8 tokens, and a row needs 17; use more "
            "text, hold out less of it (--held-out) or a shorter --context",
        ),
        (
            "--data text.txt --held-out=0.001",
            2,
            "the part to measure on has 1 tokens, and a row needs 17; use "
            "more text, hold out more of it (--held-out) or a shorter "
            "--context",
        ),
        ("--data models", 2, "models holds no text files"),
        ("--data text.txt --held-out=1", 2, "--held-out"),
        ("--data text.txt --n-vocab=5000", 1, "n_vocab=5000"),
        (
            "--data text.txt --batch-size=5 --n-accumulate=2",
            2,
            "--batch-size, 5; got 2",
        ),
        ("--data text.txt --batch-size=0", 2, "must be 1 or more"),
        ("--data text.txt --context=17", 2, "--n-ctx, 16; got 17"),
        ("--data text.txt --n-head=5", 2, "--n-head=5"),
        ("--data text.txt --dropout=1", 2, "--dropout"),
        ("--data text.txt --device=abacus", 1, "abacus"),
        ("--data text.txt --model=nowhere", 1, "'nowhere' is neither"),
        ("--data text.txt --model=x --tokenizer=bytes", 2, "--tokenizer"),
        ("--data text.txt --resume", 2, "holds no checkpoint"),
        ("--data text.txt --seed=-1", 2, "--seed: must be 0 or more"),
        ("--data text.txt --held-out=0 --patience=1", 2, "patience"),
    ],
)
def test_bad_use_is_told_in_one_line(
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: str,
    code: int,
    message: str,
) -> None:
    del text_file
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vocab.json").touch()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "ends.txt").write_text("<|endoftext|><|endoftext|>")
    (tmp_path / "short.txt").write_text("Too short.")
    came, error = fails(["run", *SMALL, *options.split()], capfd)
    assert (came, message in error) == (code, True), error
    assert not checkpoints(tmp_path / "run")


def test_a_device_that_is_not_there(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    arguments = [str(tmp_path / "run"), *SMALL, "--data", str(text_file)]
    code, error = fails([*arguments, "--device=cuda"], capfd)
    assert code == 1
    assert "device 'cuda' cannot be used" in error


def test_a_run_is_neither_overwritten_nor_mixed_up(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = [str(folder), "--quiet", *SMALL, "--data", str(text_file)]
    assert main(["train", *arguments]) == 0
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, error = fails(arguments, capfd)
    assert (code, "holds a run already" in error) == (2, True)
    code, error = fails([*arguments, "--resume", "--clip=9"], capfd)
    assert (code, "clip was 1.0 and is 9.0" in error) == (2, True)
    code, error = fails([*arguments, "--resume", "--n-vocab=280"], capfd)
    assert (code, "n_vocab was 270 and is 280" in error) == (2, True)
    text_file.write_text(TEXT.replace("cat", "cow"))
    code, error = fails([*arguments, "--resume"], capfd)
    assert (code, "data was ['text.txt (" in error) == (2, True)
    code, error = fails(arguments, capfd)
    assert (code, "holds a run already" in error) == (2, True)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert after == before
    text_file.write_text(TEXT)
    assert main(["train", *arguments, "--resume"]) == 0


def test_learning_a_vocabulary_reports_its_merges(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Ella lost her red cap. " * 20)
    learned: list[int] = []
    read: list[int] = []

    @contextmanager
    def show(what: str, total: int | None, unit: str) -> Iterator[Any]:
        begun.append((what, total, unit))
        yield learned.append if unit == "merges" else read.append

    begun: list[tuple[str, int | None, str]] = []
    with shown_by(show):
        reading.prepare(
            reading.Source(files=(text,), n_vocab=262), tmp_path / "run"
        )
    assert begun == [
        ("Learning the vocabulary", 5, "merges"),
        ("Encoding the texts", 23 * 20, "B"),
    ]
    assert (learned, sum(read)) == ([1] * 5, 23 * 20)


def test_data_are_made_once_and_again_when_they_change(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    place = folder / "data"

    def prepare(*more: str) -> int:
        options = ["train", str(folder), *SMALL, "--data", str(text_file)]
        reading.prepare(source([*options, *more]), folder)
        return (place / "train.bin").stat().st_mtime_ns

    first = prepare()
    assert prepare() == first
    second = prepare("--n-vocab=271")
    assert second != first
    # If that fails halfway, the earlier data are intact.
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "write", broken)
        with pytest.raises(OSError, match="no more"):
            prepare("--n-vocab=272")
    assert names(folder) == ["data"]
    assert prepare("--n-vocab=271") == second
    recipe = json.loads((place / "recipe.json").read_text())
    assert recipe["n_vocab"] == 271


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold a JSON object"),
        ("{", "cannot be read"),
        pytest.param("[" * 100_000, "nested", id="deep"),
    ],
)
def test_a_damaged_note_on_the_data_is_refused_by_name(
    text_file: Path, tmp_path: Path, text: str, message: str
) -> None:
    place = tmp_path / "run" / "data"
    place.mkdir(parents=True)
    (place / "recipe.json").write_text(text)
    options = ["train", "run", *SMALL, "--data", str(text_file)]
    with pytest.raises(ResumeError, match=rf"recipe\.json.*{message}"):
        reading.prepare(source(options), tmp_path / "run")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "recipe.json"])
def test_a_damaged_tokenizer_of_the_data_is_refused_by_name(
    text_file: Path, tmp_path: Path, name: str
) -> None:
    options = ["train", "run", *SMALL, "--data", str(text_file)]
    reading.prepare(source(options), tmp_path / "run")
    path = tmp_path / "run" / "data" / name
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ResumeError, match=rf"data/{name} has changed since"):
        reading.prepare(source(options), tmp_path / "run")


def broken(*_: Any) -> None:
    raise OSError("no more of it")


def test_samples_do_not_change_the_run(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = []
    for more in (["--quiet"], [], ["--evaluate-every=1"]):
        folder = tmp_path / f"run{len(weights)}"
        arguments = ["train", str(folder), *SMALL, *more, "--dropout=0.2"]
        assert main([*arguments, "--data", str(text_file)]) == 0
        last = checkpoints(folder)[-1]
        weights.append((last / "model.safetensors").read_bytes())
    assert capfd.readouterr().err.count("[step ") == 1 + 3
    assert weights[0] == weights[1] == weights[2]


def test_a_loss_that_is_not_a_number_ends_with_1(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "run"), *SMALL, "--learning-rate=1e30"]
    arguments += ["--save-every=1", "--data", str(text_file), "--quiet"]
    code, error = fails(arguments, capfd)
    assert code == 1
    assert "step 2 (learning rate 1e+30)" in error
    assert "the output of h.0." in error
    assert "the last checkpoint is" in error
    assert "step-00000001" in error


def test_prompts_begin_as_the_rows_did(tmp_path: Path) -> None:
    """With an end of text after stories, but not after other texts."""
    text = tmp_path / "text.txt"
    text.write_text("a text that goes on for a while. " * 20)
    small = ["--stories", "60", "--n-vocab", "300"]
    model = ["--model", "story", "--data", str(text)]
    for options, begins in (
        (small, True),
        (["--n-vocab", "270", "--data", str(text)], False),
        (model, False),
    ):
        reading._make_data(
            source(["train", "run", *options]), tmp_path / "data"
        )
        assert Tokenizer.load(tmp_path / "data").add_bos_token is begins


def test_blocks_are_encoded_in_order_and_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first block takes longest, and none is read long before its turn."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    tokenizer, n_read, n_done = Tokenizer.bytes_only(), 0, 0

    class Slow:
        def encode_to_numpy(self, text: str, allow_special: bool) -> Any:
            if text.startswith("0"):
                time.sleep(0.2)
            return tokenizer.encode_to_numpy(text, allow_special)

    def blocks() -> Iterator[str]:
        nonlocal n_read
        for n in range(40):
            n_read += 1
            yield f"{n}{END_OF_TEXT}"

    for n, ids in enumerate(reading._encoded(blocks(), cast(Any, Slow()))):
        assert ids.tolist() == [*tokenizer.encode(f"{n}"), 256]
        n_done += 1
        assert n_read <= n_done + 2 * 3 + 1
    assert n_done == 40


# The loss in pieces.


def with_gradients(
    loss: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor
) -> tuple[Tensor, ...]:
    """A loss of hidden states and a table, and a third of its gradients."""
    hidden, table = (x.clone().requires_grad_() for x in inputs)
    value = loss(hidden, table)
    (value / 3).backward()
    assert hidden.grad is not None
    assert table.grad is not None
    return value.detach(), hidden.grad, table.grad


@pytest.mark.parametrize("numbers_at_a_time", [1, 100, 2**22])
@pytest.mark.parametrize("columns_at_a_time", [1, 5, 17, 2048])
def test_the_loss_in_pieces_is_the_loss(
    numbers_at_a_time: int,
    columns_at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "_NUMBERS_AT_A_TIME", numbers_at_a_time)
    monkeypatch.setattr(pieces, "_COLUMNS_AT_A_TIME", columns_at_a_time)
    hidden, table = torch.randn(23, 12), torch.randn(17, 12)
    targets = torch.randint(17, (23,))
    targets[[0, 5, 22]] = IGNORED

    def whole(hidden: Tensor, table: Tensor) -> Tensor:
        return nn.functional.cross_entropy(hidden @ table.T, targets)

    def ours(
        hidden: Tensor, table: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return pieces.cross_entropy(hidden, table, targets, dtype)

    found = with_gradients(ours, hidden, table)
    expected = with_gradients(whole, hidden, table)
    torch.testing.assert_close(found, expected)
    assert (found[1][targets == IGNORED] == 0).all()
    half = with_gradients(partial(ours, dtype=torch.bfloat16), hidden, table)
    assert {x.dtype for x in half} == {torch.float32}
    for one, exact in zip(half, expected, strict=True):
        assert not torch.equal(one, exact)
        assert (one - exact).norm() < 0.01 * exact.norm()


def test_a_surprise_beyond_all_probabilities_is_finite() -> None:
    """In float32, exp(-200) is 0, and its logarithm is -inf."""
    hidden, table = torch.tensor([[1.0]]), torch.tensor([[200.0], [0.0]])
    loss = pieces.cross_entropy(
        hidden, table, torch.tensor([1]), torch.float32
    )
    assert loss == 200


def test_where_no_gradient_is_asked_for_none_is_computed() -> None:
    hidden, table = torch.randn(5, 4), nn.Parameter(torch.randn(7, 4))
    targets = torch.randint(7, (5,))

    def operators() -> set[str]:
        with profile(activities=[ProfilerActivity.CPU]) as p:
            pieces.cross_entropy(hidden, table, targets, torch.float32)
        return {event.key for event in p.key_averages()}

    assert "aten::scatter_add_" in operators()
    with torch.no_grad():
        assert "aten::scatter_add_" not in operators()


def test_a_step_needs_little_memory_for_its_loss() -> None:
    """The logits, which become their gradient, and a piece of them."""
    hidden = torch.zeros(4096, 16, requires_grad=True)
    table = torch.zeros(4096, 16, requires_grad=True)
    targets = torch.zeros(4096, dtype=torch.int64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        pieces.cross_entropy(hidden, table, targets, torch.bfloat16).backward()
    held = most = 0
    for event in sorted(p.events() or [], key=lambda e: e.time_range.start):
        held += event.self_cpu_memory_usage
        most = max(most, held)
    assert 2 * 4096**2 < most < 1.5 * 2 * 4096**2


# Activation and attention.


@pytest.mark.parametrize("numbers_at_a_time", [1, 7, 2**16])
def test_the_fast_activation_is_the_activation(
    numbers_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "_NUMBERS_AT_A_TIME", numbers_at_a_time)
    x = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([-1e9, 1e9])])
    weight = torch.randn(99)

    def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
        leaf = x.clone().requires_grad_()
        y = function(leaf.view(3, 33))
        (gradient,) = torch.autograd.grad(y.flatten(), leaf, weight.to(x))
        return y.detach(), gradient

    exact = with_gradient(gelu_new, x)
    torch.testing.assert_close(
        with_gradient(activation.fast_gelu_new, x), exact
    )
    half = with_gradient(activation.fast_gelu_new, x.bfloat16())
    expected = with_gradient(gelu_new, x.bfloat16())
    torch.testing.assert_close(half, expected, atol=1e-3, rtol=1e-2)
    with torch.no_grad():
        alone = activation.fast_gelu_new(x)
    torch.testing.assert_close(alone, exact[0].flatten())


@pytest.mark.parametrize("name", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("compiled", [True, False])
def test_only_gpt2s_activation_is_replaced(
    start: Start, name: str, compiled: bool
) -> None:
    config = replace(CONFIG, activation=name)
    run = start("run", config, compile=compiled)
    expected = ACTIVATION_FUNCTIONS[name]
    if name == "gelu_new" and not compiled:
        expected = activation.fast_gelu_new
    assert {layer.mlp.activation for layer in run.model.h} == {expected}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n_queries", [1, 3, 7])
def test_training_attends_like_the_model(
    n_queries: int, masked: bool, causal: bool, shake: Callable[..., GPT2]
) -> None:
    model = shake(new_model()).eval()
    attention = model.h[0].attn
    attention.fused = False
    query = torch.randn(2, 3, n_queries, 4, requires_grad=True)
    key, value = torch.randn(2, 2, 3, 7, 4).requires_grad_()
    mask = None
    if masked:
        mask = torch.rand(2, 1, n_queries, 7) < 0.5
        mask[..., 0] = True
    inputs = (query, key, value)

    def attended() -> tuple[Tensor, ...]:
        mixed = attention.attend(query, key, value, mask, causal)
        gradients = torch.autograd.grad(mixed.sin().sum(), inputs)
        return (mixed, *gradients)

    expected = attended()
    choose_attention(model, fused=False)
    torch.testing.assert_close(attended(), expected)


def test_training_shows_its_attention_weights() -> None:
    """As everywhere, a hook on `attn_dropout` sees them."""
    model, seen = new_model(), []
    choose_attention(model, fused=False)
    model.h[1].attn.attn_dropout.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0])
    )
    model(torch.arange(5)[None])
    (weights,) = seen
    assert weights.shape == (1, model.config.n_head, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    assert (weights.triu(1) == 0).all()


# Memory.


@pytest.mark.skipif(
    os.name != "posix" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="the C library is not glibc, and nothing is kept",
)
def test_what_a_step_frees_is_kept_for_the_next() -> None:
    """Otherwise the system hands out the same pages anew in every step."""
    import resource

    def n_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(6):
            pieces = [torch.ones(5_000_000) for _ in range(8)]  # of 20 MB
            pieces.append(torch.ones(20_000_000))
            del pieces
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    usually = n_pages()
    with freed_memory_kept(torch.device("cpu")):
        kept = n_pages()
    assert kept < usually / 3
    assert n_pages() > usually / 2  # afterwards, memory is returned again


def test_only_glibc_and_the_cpu_are_told_to_keep_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    class Glibc:
        def mallopt(self, parameter: int, value: int) -> None:
            calls.append("mallopt")

        def malloc_trim(self, padding: int) -> None:
            calls.append("malloc_trim")

    def called(device: str, libc: object) -> list[str]:
        calls.clear()
        monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
        with freed_memory_kept(torch.device(device)):
            pass
        return calls

    assert called("meta", Glibc()) == []
    assert called("cpu", object()) == []
    if os.name == "posix":
        assert "mallopt" in called("cpu", Glibc())
