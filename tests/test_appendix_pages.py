"""The pages on troubleshooting and teaching agree with the package."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from book_rules import BOOK, CHECK, prose
from entries import anchor
from huggingface_hub.errors import OfflineModeIsEnabled

import gpt2
from gpt2.__main__ import main
from gpt2.data import write_tokens
from gpt2.training.checkpoint import check_folder
from gpt2.training.loop import Run
from gpt2.training.settings import TrainingSettings
from gpt2.weights.hub import _explained, _verify
from gpt2.weights.locating import STORY_FOLDER
from gpt2.weights.pins import HUB_PRESETS, check_pinned
from gpt2_book.exercises import check
from gpt2_book.exercises.checking import CHECKERS

TROUBLES = (BOOK / "troubleshooting.md").read_text(encoding="utf-8")
TEACHING = (BOOK / "teaching.md").read_text(encoding="utf-8")


# --- troubleshooting: the package's own messages ---


def changed(folder: Path, name: str, old: str, new: str) -> Path:
    """Copy the story model, with a replacement in one of its files."""
    copy = folder / "copy"
    shutil.copytree(STORY_FOLDER, copy)
    path = copy / name
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    return copy


def with_weights(folder: Path, data: bytes) -> Path:
    copy = folder / "copy"
    shutil.copytree(STORY_FOLDER, copy)
    (copy / "model.safetensors").write_bytes(data)
    return copy


def pickled(folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save({"model": print}, path)
    return path


def numbered(folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save({"optimizer": {"state": {0: torch.zeros(1)}}}, path)
    return path


def with_config(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text("{}")
    return path


def flipped(folder: Path) -> Path:
    copy = folder / "copy"
    shutil.copytree(STORY_FOLDER, copy)
    state = gpt2.load_model(copy).state_dict()
    (copy / "model.safetensors").unlink()
    path = copy / "pytorch_model.bin"
    torch.save({name: tensor.clone() for name, tensor in state.items()}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return copy


def short_merges(folder: Path) -> Path:
    copy = folder / "copy"
    shutil.copytree(STORY_FOLDER, copy)
    lines = (copy / "merges.txt").read_text("utf-8").splitlines(True)
    (copy / "merges.txt").write_text("".join(lines[:500]), "utf-8")
    return copy


def replaced(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"another")
    _verify(path, HUB_PRESETS["gpt2"].sha256[path.name])


def held(folder: Path) -> None:
    (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    check_folder(folder, resume=False)


def short_part(folder: Path) -> None:
    tokens = write_tokens(folder / "a.bin", [[1] * 300 + [0]], 1440, 0)
    model, settings = gpt2.load_model("story"), TrainingSettings()
    Run(model, tokens, settings, folder, held_out=tokens.split(0.1)[1])


WHOLE = (STORY_FOLDER / "model.safetensors").read_bytes()
MESSAGES: dict[str, Callable[[Path], Any]] = {
    "is not a safetensors file: its first 8 bytes say that a header of ... "
    "bytes follows": lambda f: gpt2.load(
        with_weights(f, b"<!DOCTYPE html><title>Sign in</title>")
    ),
    "is a pointer of Git LFS, and the file itself was not fetched": (
        lambda f: gpt2.load(
            with_weights(f, b"version https://git-lfs.github.com/spec/v1\n")
        )
    ),
    "the download may be incomplete": lambda f: gpt2.load(
        with_weights(f, WHOLE[:-1000])
    ),
    "it was damaged or replaced in transit, and has been removed": replaced,
    "cannot be read: NaN is not a number in JSON": lambda f: gpt2.load(
        changed(f, "config.json", '"n_layer": 4', '"n_layer": NaN')
    ),
    "and this is only GPT-2": lambda f: gpt2.load(
        changed(f, "config.json", '"gpt2"', '"llama"')
    ),
    "lacks tensors ...": lambda f: gpt2.load(
        changed(f, "config.json", '"n_layer": 4', '"n_layer": 6')
    ),
    "has unexpected tensors ...": lambda f: gpt2.load(
        changed(f, "config.json", '"n_layer": 4', '"n_layer": 3')
    ),
    "has shape ..., and the model needs ...": lambda f: gpt2.load(
        changed(f, "config.json", '"vocab_size": 1440', '"vocab_size": 9')
    ),
    "it was damaged or replaced. Delete ..., and it will be fetched again": (
        lambda f: check_pinned(HUB_PRESETS["gpt2"], [with_config(f)])
    ),
    "is damaged: its record ... has CRC-32 ..., expected ...": (
        lambda f: gpt2.load(flipped(f))
    ),
    "is not a plain dictionary of tensors: it names ..., and unpickling "
    "anything but tensors could run code": lambda f: gpt2.load(pickled(f)),
    "holds a ... under ...; expected a plain tensor under each name": (
        lambda f: gpt2.load(numbered(f))
    ),
    "the token ... has ... characters, more than 1,024": lambda f: gpt2.load(
        changed(f, "vocab.json", '"!":', f'"{"a" * 1025}":')
    ),
    "the prompt has ... tokens, and the model reads at most ... (n_ctx); "
    "shorten it": lambda f: gpt2.complete(
        *gpt2.load("story"), "Ella lost her kite. " * 99, 5
    ),
    "the model has ... positions (n_ctx), and ... tokens do not fit": (
        lambda f: gpt2.load_model("story")(torch.zeros(1, 257).long())
    ),
    "tokens must lie between 0 and ...": (
        lambda f: gpt2.generate(
            gpt2.load_model("story"), torch.tensor([[50256]])
        )
    ),
    "ids must lie between 0 and ...": (
        lambda f: gpt2.load_model("story")(torch.tensor([[50256]]))
    ),
    "expected an id from 0 to ...": (
        lambda f: gpt2.load("story")[1].decode([50256])
    ),
    "no merge makes the token ...": lambda f: gpt2.load(short_merges(f)),
    "there is no exercise named ...; did you mean ...?": (
        lambda f: check("window-masks", None)
    ),
    "expected text with enough pairs for n_vocab=..., got enough for ...": (
        lambda f: gpt2.Tokenizer.train("short text", 2048)
    ),
    "the part to measure on has ... tokens, and a row needs ...; use more "
    "text, hold out more of it": short_part,
    "holds a run already; resume it, or choose another folder": held,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message: str, tmp_path: Path) -> None:
    assert f"**`{message}`**" in TROUBLES
    with pytest.raises((ValueError, RuntimeError, OSError)) as caught:
        MESSAGES[message](tmp_path)
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.search(pattern, str(caught.value), re.DOTALL), str(caught.value)


def test_messages_of_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["generate", "a\udcff"]) == 2
    assert "the text is not UTF-8" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["generate", "a", "--device", "cuda"]) == 1
        err = capsys.readouterr().err.strip().removeprefix("gpt2: ")
        if "CUDA" in err and "+cpu" in torch.__version__:
            assert f"**`{err}`**" in TROUBLES
    monkeypatch.setattr(
        "gpt2.commands.common.device", lambda options: torch.device("cuda")
    )
    assert main(["predict", "a", "--device=cuda", "--dtype=int8"]) == 2
    err = capsys.readouterr().err.strip().removeprefix("gpt2: ")
    assert f"**`{err}`**" in TROUBLES


def test_messages_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    offline = OfflineModeIsEnabled("Cannot reach it: offline mode is enabled")
    message = str(_explained(HUB_PRESETS["gpt2"], offline))
    assert "the Hugging Face hub cannot be reached (Cannot reach" in message
    assert "offline mode is enabled)" in message
    assert "**`the Hugging Face hub cannot be reached (...)`**" in TROUBLES

    def refuse(name: str) -> None:
        raise OSError

    monkeypatch.setattr("tiktoken.get_encoding", refuse)
    with pytest.raises(ValueError) as caught:
        gpt2.Tokenizer.gpt2()
    message, *_ = str(caught.value).split(":")
    assert f"**`{message}`**" in TROUBLES


def test_six_heads_load_without_complaint(tmp_path: Path) -> None:
    place = changed(tmp_path, "config.json", '"n_head": 4', '"n_head": 6')
    assert gpt2.load(place)[0].config.n_head == 6


def test_a_space_at_the_end() -> None:
    model, tokenizer = gpt2.load("story")
    said = [
        gpt2.complete(model, tokenizer, text, 4, gpt2.Sampling(0))
        for text in ("Ella lost her red", "Ella lost her red ")
    ]
    assert said[0].startswith(" mittens.") and said[1].startswith(" it.")
    assert '`"Ella lost her red "`' in TROUBLES and "with *it*" in TROUBLES


def test_the_table_of_memory() -> None:
    for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
        config = gpt2.GPT2Config.from_name(name)
        with torch.device("meta"):
            billions = gpt2.GPT2(config).num_parameters() / 1e9
        row = re.search(rf"\| `{name}` \| (.+) \| (.+) \| (.+) \|", TROUBLES)
        assert row
        for cell, n_bytes in zip(row.groups(), (4, 2, 16), strict=True):
            assert float(cell) == pytest.approx(n_bytes * billions, abs=0.051)


def code(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_the_comparison_of_devices(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (b for b in code(TROUBLES) if 'device = "mps"' in b)
    exec(block.replace('"mps"', '"cpu"').replace("n_layer=2", "n_layer=1"), {})
    assert float(capsys.readouterr().out) < 1e-4


# --- teaching: exercises that exist, and code that works ---


def exercises() -> dict[str, tuple[str, bool]]:
    """Return each exercise's title, and whether it checks itself."""
    found = {}
    for path in BOOK.glob("[0-9]*.ipynb"):
        parts = re.split(
            r"^### Exercise (\d+\.\d+) \(\w+\): (.+)$", prose(path), flags=re.M
        )
        for number, title, text in zip(
            parts[1::3], parts[2::3], parts[3::3], strict=True
        ):
            found[number] = title, bool(CHECK.search(text))
    return found


