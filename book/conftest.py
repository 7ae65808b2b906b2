"""How pytest runs the notebooks: `pytest --nbval book`."""

from __future__ import annotations

import os

import pytest

# The kernels inherit this: with one thread the sums are added up in one order
# everywhere, and the stored numbers come out as printed.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the cells of a notebook to one pytest-xdist worker, in order."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
