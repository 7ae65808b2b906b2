"""How pytest runs the notebooks: `pytest --nbval book`."""

from __future__ import annotations

import os
from typing import Any

import pytest
import sync

# The kernels inherit this. One thread adds sums up in the same order
# everywhere, so the outputs match the stored ones.
os.environ["OMP_NUM_THREADS"] = "1"


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


def _forgiving(compare: Any) -> Any:
    """Return nbval's comparison of a cell's outputs, with this exception."""

    def compare_outputs(fresh: Any, stored: Any, *more: Any) -> bool:
        sync.keep_pictures(stored, fresh)
        return compare(fresh, stored, *more)

    return compare_outputs
