"""How pytest runs the notebooks: `pytest --nbval book`."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import alone
import nbval.plugin
import pytest
import sync

# The kernels inherit this. One thread adds sums up in the same order
# everywhere, so the outputs match the stored ones.
os.environ["OMP_NUM_THREADS"] = "1"

# How pytest-xdist may share out the tests: so that a notebook stays together.
TOGETHER = ("no", "each", "loadfile", "loadgroup", "loadscope")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run notebooks alone, and let pytest-xdist keep their cells together.

    Workers read the command line for themselves, so only what concerns their
    controller alone can be changed here.
    """
    runs = any(config.getoption(o, False) for o in ("nbval", "nbval_lax"))
    if not runs:
        return
    nbval.plugin.RunningKernel = alone.Kernel
    if config.getoption("dist", "no") not in TOGETHER:
        config.option.dist = "loadfile"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the cells of a notebook in order, on one pytest-xdist worker.

    And let pictures pass that differ by rounding only; nbval compares them as
    text, like all other outputs.
    """
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
            item.compare_outputs = _forgiving(item.compare_outputs)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run a notebook in part or out of order.

    A cell needs what the cells before it have defined. Options that leave
    tests out or reorder them (`--lf`, `--ff`, `--sw`, `-k`) know nothing of
    that.

    Raises:
        pytest.UsageError: Cells are missing before the last one that is to
            run, or another order was asked for.
    """
    numbers = defaultdict(list)
    for item in session.items:
        if item.path.suffix == ".ipynb":
            numbers[item.path.name].append(item.cell_num)
    for name, found in numbers.items():
        if found != list(range(len(found))):
            raise pytest.UsageError(
                f"{name}: its cells would run as {_shown(found)}, but each "
                "needs those before it; name the whole notebook, without "
                "options that select or reorder tests, such as --lf, --ff, "
                f"--sw and -k: pytest --nbval --nbval-current-env book/{name}"
            )


def _shown(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if numbers[5:] else "")


def _forgiving(compare: Any) -> Any:
    """Return nbval's comparison of a cell's outputs, with this exception."""

    def compare_outputs(fresh: Any, stored: Any, *more: Any) -> bool:
        sync.keep_pictures(stored, fresh)
        return compare(fresh, stored, *more)

    return compare_outputs
