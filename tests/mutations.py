"""Mistakes one could make in the package, each of which some test must notice.

Every mutation of `mistakes` replaces one piece of one source file in a copy of
the package, and names the tests that must then fail, each by itself. `python
tests/mutations.py` runs them all and says which went unnoticed;
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
"""Seconds for all runs together, so that an endless loop ends."""

OPTIONS = [
    "-x",  # one failure is enough
    "--tb=short",
    # The full-size model takes long and notices no more than the tiny ones.
    *("-k", "not full_size"),
    # Neither plugins nor the collection of garbage at the end are needed, and
    # they would take most of the time.
    "--disable-plugin-autoload",
    *("-p", "no:unraisableexception"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:faulthandler"),  # a crash is an outcome like another
]

Run = tuple[Mutation | None, tuple[str, ...]]
"""A mutation and the test that must notice it; or None, for the source as it
is, and all those in one file that must pass."""


def run(what: Run) -> tuple[int, str]:
    """Run tests of one file against a copy of the package, in this process.

    Returns:
        pytest's exit code (0 passed, 1 failed) and what it wrote.
    """
    mutation, tests = what
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        ignore = shutil.ignore_patterns("__pycache__", "data")
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
    """Each mutation with each of its tests; and these tests unmutated."""
    runs: list[Run] = [
        (mutation, (test,))
        for mutation in MUTATIONS
        for test in mutation.caught_by
    ]
    tests = sorted({test for _, (test,) in runs})
    files = groupby(tests, key=lambda test: test.partition("::")[0])
    return [(None, tuple(some)) for _, some in files] + runs


def run_all(runs: Sequence[Run]) -> Mapping[Run, tuple[int, str]]:
    """Do the runs side by side, each in a fresh process.

    The processes are forked from one that has imported the large libraries and
    nothing of this package: that takes seconds only once. One that crashes, as
    a mistake in C may have it do, has minus the signal as its exit code.
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
    """Tell whether the source as it is passes, and a mistake does not."""
    if mutation is None:
        return exit_code == pytest.ExitCode.OK
    return exit_code == pytest.ExitCode.TESTS_FAILED or exit_code < 0


def main() -> None:
    """Run all, print the outcome of each, and exit with 1 if one survived."""
    unexpected = 0
    for (mutation, tests), (exit_code, output) in run_all(all_runs()).items():
        fine = is_expected(mutation, exit_code)
        unexpected += not fine
        name = "as it is" if mutation is None else mutation.name
        verdict = "ok   " if fine else "WRONG"
        sys.stdout.write(f"{verdict} {' '.join(tests)} | {name}\n")
        if "-v" in sys.argv or not fine:
            sys.stdout.write(output)
    sys.exit(unexpected > 0)


if __name__ == "__main__":
    main()
