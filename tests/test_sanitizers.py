"""The C code stays within its buffers, to the byte, with odd shapes.

`python tests/sanitized.py SEED CASES` runs more cases.
"""

from __future__ import annotations

import pytest
from sanitized import BUILDS, missing, outcome, start

N_CASES = 12


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize("build", BUILDS)
def test_odd_shapes_stay_within_their_buffers(build: str) -> None:
    code, output = outcome(start(build, 0, N_CASES))
    assert code == 0, output[-3000:]
    assert f"{N_CASES} cases are clean" in output
