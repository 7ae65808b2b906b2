"""How pytest runs the notebooks: `pytest --nbval book`."""

from __future__ import annotations

import os

import pytest

# The kernels inherit this. One thread adds sums up in the same order
# everywhere, so the outputs match the stored ones.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the cells of a notebook in order, on one pytest-xdist worker."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
