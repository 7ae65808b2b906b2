"""The command line on a terminal: progress, prompts and Ctrl-C.

Most tests run in this process, with streams that say that they are terminals.
What only a terminal can show runs in one, by `pexpect`.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
import torch
from test_command_line import SHARES, TENSORFLOW, feed, saved, write_model

from gpt2 import progress
from gpt2.__main__ import main
from gpt2.commands import devices, screen
from gpt2.commands.parsing import COMMANDS
from gpt2.evaluation.stories import (
    grade_probes,
    grade_samples,
    measure_gap,
)
from gpt2.evaluation.text import Choice, choose_endings, text_loss
from gpt2.stories import KINDS
from gpt2.weights import loading

__all__ = ["saved"]  # a fixture

MODEL = Path(loading.__file__).parents[1] / "pretrained" / "story"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make one terminal standard output and standard error.

    Tests call this themselves: between a fixture and a test, pytest puts its
    own streams there.
    """
    both = Terminal()
    monkeypatch.setattr(sys, "stdout", both)
    monkeypatch.setattr(sys, "stderr", both)
    return both


# Tasks.


def test_a_task_is_silent_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.task("Counting", 3, "sheep") as advance:
        advance(3)
    assert list(progress.track("abc", "Counting", 3, "sheep")) == [*"abc"]
    assert capsys.readouterr() == ("", "")


@contextmanager
def noted(notes: list[Any]) -> Iterator[None]:
    """Note each task, and what it reports."""

    @contextmanager
    def show(
        what: str, total: int | None, unit: str
    ) -> Iterator[progress.Advance]:
        notes.append((what, total, unit))
        yield notes.append

    with progress.shown_by(show):
        yield


def test_a_task_is_shown_by_whom_it_is_told() -> None:
    notes: list[Any] = []
    with noted(notes):
        items = progress.track("ab", "Counting", 2, "sheep")
        assert next(items) == "a"
        assert notes == [("Counting", 2, "sheep")]  # none is done yet
        assert list(items) == ["b"]
    with progress.task("Sleeping"):
        pass
    assert notes == [("Counting", 2, "sheep"), 1, 1]


def test_measurements_report_every_unit(saved: str) -> None:
    model, tokenizer = loading.load(saved)
    question = Choice("a", ("b", "z", "a"), 0)
    notes: list[Any] = []
    with noted(notes):
        text_loss(model, tokenizer, ["a b" * 30, "b"], stride=10)
        choose_endings(model, tokenizer, [question] * 2)
    tasks = [note for note in notes if note != 1]
    assert tasks == [
        ("Encoding the text", 2, "documents"),
        ("Measuring the loss", 8, "windows"),
        ("Scoring endings", 6, "endings"),
    ]
    assert notes.count(1) == sum(total for _, total, _ in tasks)


def test_stories_are_graded_with_progress() -> None:
    model, tokenizer = loading.load("story")
    notes: list[Any] = []
    with noted(notes):
        measure_gap(model, tokenizer, 3)
        grade_samples(model, tokenizer, 3, batch_size=2)
        grade_probes(model, tokenizer, 1, kinds=[*KINDS][:1])
    assert notes == [
        *(("Measuring the loss", 3, "stories"), 1, 1, 1),
        *(("Generating stories", 3, "stories"), 2, 1),
        *(("Scoring answers", 1, "answers"), 1),
    ]


def test_a_short_task_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    with screen.Bar("Counting", 3, "sheep", patience=60):
        pass
    assert terminal.getvalue() == ""


def wait_for(terminal: io.StringIO, text: str) -> None:
    for _ in range(6000):
        if text in terminal.getvalue():
            return
        screen.Event().wait(0.01)
    raise AssertionError(f"{text!r} is not in {terminal.getvalue()!r}")


def test_a_long_task_has_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = use_terminal(monkeypatch)
    with screen.Bar("Counting", 30, "sheep", begun=5, patience=0) as advance:
        advance(7)
        wait_for(terminal, "12/30")
        assert "Counting:  40%|" in terminal.getvalue()
        assert "sheep/s" in terminal.getvalue()
    *_, cleared, end = terminal.getvalue().split("\r")
    assert (cleared.strip(), end) == ("", "")


def test_a_task_of_unknown_length_has_a_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = use_terminal(monkeypatch)
    with screen.Bar("Loading gpt2", patience=0):
        wait_for(terminal, "Loading gpt2 00:00")


