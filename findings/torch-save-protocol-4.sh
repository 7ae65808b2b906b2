#!/bin/sh
# torch 2.13.0: torch.load(..., weights_only=True), the default, cannot read a
# file of plain tensors from torch.save(..., pickle_protocol=4).
#
# The unpickler behind weights_only knows the opcodes of protocol 2, but not
# those that protocol 4 adds; a warning says that it might fail. So a dictionary
# that holds only tensors, saved with a documented argument, loads only with
# weights_only=False, which executes the pickle.
#
# Observed (torch 2.13.0+cpu, Linux x86-64):
#     protocol 2   read back equal
#     protocol 4   UnpicklingError: Unsupported operand 149
#     protocol 5   UnpicklingError: Unsupported operand 149
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import pickle

import torch

tensors = {"wte.weight": torch.arange(6.0).view(2, 3)}
print("torch", torch.__version__)
for protocol in (2, 4, 5):
    torch.save(tensors, "weights.pt", pickle_protocol=protocol)
    try:
        read = torch.load("weights.pt")
        assert torch.equal(read["wte.weight"], tensors["wte.weight"])
        outcome = "read back equal"
    except pickle.UnpicklingError as error:
        assert "Unsupported operand 149" in str(error), error
        outcome = "UnpicklingError: Unsupported operand 149"
    print(f"protocol {protocol}   {outcome}")
    assert (outcome == "read back equal") == (protocol == 2)
PYTHON
