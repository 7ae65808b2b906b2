"""Tab completes the command line, in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from gpt2.__main__ import main

LINES = {
    "gpt2 gene": "generate",
    "gpt2 generate --temp": "--temperature",
    "gpt2 generate x --dtype b": "bfloat16",
    "gpt2 predict x --model gpt2-m": "gpt2-medium",
    "gpt2 generate --model mod": "model.safetensors",
    "gpt2 inspect st": "story",
    "gpt2 eval la": "lambada",
    "gpt2 eval text bo": "book.txt",
    "gpt2 train out --data bo": "book.txt",
    "gpt2 convert story bo": "book.txt",
}
"""A line, and the only way to go on with its last word."""


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Write:
    """`write(shell)` writes its script, beside files to complete."""

    def write(shell: str) -> Path:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        with pytest.raises(SystemExit) as end:
            main(["--completion", shell])
        assert not end.value.code
        for name in ("book.txt", "model.safetensors"):
            (tmp_path / name).touch()
        script = tmp_path / "script"
        script.write_text(capsys.readouterr().out)
        return script

    return write


def run(shell: str, script: Path, code: str) -> list[str]:
    done = subprocess.run(
        [shell, "-c", f"source {script}\n{code}"],
        capture_output=True,
        text=True,
        cwd=script.parent,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_bash(write: Write) -> None:
    code = """
try() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _shtab_gpt2
  echo "${COMPREPLY[*]}"
}
complete -p gpt2
"""
    code += "\n".join(f"try {line}" for line in LINES)
    told, *found = run("bash", write("bash"), code)
    assert told == "complete -o bashdefault -F _shtab_gpt2 gpt2"
    assert found == [*LINES.values()]


def test_fish(write: Write) -> None:
    code = "\n".join(f"complete -C '{line}'" for line in LINES)
    found = run("fish", write("fish"), code)
    assert [line.split("\t")[0] for line in found] == [*LINES.values()]


def test_zsh(write: Write) -> None:
    """It completes only at a terminal."""
    script = write("zsh")
    process = pexpect.spawn(
        "zsh",
        ["-f", "-i"],
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 150),
        cwd=str(script.parent),
        env={"TERM": "dumb", "PATH": os.environ["PATH"]},
    )
    process.sendline("autoload -Uz compinit; compinit -D -u")
    process.sendline(f'eval "$(cat {script})"; print "loaded" "$?"')
    process.expect_exact("loaded 0")
    for line, word in LINES.items():
        process.send(f"{line}\t")
        process.expect_exact(word)
        process.send("\x15")  # Ctrl-U clears the line
    process.close(force=True)


@pytest.mark.parametrize("shell", ["tcsh", ""])
def test_another_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--completion", shell])
    assert end.value.code == 2
    assert "zsh" in capsys.readouterr().err
