"""GPT-2 124M itself, compared with numbers that others have published.

These tests are skipped unless the checkpoint is in the Hugging Face cache,
where `gpt2.load("gpt2")` puts it. A random model of the same size must fail
every check; that is always tested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2, next_token_loss
from gpt2.tokenizer.files import vocabulary_files
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import hub
from gpt2.weights.layout import parameter_shapes
from gpt2.weights.pins import HUB_PRESETS
from gpt2.weights.safetensors_header import read_safetensors_header
from gpt2_book.published import (
    BATCH,
    END,
    FILE_BYTES,
    FILE_TENSORS,
    FIRST_LOGITS,
    FIRST_PARTS,
    GREEDY,
    HEADER_BYTES,
    LIKELIEST,
    LOSSES,
    PARAMETERS,
)

PIN = HUB_PRESETS["gpt2"]

# --- published numbers, with GPT-2's token ids ---

# Those that the book shows are in `gpt2_book.published`; these are the others.

# fmt: off
# neelnanda-io/Easy-Transformer, branch clean-transformer-demo: a text; the
# most likely token after each of its tokens; and the first and last three
# logits at its last position.
DEMO = [
    END, 40, 716, 281, 4998, 1960, 382, 19741, 11, 875, 12342, 12, 8807, 11,
    402, 11571, 12, 17, 3918, 47385, 13, 1881, 1110, 314, 481, 7074, 1692,
    1241, 4430, 290, 1011, 625, 262, 995, 0,
]
DEMO_ARGMAX = [
    198, 1101, 257, 32450, 1048, 375, 2777, 13, 290, 1473, 11, 15808, 24292,
    290, 3955, 12, 8807, 13, 11, 13, 314, 286, 314, 481, 307, 616, 306, 286,
    290, 314, 625, 262, 995, 13, 314,
]
DEMO_LAST_LOGITS = [
    -126.8285, -128.9596, -128.3941, -140.197, -138.5883, -122.3697,
]

# poloclub/transformer-explainer, src/constants/examples: the five highest
# logits of a model with the exact GELU instead of GPT-2's; and for the first
# text, the attention of its last token in layer 0, head 0, which comes before
# any GELU.
EXACT_GELU = [
    (
        "Data visualization empowers users to",
        [6601, 32704, 795, 30132, 2985, 284],
        [(38350, -135.91316), (2251, -136.68361), (766, -137.1203),
         (787, -137.64738), (3538, -137.66647)],
    ),
    (
        "Artificial Intelligence is transforming the",
        [8001, 9542, 9345, 318, 25449, 262],
        [(835, -100.87852), (995, -101.04878), (3160, -103.34892),
         (2214, -103.855), (2003, -103.95349)],
    ),
    (
        "As the spaceship was approaching the",
        [1722, 262, 40663, 373, 13885, 262],
        [(5440, -92.86365), (4417, -94.18271), (4429, -94.41708),
         (8824, -94.45668), (3668, -94.46949)],
    ),
]
HEAD_SCORES = [-9.5531, -13.4031, -9.5392, -12.2424, -13.9794, -25.2884]
HEAD_WEIGHTS = [0.246962, 0.152626, 0.247392, 0.176456, 0.142017, 0.034547]
# fmt: on


# --- the checks ---


def close(found: Tensor, expected: Sequence[float], atol: float) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected), atol=atol, rtol=0
    )


def same(found: Tensor, expected: Sequence[int]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=0, rtol=0)


def ends(x: Tensor) -> Tensor:
    """The first three and the last three numbers."""
    return torch.cat([x[:3], x[-3:]])


def batch_of(ids: Sequence[int]) -> Tensor:
    return torch.tensor([ids])


def check_losses(model: GPT2) -> None:
    for ids, expected in LOSSES.values():
        loss = next_token_loss(model, batch_of(ids))
        close(loss, expected, atol=1e-3)


def check_greedy(model: GPT2) -> None:
    for prompt, continuation in GREEDY.values():
        found = gpt2.generate(
            model, batch_of(prompt), len(continuation), gpt2.Sampling(0)
        )
        same(found[0], prompt + continuation)


def check_left_padded_batch(model: GPT2) -> None:
    texts = BATCH.values()
    longest = max(len(prompt) for prompt, _ in texts)
    padding = [longest - len(prompt) for prompt, _ in texts]
    rows = zip(padding, texts, strict=True)
    tokens = torch.tensor([[END] * n + prompt for n, (prompt, _) in rows])
    real = torch.arange(longest) >= torch.tensor(padding)[:, None]
    found = gpt2.generate(
        model, tokens, 13, gpt2.Sampling(0), attention_mask=real
    )
    for row, (_, continuation) in zip(found, texts, strict=True):
        same(row[longest:], continuation)


def check_likeliest(model: GPT2) -> None:
    _, ids, expected = LIKELIEST
    logits = model(batch_of(ids), last_only=True)[0]
    found = logits.softmax(dim=-1).topk(len(expected))
    close(found.values, [p for _, _, p in expected], atol=1e-3)
    same(found.indices, [token for _, token, _ in expected])


def check_parts_of_the_first_layer(model: GPT2) -> None:
    found = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update(
                {name: output.reshape(-1, output.size(-1))[0]}
            )
        )
        for name in FIRST_PARTS
    ]
    model(batch_of(DEMO))
    for hook in hooks:
        hook.remove()
    for name, expected in FIRST_PARTS.items():
        close(ends(found[name]), expected, atol=1e-3)


def check_logits(model: GPT2) -> None:
    logits = model(batch_of(DEMO))[0]
    close(ends(logits[0]), FIRST_LOGITS, atol=5e-3)
    close(ends(logits[-1]), DEMO_LAST_LOGITS, atol=5e-3)


def check_predictions(model: GPT2) -> None:
    same(model(batch_of(DEMO))[0].argmax(dim=-1), DEMO_ARGMAX)


def check_exact_gelu(model: GPT2) -> None:
    with torch.device("meta"):
        exact = GPT2(replace(model.config, activation="gelu")).eval()
    exact.load_state_dict(model.state_dict(), assign=True)
    for _, ids, expected in EXACT_GELU:
        found = exact(batch_of(ids), last_only=True)[0].topk(len(expected))
        close(found.values, [logit for _, logit in expected], atol=1e-2)
        same(found.indices, [token for token, _ in expected])


def check_a_head(model: GPT2) -> None:
    _, ids, _ = EXACT_GELU[0]
    stream = model.wte(torch.tensor(ids)) + model.wpe(torch.arange(len(ids)))
    normed = model.h[0].ln_1(stream)[None]
    query, key, _ = model.h[0].attn.project(normed)
    scores = key[0, 0] @ query[0, 0, -1]
    close(scores, HEAD_SCORES, atol=5e-3)
    close((scores / 64**0.5).softmax(dim=-1), HEAD_WEIGHTS, atol=1e-4)


def check_positions_behind_padding(model: GPT2) -> None:
    """Left padding changes nothing, unless it counts as a position.

    TransformerLens, issue 1609: the loss of an unnamed text rose from 4.50 to
    13.59.
    """
    ids, expected = next(iter(LOSSES.values()))
    padded = batch_of([0, *ids])
    real = torch.tensor([[0, 1, 1, 1, 1]])
    close(next_token_loss(model, padded, real), expected, atol=1e-3)
    late = {"wpe.weight": model.wpe.weight.roll(-1, dims=0)}
    loss = next_token_loss(
        lambda tokens: functional_call(model, late, tokens), batch_of(ids)
    )
    assert loss > expected + 1


Check = Callable[[GPT2], None]
CHECKS: list[Check] = [
    check_losses,
    check_greedy,
    check_left_padded_batch,
    check_likeliest,
    check_parts_of_the_first_layer,
    check_logits,
    check_predictions,
    check_exact_gelu,
    check_a_head,
    check_positions_behind_padding,
]
each_check = pytest.mark.parametrize(
    "check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_")
)


# --- the real model ---


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder in the cache."""
    found = hub.cached(PIN)
    if found is None:
        pytest.skip(
            f"GPT-2 124M ({PIN.repo}, revision {PIN.revision[:7]}) is not in "
            f'the Hugging Face cache; gpt2.load("gpt2") fetches it'
        )
    return found


