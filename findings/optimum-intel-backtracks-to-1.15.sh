#!/bin/sh
# optimum-intel 2.2.0 does not allow transformers 5.23.0. Asked for both, pip
# does not refuse: it goes back through the versions to optimum-intel 1.15.0,
# which has no upper bound yet, takes that, and says nothing.
#
# Nothing is installed here: pip only resolves.
#
# Observed (pip 23.2.1, Linux x86-64):
#     alone    optimum-intel 2.2.0 needs transformers<5.6,>=4.51
#     beside   optimum-intel 1.15.0 needs transformers >=4.26.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"
venv/bin/pip install --quiet --dry-run --no-deps --report alone.json \
    optimum-intel==2.2.0
venv/bin/pip install --quiet --dry-run --report beside.json \
    optimum-intel transformers==5.23.0 torch==2.13.0
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

versions = []
for name in ("alone", "beside"):
    report = json.loads(Path(f"{name}.json").read_text())
    (found,) = (
        one["metadata"]
        for one in report["install"]
        if one["metadata"]["name"] == "optimum-intel"
    )
    (needs,) = (
        line
        for line in found["requires_dist"]
        if line.startswith("transformers") and "extra" not in line
    )
    print(f"{name:6}   optimum-intel {found['version']} needs {needs}")
    versions.append(found["version"])
    bounded = "<" in needs
    assert bounded == (name == "alone"), needs
assert versions[1] == "1.15.0", versions
PYTHON
