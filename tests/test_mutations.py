"""Each mistake of `mutations.py` is caught by the tests that it names.

It takes some minutes; `--ignore tests/test_mutations.py` leaves it out.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from mistakes import MUTATIONS
from mistakes.mutation import Mutation
from mutations import (
    PROJECT,
    Run,
    all_runs,
    is_expected,
    run_all,
)

pytestmark = pytest.mark.xdist_group("mutations")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_fits_the_source(mutation: Mutation, tmp_path: Path) -> None:
    source = PROJECT / "gpt2" / mutation.file
    copy = tmp_path / mutation.file
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(source, copy)
    mutation.apply(tmp_path)
    assert copy.read_bytes() != source.read_bytes()


def test_each_has_a_name_of_its_own() -> None:
    names = Counter(mutation.name for mutation in MUTATIONS)
    assert [name for name, count in names.items() if count > 1] == []


def test_one_that_no_longer_fits_says_so(tmp_path: Path) -> None:
    mutation = Mutation("sign", "f.py", "a + b", "a - b", ("test_f.py",))
    for source in ("a - b", "a + b; a + b"):
        (tmp_path / "f.py").write_text(source)
        with pytest.raises(
            ValueError, match=r"'sign': expected once in f\.py"
        ):
            mutation.apply(tmp_path)


@pytest.fixture(scope="module")
def outcomes() -> Mapping[Run, tuple[int, str]]:
    return run_all(all_runs())


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(),
    reason="this system cannot fork",
)
@pytest.mark.parametrize(
    "what",
    all_runs(),
    ids=[
        f"{m.name if m else 'nothing'}-{tests[0]}" for m, tests in all_runs()
    ],
)
def test_is_caught(outcomes: Mapping[Run, tuple[int, str]], what: Run) -> None:
    """The tests fail with the mistake, and pass without any."""
    mutation, _ = what
    exit_code, output = outcomes[what]
    assert is_expected(mutation, exit_code), output
    assert "NameError" not in output  # a mistake, not a typing error