@pytest.fixture(scope="module")
def real(folder: Path) -> GPT2:
    return gpt2.load_model("gpt2")


@each_check
def test_agrees(real: GPT2, check: Check) -> None:
    with torch.no_grad():
        check(real)


def test_is_the_published_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        assert int.from_bytes(file.read(8), "little") == HEADER_BYTES
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert path.stat().st_size == FILE_BYTES
    assert found == PIN.sha256["model.safetensors"]


def test_what_the_file_holds(folder: Path) -> None:
    infos = read_safetensors_header(folder / "model.safetensors")
    masks = {f"h.{i}.attn.bias": (1, 1, 1024, 1024) for i in range(12)}
    expected = parameter_shapes(GPT2Config()) | masks
    assert {name: info.shape for name, info in infos.items()} == expected
    assert len(infos) == FILE_TENSORS
    assert {info.dtype for info in infos.values()} == {"F32"}
    found = gpt2.inspect("gpt2")
    assert found.config == GPT2Config()
    assert len(found.names) == 148


def test_tokenizer(folder: Path) -> None:
    """The files in the cache are the published ones."""
    found = vocabulary_files(folder)
    if not found:
        pytest.skip(f"{folder} has no tokenizer: only the model was fetched")
    for path in found:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == PIN.sha256[path.name]
    tokenizer = Tokenizer.load(folder)
    for text, ids, _ in (LIKELIEST, *EXACT_GELU):
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    for text, (ids, _) in BATCH.items():
        assert tokenizer.encode(text) == ids
    assert tokenizer.end_of_text == END


# --- other models ---


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameters(preset: str) -> None:
    shapes = parameter_shapes(GPT2Config.from_name(preset))
    assert sum(map(prod, shapes.values())) == PARAMETERS[preset]


def test_parameters_of_a_layer_and_of_the_output() -> None:
    """Others count the output matrix as well."""
    shapes = parameter_shapes(GPT2Config())
    layer = [prod(s) for name, s in shapes.items() if name.startswith("h.0.")]
    assert sum(layer) == 7_087_872
    untied = PARAMETERS["gpt2"] + prod(shapes["wte.weight"])
    assert untied == 163_037_184
    assert len(shapes) == 148


@pytest.fixture(scope="module")
def another(full_size_checkpoint: Path) -> nn.Module:
    return gpt2.load_model(full_size_checkpoint)


@pytest.mark.xdist_group("full_size")
@each_check
def test_another_model_does_not_agree(another: GPT2, check: Check) -> None:
    with (
        torch.no_grad(),
        pytest.raises(AssertionError, match=r"are not (close|equal)"),
    ):
        check(another)
