#!/bin/sh
# onnxruntime 1.32.0: the extra `quantization` does not install onnx_ir, which
# the quantizer of 4-bit weights imports. So after
# `pip install "onnxruntime[quantization]" onnx`, importing
# MatMulNBitsQuantizer fails. Dynamic quantization can be imported.
#
# Observed (onnx 1.23.2, Linux x86-64):
#     quantize_dynamic       imported
#     MatMulNBitsQuantizer   ModuleNotFoundError: No module named 'onnx_ir'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "onnxruntime[quantization]==1.32.0" \
    onnx==1.23.2
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

print("onnxruntime", version("onnxruntime"))
from onnxruntime.quantization import quantize_dynamic

print(f"{quantize_dynamic.__name__:20}   imported")
try:
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        MatMulNBitsQuantizer,
    )

    outcome = "imported"
except ModuleNotFoundError as error:
    outcome = f"ModuleNotFoundError: {error}"
    assert error.name == "onnx_ir", error
print(f"MatMulNBitsQuantizer   {outcome}")
assert outcome != "imported"
PYTHON