def test_elsewhere_a_long_task_has_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for arguments, line in (
        (("Counting", 3000, "sheep"), "gpt2: counting: 3,000 sheep ...\n"),
        (("Reading", 3000, "B"), "gpt2: reading ...\n"),
        (("Loading gpt2",), "gpt2: loading gpt2 ...\n"),
    ):
        errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", errors)
        with screen.Bar(*arguments, patience=0) as advance:
            wait_for(errors, "\n")
            advance(1)
        assert errors.getvalue() == line


def test_nobody_follows_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            tried.append(text)
            raise BrokenPipeError

    tried: list[str] = []
    monkeypatch.setattr(sys, "stderr", Closed())
    with screen.Bar("Counting", patience=0):
        for _ in range(6000):
            if tried:
                break
            screen.Event().wait(0.01)
    assert tried


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [
        ("generate b", ["Loading MODEL"]),
        ("generate b --unpacked", ["Loading MODEL"]),
        ("generate b --json", ["Loading MODEL", "Generating"]),
        ("generate b --beams 2", ["Loading MODEL", "Searching"]),
        ("predict b", ["Loading MODEL"]),
        ("eval text FILE", ["Loading MODEL", "Encoding", "Measuring"]),
        ("inspect MODEL", ["Inspecting MODEL"]),
        ("convert MODEL OUT", ["Reading MODEL", "Writing OUT"]),
        (
            "train OUT --data FILE --n-ctx 8 --n-embd 8 --n-head 1 --n-layer 1"
            " --n-steps 1 --batch-size 2 --evaluate-rows 2 --n-vocab 260",
            ["Learning", "Encoding", "Training", "Drawing"],
        ),
    ],
)
def test_what_may_take_long_is_a_task(
    saved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    tasks: list[str],
) -> None:
    class Noted(screen.Bar):
        def __enter__(self) -> screen.Bar:
            begun.append(self.what)
            return super().__enter__()

    begun: list[str] = []
    monkeypatch.setattr(screen, "Bar", Noted)
    monkeypatch.setattr("gpt2.commands.train.Bar", Noted)
    places = {"MODEL": saved, "FILE": __file__, "OUT": str(tmp_path / "out")}
    words = [places.get(word, word) for word in arguments.split()]
    if words[0] in ("generate", "predict", "eval"):
        words += ["--model", saved]
    assert main(words) == 0
    expected = [
        " ".join(places.get(word, word) for word in each.split())
        for each in tasks
    ]
    assert len(begun) == len(expected)
    assert all(map(str.startswith, begun, expected)), begun
    if words[0] == "train":
        begun.clear()
        assert main([*words[:1], words[1] + "2", *words[2:], "--quiet"]) == 0
        assert begun == []


# The device.


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """`accelerator(zeros)` gives this machine CUDA and this `torch.zeros`."""

    def accelerator(zeros: Callable[..., Any]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch, "zeros", zeros)

    return accelerator


def test_the_cpu_is_taken_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cuda", "mps"):
        place = getattr(torch, name)
        monkeypatch.setattr(place, "is_available", lambda: False)
    assert devices.choose_device() == "cpu"
    assert capsys.readouterr() == ("", "")


