"""What the commands show on standard error, beside their results."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from threading import Event, Thread
from types import TracebackType
from typing import Any


def say(message: object) -> None:
    """Print a message of one line to standard error."""
    print(f"gpt2: {message}", file=sys.stderr, flush=True)


def ask(question: str) -> str:
    """Read a line from the terminal, with the line editing that it has.

    Raises:
        EOFError: There are no more.
    """
    with contextlib.suppress(ImportError):  # not on every system
        import readline as readline
    if sys.stdout.isatty():
        return input(question)
    print(question, end="", file=sys.stderr, flush=True)
    return input()


@contextlib.contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise a KeyboardInterrupt at every Ctrl-C, not only at the first."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # Ctrl-C is ignored
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


PATIENCE = 2.0
"""Seconds for which a task says nothing."""
_EVERY = 0.5
"""Seconds from one drawing of a bar to the next."""


class Bar:
    """A task that is shown once it has taken a while; see `gpt2.progress`.

    A thread draws the bar, so that its clock runs while the program computes.
    On a terminal, the bar is removed at the end of the task. Elsewhere, such
    as in a file, one line says what is being done.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "",
        *,
        begun: int = 0,
        patience: float | None = None,
        stays: bool = False,
    ) -> None:
        """Describe a task; the `with` statement begins it.

        Args:
            what: What is being done.
            total: How many units there are to do, if that is known.
            unit: What is counted, in the plural, or `B` for bytes.
            begun: How many of them were done before.
            patience: Seconds for which to say nothing; None: `PATIENCE`.
            stays: Whether the bar stays on the terminal.
        """
        self.what, self.total, self.unit = what, total, unit
        self.begun, self.n_done = begun, begun
        self.patience = PATIENCE if patience is None else patience
        self.stays = stays
        self.facts: dict[str, str] = {}
        """Shown behind the bar, by name."""
        self._over = Event()
        self._thread = Thread(target=self._show, daemon=True)

    def __enter__(self) -> Bar:
        """Begin the task."""
        self._began = time.time()
        self._thread.start()
        return self

    def __call__(self, count: int) -> None:
        """Report that so many more units are done."""
        self.n_done += count

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the task, and wait until the bar is removed."""
        self._over.set()
        self._thread.join()

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        from tqdm.std import tqdm

        tqdm.write(line, file=sys.stderr)

    def tell(self) -> None:
        """Where there is no bar, say how far the task has come."""
        if not sys.stderr.isatty():
            told = [f"{name}={value}" for name, value in self.facts.items()]
            say(", ".join([f"{self.unit} {self.n_done}/{self.total}", *told]))

    def _show(self) -> None:
        """Wait, and then draw until the task is over."""
        if self._over.wait(self.patience):
            return
        with contextlib.suppress(OSError):  # there may be no reader
            if sys.stderr.isatty():
                self._draw()
            else:
                say(self._line())

    def _line(self) -> str:
        """Say what is being done, in words."""
        what = self.what[0].lower() + self.what[1:]
        if self.total is None or self.unit == "B":
            return f"{what} ..."
        return f"{what}: {self.total:,} {self.unit} ..."

    def _draw(self) -> None:
        """Draw a bar until the task is over."""
        from tqdm.std import tqdm

        form: dict[str, Any] = {"bar_format": "{desc} {elapsed}"}
        if self.total is not None:
            form = {"unit": f" {self.unit}", "unit_scale": self.unit == "B"}
        with tqdm(
            desc=self.what,
            total=self.total,
            initial=self.begun,
            leave=self.stays,
            dynamic_ncols=True,
            **form,
        ) as bar:
            bar.start_t = self._began
            over = False
            while not over:
                over = self._over.wait(_EVERY)
                bar.set_postfix(self.facts, refresh=False)
                bar.update(self.n_done - bar.n)
                bar.refresh()


class StandingText:
    """A text that stands on the terminal before its continuation follows.

    Within the `with` statement, `sys.stderr` is this object: what is written
    there begins on a line below the text.
    """

    def __init__(self, text: str) -> None:
        """Describe a text; the `with` statement shows it."""
        self._text, self._stands = text, False
        self._written = ""

    def __enter__(self) -> StandingText:
        """Show the text, if standard output is a terminal."""
        self._errors = sys.stderr
        if sys.stdout.isatty():
            self.show()
            if self._errors.isatty():
                sys.stderr = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let an error, too, begin below the text."""
        sys.stderr = self._errors
        if isinstance(error, Exception):
            self._leave_line()

    def show(self) -> None:
        """Show the text, unless its last line still waits to be continued."""
        if self._stands:
            return
        line = "\n" not in self._text and self._text.isascii()
        if (
            self._text
            and self._written
            and "\n" not in self._written  # a bar was there, and is gone
            and line
            and len(self._text) < shutil.get_terminal_size().columns
            and os.name == "posix"
        ):
            print("\x1b[A", end="")  # one line up, over the same text
        print(self._text, end="", flush=True)
        self._stands = True

    def write(self, text: str) -> int:
        """Write to standard error, below the text."""
        self._leave_line()
        self._written += text
        return self._errors.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._errors, name)

    def _leave_line(self) -> None:
        if self._stands and self._text and not self._text.endswith("\n"):
            print(flush=True)
        self._stands = False
