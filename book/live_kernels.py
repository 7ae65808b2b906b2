"""Compile `book/live/kernels.c` to WebAssembly, and store it as a script.

    python book/live_kernels.py

The compiler is the clang in the `ziglang` wheel, whose version is pinned, so
that everybody gets the same bytes: `pip install ziglang==0.16.0`. Only who
changes the C code needs it.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

VERSION = "0.16.0"
SOURCE = Path(__file__).parent / "live" / "kernels.c"
TARGET = SOURCE.with_suffix(".js")
KINDS = {"relaxed": "generic+simd128+relaxed_simd", "simd": "generic+simd128"}
HEAD = """\
// The WebAssembly of `kernels.c`, which `book/live_kernels.py` has compiled:
// with relaxed SIMD, and for browsers that have only SIMD.
((globalThis.GPT2 ??= {})).KERNELS = {
"""


def compile_kernels(cpu: str) -> bytes:
    """Return the bytes of a WebAssembly module.

    Args:
        cpu: The instructions that it may use, as for `zig cc -mcpu`.
    """
    zig = [sys.executable, "-m", "ziglang"]
    with tempfile.TemporaryDirectory() as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "wasm"
        subprocess.run(
            [
                *(*zig, "cc", "-c", str(SOURCE), "-o", str(compiled)),
                *("-target", "wasm32-freestanding", f"-mcpu={cpu}", "-O3"),
                *("-fno-builtin", "-Wall", "-Wextra", "-Werror"),
            ],
            check=True,
        )
        subprocess.run(
            [
                *(*zig, "wasm-ld", str(compiled), "-o", str(linked)),
                *("--no-entry", "--import-memory", "--strip-all"),
                *("--stack-first", "-z", "stack-size=4096"),
            ],
            check=True,
        )
        return linked.read_bytes()


def script() -> str:
    """Return the contents of `kernels.js`."""
    if version("ziglang") != VERSION:
        raise SystemExit(f"expected ziglang {VERSION}")
    lines = []
    for name, cpu in KINDS.items():
        text = base64.b64encode(compile_kernels(cpu)).decode()
        rows = [text[i : i + 70] for i in range(0, len(text), 70)]
        lines.append(
            f"  {name}:\n" + " +\n".join(f'    "{row}"' for row in rows) + ","
        )
    return HEAD + "\n".join(lines) + "\n};\n"


if __name__ == "__main__":
    TARGET.write_text(script(), "utf-8", newline="\n")