def test_an_accelerator_is_taken_and_named(
    accelerator: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[str] = []

    def zeros(size: int, device: str) -> torch.Tensor:
        tried.append(device)
        return torch.ones(size)

    accelerator(zeros)
    line = "gpt2: computing on cuda; --device cpu takes the CPU instead\n"
    assert devices.choose_device() == "cuda"
    assert (tried, capsys.readouterr().err) == (["cuda"], line)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert devices.choose_device() == "mps"
    assert devices.choose_device(("cuda",)) == "cpu"
    assert capsys.readouterr().err == line.replace("cuda", "mps")


def test_an_accelerator_that_does_not_work_is_passed_over(
    accelerator: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def zeros(size: int, device: str) -> torch.Tensor:
        raise RuntimeError("no kernel image\nfor this device")

    accelerator(zeros)
    assert devices.choose_device() == "cpu"
    told = capsys.readouterr().err
    assert told == "gpt2: --device cuda cannot be used: no kernel image\n"


def test_each_of_several_processes_has_its_own_device(
    accelerator: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """So none is tried before it has it, and only the first one talks."""
    accelerator(lambda *_, **__: pytest.fail("tried"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert devices.choose_device(("cuda",)) == "cuda"
        assert capsys.readouterr().err.count("\n") == lines


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_packed_formats_take_the_cpu(
    accelerator: Callable[[Any], None],
    saved: str,
    capsys: pytest.CaptureFixture[str],
    dtype: str,
) -> None:
    accelerator(torch.zeros)
    command = ["generate", "b", "--model", saved, "-n", "1", "--dtype", dtype]
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr() == ("ba\n", "")


# A prompt that stands on the terminal.


def loading_says(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal, action: Any
) -> list[str]:
    """Let `action` happen when a model is loaded; return what was shown."""
    seen: list[str] = []
    load = loading.load

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(terminal.getvalue())
        action()
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", watched)
    return seen


def test_the_prompt_is_there_before_the_model(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = use_terminal(monkeypatch)
    seen = loading_says(monkeypatch, terminal, lambda: None)
    command = ["generate", "b", "--model", saved, "-n", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    assert seen == ["b"]
    assert terminal.getvalue() == "baa\n"
    feed(monkeypatch, b"a")  # the same for a text from standard input
    command = ["generate", "--model", saved, "-n", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    assert (seen[1:], terminal.getvalue()) == (["baa\na"], "baa\naaa\n")
    command += ["--json", "--seed", "1"]
    assert main(["generate", "b", *command[1:]]) == 0
    assert seen[2:] == ["baa\naaa\n"]


def test_what_is_said_meanwhile_stands_below(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = use_terminal(monkeypatch)
    loading_says(monkeypatch, terminal, lambda: screen.say("hello"))
    command = ["generate", "b", "--model", saved, "-n", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    assert terminal.getvalue() == "b\ngpt2: hello\nbaa\n"


@pytest.mark.skipif(os.name != "posix", reason="moves the cursor on POSIX")
def test_a_bar_that_is_gone_leaves_no_trace(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = use_terminal(monkeypatch)

    def wait() -> None:
        with screen.Bar("Waiting", patience=0):
            wait_for(terminal, "Waiting 00:00")

    loading_says(monkeypatch, terminal, wait)
    command = ["generate", "b", "--model", saved, "-n", "2"]
    assert main([*command, "--temperature", "0"]) == 0
    text = terminal.getvalue()
    assert text.startswith("b\n\rWaiting 00:00")
    assert text.endswith("  \r\x1b[Abaa\n")
    assert text.count("\n") == 2


def test_an_error_stands_below(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = use_terminal(monkeypatch)
    for arguments, code in (
        (["b", "--model", "no/such/model"], 1),
        (["b", "--temperature", "-1"], 2),
        (["b" * 40, "--model", saved], 2),
    ):
        before = len(terminal.getvalue())
        assert main(["generate", *arguments]) == code
        text, error, end = terminal.getvalue()[before:].split("\n")
        assert (text, error[:6], end) == (arguments[0], "gpt2: ", "")
    assert sys.stderr is terminal


# Real terminals.

posix = pytest.mark.skipif(
    os.name != "posix", reason="pexpect has terminals on POSIX only"
)
SCRIPT = """
import sys
from gpt2.__main__ import main
from gpt2.commands import screen
screen.PATIENCE = float(sys.argv.pop(1))
sys.exit(main())
"""


def at_terminal(*arguments: str, patience: float = 1e6) -> Any:
    """Type a command at a terminal."""
    package = Path(progress.__file__).parents[1]
    return pexpect.spawn(
        sys.executable,
        ["-c", SCRIPT, str(patience), *arguments],
        encoding="utf-8",
        timeout=120,
        dimensions=(24, 79),
        env={**os.environ, "PYTHONPATH": str(package), "TERM": "dumb"},
    )


@posix
def test_asking_for_texts(saved: str) -> None:
    """One after the other, until Ctrl-D."""
    command = ["generate", "--model", saved, "-n", "2", "--temperature", "0"]
    process = at_terminal(*command)
    process.expect("continue; Ctrl-C stops a continuation, Ctrl-D ends\r\n> ")
    process.sendline("b")
    process.expect(r"^b\r\nbaa\r\n> ")
    process.sendline("")  # the beginning of a text
    process.expect(r"^\r\naa\r\n> ")
    process.sendline("b" * 33)
    process.expect(r"\r\ngpt2: the prompt has 33 tokens[^\n]*\r\n> ")
    process.send("z")
    process.expect("z")
    process.sendintr()  # this text is not wanted
    process.expect(r"\r\n> ")
    process.sendline("a")
    process.expect(r"^a\r\naaa\r\n> ")
    process.sendeof()
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0


@posix
def test_each_text_has_a_new_seed_unless_one_is_given(saved: str) -> None:
    command = ["generate", "--model", saved, "-n", "1", "--json"]
    for options, n_seeds in (([], 2), (["--seed", "5"], 1)):
        process = at_terminal(*command, *options)
        seeds = set()
        for _ in range(2):
            process.expect("> ")
            process.sendline("b")
            process.expect(r'"seed": (\d+)')
            seeds.add(process.match[1])
        process.expect("> ")
        process.sendeof()
        process.expect(pexpect.EOF)
        assert len(seeds) == n_seeds


@posix
def test_ctrl_c_stops_a_continuation_and_not_the_loop(tmp_path: Path) -> None:
    endless = write_model(tmp_path / "endless", SHARES, n_ctx=50_000)
    process = at_terminal("generate", "--model", endless, "-n", "49000")
    process.expect("> ")
    for text in ("first b", "second b"):  # the second Ctrl-C, too
        process.sendline(text)
        process.expect(rf"\r\n{text}[^\n]")
        process.sendintr()
        process.expect(r"\r\n> ")
    process.sendeof()
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0


@posix
def test_bars_on_a_terminal(saved: str, tmp_path: Path) -> None:
    """Each is gone at the end, but for that of the steps of training."""
    text = tmp_path / "text.txt"
    text.write_text("Ann saw two cats. " * 3000)
    process = at_terminal(
        *("eval", "text", str(text), "--model", saved, "--stride", "2"),
        patience=0,
    )
    process.expect("Starting PyTorch 00:0")
    process.expect(r"Measuring the loss: +\d+%\|.*\| \d+/\d+ ")
    process.expect("tokens +54,000\r\n")
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0

    sizes = "--n-ctx 8 --n-embd 8 --n-head 1 --n-layer 1 --n-vocab 260"
    steps = "--n-steps 40 --batch-size 2 --evaluate-rows 2"
    process = at_terminal(
        *("train", str(tmp_path / "run"), "--data", str(text)),
        *(*sizes.split(), *steps.split(), "--evaluate-every", "20"),
    )
    process.expect(r"\[step 20\] ")
    process.expect(r"\[step 40\] ")
    process.expect(r"Training: 100%\|█+\| 40/40 .* loss=\d")
    process.expect("40 steps")
    process.expect(pexpect.EOF)


# Examples.


def examples() -> list[str]:
    return [line for each in COMMANDS.values() for line in each.EXAMPLES]


def test_every_help_shows_its_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        lines = "".join(f"  {line}\n" for line in command.EXAMPLES)
        assert capsys.readouterr().out.endswith(f"\nexamples:\n{lines}")
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.partition("\nexamples:\n")[2]
    assert [line.split()[1] for line in shown.splitlines()] == [*COMMANDS]


# Enough to run, and soon over.
SHORT = {
    "train": "--n-ctx 8 --n-embd 8 --n-head 1 --n-layer 1 --n-steps 2 "
    "--batch-size 2 --evaluate-rows 2 --stories 30 --n-vocab 260 "
    "--context 8",
    "eval stories": "--stories 2 --samples 1 --probes 1",
}


@pytest.mark.parametrize("line", examples())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_example_runs(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With small files, few steps, and the shipped model for `gpt2`."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    if "<" in words:
        feed(monkeypatch, b"Ella lost")
        words = words[: words.index("<")]
    text = "Ella lost her red cap. " * 40
    question = {"ctx": "Ella", "endings": [" a", " b"], "label": 0}
    for name, content in (
        ("book.txt", text),
        ("texts/one.txt", text),
        ("hellaswag_val.jsonl", json.dumps(question)),
        ("lambada_test.jsonl", json.dumps({"text": "Ella lost"})),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    places = {
        "gpt2": "story",
        "path/to/model.ckpt": str(TENSORFLOW),
        "path/to/model.safetensors": str(MODEL / "model.safetensors"),
    }
    words = [places.get(word, word) for word in words]
    for command, options in SHORT.items():
        if " ".join(words).startswith(command):
            words += options.split()
    if "--resume" in words:
        again = [word for word in words if word != "--resume"]
        assert main(again) == 0
    assert main(words) == 0
    assert capsys.readouterr().out
