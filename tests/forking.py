"""Start command lines quickly, in processes that tests may kill.

`python forking.py` imports everything that is slow to import, and then forks a
process for each command on its standard input. Each process runs
`gpt2.__main__.main` with its own environment and output files, and otherwise
behaves like `python -m gpt2`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Process:
    """A running command."""

    server: Server
    pid: int
    output: Path

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        code: int | None = self.server.ask({"poll": self.pid})
        return code

    def wait(self, seconds: float = 240) -> int:
        """Return the exit code; kill the process if it takes longer."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"{self.output} took {seconds} s")
            time.sleep(0.002)
        return code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    @property
    def out(self) -> str:
        return self.output.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self.output.with_suffix(".err").read_text()


class Server:
    """The process that forks the others."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def ask(self, what: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        *arguments: str | Path,
        output: Path,
        limit: int | None = None,
        signalled: tuple[signal.Signals, str, int] | None = None,
        **environment: str | int,
    ) -> Process:
        """Start a command.

        Args:
            *arguments: The arguments of `python -m gpt2`.
            output: The path of the output files, without `.out` and `.err`.
            limit: The maximal size of a file, in bytes.
            signalled: A signal that the process sends itself when it opens a
                file of this name for writing, for the nth time.
            **environment: Environment variables to add.
        """
        pid = self.ask(
            {
                "arguments": [str(argument) for argument in arguments],
                "output": str(output),
                "limit": limit,
                "signalled": signalled,
                "environment": {k: str(v) for k, v in environment.items()},
            }
        )
        return Process(self, pid, output)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def child(what: dict[str, Any]) -> int:
    """Run a command in this process, and return the exit code."""
    from gpt2.__main__ import main

    for number, suffix in ((1, ".out"), (2, ".err")):
        with Path(what["output"] + suffix).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.update(what["environment"])
    if what["limit"] is not None:  # an error, and not a signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (what["limit"],) * 2)
    if what["signalled"] is not None:
        signal_in_writing(*what["signalled"])
    try:
        code = main(what["arguments"])
    except SystemExit as exit:
        code = int(exit.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def signal_in_writing(number: int, name: str, n: int) -> None:
    """Send this process a signal when it opens a file, whatever the load."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n
        if event != "open" or arguments[1] != "w":
            return
        n -= Path(str(arguments[0])).name == name
        if n == 0:
            n = -1  # once
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def warm_up() -> None:
    """Import what a run needs, and do what is slow the first time.

    It computes no gradients, because autograd's threads do not survive a fork.
    """
    import tempfile

    import torch
    import torch.distributed.fsdp
    import torch.distributed.tensor

    import gpt2.commands.train  # noqa: F401 (to have it loaded)
    from gpt2.training.metrics import Metrics, draw

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])
    with tempfile.TemporaryDirectory() as folder:
        Metrics(Path(folder), {}, 0).close()
        draw(Path(folder))


def serve() -> None:
    """Fork processes and report their exit codes, until the input ends."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    warm_up()
    reply = os.fdopen(os.dup(1), "w")
    alive: set[int] = set()
    codes: dict[int, int] = {}
    for line in sys.stdin:
        what = json.loads(line)
        if "poll" in what:
            pid = what["poll"]
            if pid in alive:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    alive.remove(pid)
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer: int | None = codes.get(pid)
        else:
            answer = os.fork()
            if answer == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os._exit(child(what))
            alive.add(answer)
        print(json.dumps(answer), file=reply, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # torch's shutdown takes seconds


if __name__ == "__main__":
    serve()
