"""Mutation tests: the suite must catch every mistake in `mistakes`.

A mutation replaces one piece of one source file in a copy of the package, and
names the tests that must then fail, each by itself.
`python tests/mutations.py` runs them all and reports those that survive;
`test_mutations.py` does the same within the suite.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from mistakes import MUTATIONS
from mistakes.mutation import Mutation

PROJECT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 1200.0
"""Seconds for all runs together, in case a mutation loops for ever."""

OPTIONS = [
    "-x",  # one failure is enough
    "--tb=short",
    # The full-size model is slow, and catches no more than the tiny ones.
    *("-k", "not full_size"),
    # Plugins and the garbage collection at the end would take most of the
    # time.
    "--disable-plugin-autoload",
    *("-p", "no:unraisableexception"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:faulthandler"),  # a crash is a valid outcome
]

Run = tuple[Mutation | None, tuple[str, ...]]
"""A mutation and the test that must catch it; or None, for the unchanged
source, and all tests in one file that must pass."""


def run(what: Run) -> tuple[int, str]:
    """Run tests of one file against a copy of the package, in this process.

    Returns:
        pytest's exit code (0 passed, 1 failed) and its output.
    """
    mutation, tests = what
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("gpt2", "gpt2_book", "tests"):
            shutil.copytree(PROJECT / name, copy / name, ignore=ignore)
        shutil.copy(PROJECT / "pyproject.toml", copy)
        if mutation is not None:
            mutation.apply(copy / "gpt2")
        os.chdir(copy)
        elsewhere = [
            path for path in sys.path if Path(path).resolve() != PROJECT
        ]
        sys.path[:] = [str(copy), *elsewhere]
        sys.dont_write_bytecode = True
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exit_code = pytest.main(
                [*(f"tests/{test}" for test in tests), *OPTIONS]
            )
        tested = Path(sys.modules["gpt2"].__file__ or "")
        assert tested.is_relative_to(copy), f"{tested} was tested"
        os.chdir(PROJECT)
    return int(exit_code), output.getvalue()


def all_runs() -> list[Run]:
    """Return each mutation with each of its tests, and the tests alone."""
    runs: list[Run] = [
        (mutation, (test,))
        for mutation in MUTATIONS
        for test in mutation.caught_by
    ]
    tests = sorted({test for _, (test,) in runs})
    files = groupby(tests, key=lambda test: test.partition("::")[0])
    return [(None, tuple(some)) for _, some in files] + runs


def run_all(runs: Sequence[Run]) -> Mapping[Run, tuple[int, str]]:
    """Do the runs in parallel, each in a fresh process.

    The processes are forked from one that has imported the large libraries but
    nothing of this package, so that those imports take seconds only once. If a
    process crashes, as a mistake in C may cause, its exit code is minus the
    signal.

    Raises:
        TimeoutError: The runs take longer than `TIME_LIMIT`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "hypothesis",
            "pytest",
            "torch.testing",
            "transformers.models.gpt2.modeling_gpt2",
        ]
    )
    end = time.monotonic() + TIME_LIMIT

    def alone(what: Run) -> tuple[int, str]:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, what))
        process.start()
        sender.close()
        try:
            if not receiver.poll(max(0, end - time.monotonic())):
                process.kill()
                raise TimeoutError(f"the runs took over {TIME_LIMIT} s")
            return receiver.recv()
        except EOFError:
            process.join()
            return process.exitcode or 0, "the process crashed"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(runs, pool.map(alone, runs), strict=True))


def _send(sender: Connection, what: Run) -> None:
    sender.send(run(what))


def is_expected(mutation: Mutation | None, exit_code: int) -> bool:
    """Tell whether the unchanged source passes, or a mistake fails."""
    if mutation is None:
        return exit_code == pytest.ExitCode.OK
    return exit_code == pytest.ExitCode.TESTS_FAILED or exit_code < 0


def main() -> None:
    """Run all, print each outcome, and exit with 1 if a mutation survives."""
    unexpected, runs = 0, all_runs()
    sys.stderr.write(f"{len(runs)} runs of tests ...\n")
    for (mutation, tests), (exit_code, output) in run_all(runs).items():
        fine = is_expected(mutation, exit_code)
        unexpected += not fine
        name = "unchanged" if mutation is None else mutation.name
        verdict = "ok   " if fine else "WRONG"
        sys.stdout.write(f"{verdict} {' '.join(tests)} | {name}\n")
        if "-v" in sys.argv or not fine:
            sys.stdout.write(output)
    sys.exit(unexpected > 0)


if __name__ == "__main__":
    main()