def test_the_exercises_that_are_set() -> None:
    known = exercises()
    named = re.findall(r"\b(\d+\.\d+) \*(.+?)\*( ✓)?", TEACHING)
    assert len(named) > 30
    for number, title, mark in named:
        expected, checked = known[number]
        assert title == expected
        assert bool(mark) == checked, number


def test_the_weeks_are_complete() -> None:
    rows = re.findall(r"^\| \d+ \| (.+?) \|", TEACHING, re.MULTILINE)
    assert len(rows) == 12
    chapters = [int(n) for row in rows for n in re.findall(r"\[(\d+)\]", row)]
    assert sorted(chapters) == list(range(1, 19))


def test_the_entries_can_be_linked() -> None:
    anchors = re.findall(r"^\*\*(.+?)\*\*", TROUBLES, re.MULTILINE)
    assert len(anchors) > 50
    assert len({anchor(words) for words in anchors}) == len(anchors)


def test_the_code_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    grade, checker, students = code(TEACHING)
    names: dict[str, Any] = {}
    try:
        for block in (checker, students):
            exec(block, names)
        shown = capsys.readouterr().out
        assert f"```\n{shown}```" in TEACHING
        exec(grade, names)

        def right(shares: torch.Tensor, temperature: float) -> torch.Tensor:
            return (shares.log() / temperature).softmax(-1)

        assert names["grade"]({"heated-shares": right}) == 1
        assert names["grade"]({"heated-shares": None}) == 0
    finally:
        CHECKERS.pop("heated-shares", None)


def test_the_sentence_that_is_shown() -> None:
    def window(n: int, width: int) -> torch.Tensor:
        back = torch.arange(n)[:, None] - torch.arange(n)
        return (back >= 0) & (back <= width)

    assert f"```\n{check('window-mask', window)}\n```" in TEACHING
