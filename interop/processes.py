"""A program under comparison, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 300.0  # seconds for one program and one input


class Asked:
    """A process that answers questions, started again after a crash."""

    def __init__(self, script: Path, *arguments: str) -> None:
        """Name the script; its process starts with the first question."""
        self.command = [sys.executable, script, *arguments]
        self.process: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or how the process ended without one."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            in_time = waiting.select(LIMIT)
        if in_time and (line := process.stdout.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        if not in_time:
            process.kill()
        code, self.process = process.wait(), None
        if not in_time:
            return {"crashed": f"no answer in {LIMIT:.0f} seconds"}
        if code < 0:
            return {"crashed": signal.Signals(-code).name}
        return {"crashed": f"ended with code {code}"}

    def stop(self) -> None:
        """Let the process end."""
        if self.process is not None:
            self.process.communicate()


def answering(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each line of standard input, one job in JSON, with a line.

    Args:
        answer: A function from a job to an answer, both dictionaries. What it
            raises becomes the answer `{"refused": ...}`.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep the programs' own output out of the answers
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                came = answer(json.loads(line))
        except (Exception, SystemExit) as error:
            came = {"refused": why(error)}
        print(json.dumps(came), file=out)


def why(error: BaseException) -> str:
    """Say in a line what was raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)
