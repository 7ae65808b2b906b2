"""Run `compiled.c` under the compiler's sanitizers, with odd shapes.

`python tests/sanitized.py [SEED] [CASES]` builds it so that a read or write
out of bounds, an integer overflow, or a cast out of range ends the process,
and runs matrices and models of random shapes, each compared with the plain
GPT2. All buffers come from `malloc`, whose bounds the address sanitizer knows.
`test_sanitizers.py` runs a few cases.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

COMPILER = "gcc"
PROJECT = Path(__file__).resolve().parent.parent
SANITIZERS = (
    *("-O1", "-g", "-fno-omit-frame-pointer"),
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)
BUILDS: dict[str, tuple[str, ...]] = {
    "this processor": ("-march=native",),
    "any processor": (),
}
"""The second has no instructions for bfloat16 and int8."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.06, "int8": 0.1, "int4": 0.6}


def missing() -> str | None:
    """Return what is missing on this machine, or None."""
    try:
        found = _asan()
    except OSError as error:
        return f"{COMPILER} cannot be run: {error}"
    if not Path(found).is_absolute():
        return f"{COMPILER} has no address sanitizer"
    return None


def _asan() -> str:
    command = [COMPILER, "-print-file-name=libasan.so"]
    return subprocess.check_output(command, text=True).strip()


def start(build: str, seed: int, n_cases: int) -> subprocess.Popen[str]:
    """Start a process that runs cases of each kind under the sanitizers."""
    return subprocess.Popen(
        [sys.executable, __file__, str(seed), str(n_cases), build],
        cwd=PROJECT,
        env={
            **os.environ,
            "LD_PRELOAD": _asan(),
            # Python and PyTorch free little of their memory on exit.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(PROJECT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process, and return its exit code and what it printed."""
    output, _ = process.communicate()
    return process.returncode, output


def prepare(build: str) -> None:
    """Make this process use a library built with the sanitizers."""
    import torch

    from gpt2.inference import compiled, compiling
    from gpt2.inference import layers as compiled_layers

    optional = ("-O3", "-march=native")
    usual = [flag for flag in compiling.FLAGS if flag not in optional]
    compiling.FLAGS = (*usual, *BUILDS[build], *SANITIZERS)
    compiling.find_compiler = lambda: COMPILER
    found = compiled.library()
    assert found is not None, "compiled.c cannot be built"
    symbols = subprocess.check_output(["nm", "-D", found._name], text=True)
    assert "__asan_" in symbols and "__ubsan_" in symbols, found._name

    def from_malloc(
        shape: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    for module in (compiled, compiled_layers):
        module.zeros_on_huge_pages = from_malloc


def matrix(rng: random.Random) -> None:
    """Pack a random matrix in each precision, and multiply by it."""
    import torch

    from gpt2.inference import compiled

    sizes = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 257]
    n_in, n_out = rng.choice(sizes), rng.choice(sizes)
    n_rows = rng.choice([1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 25, 191, 192, 193])
    torch.set_num_threads(rng.choice([1, 2, 3]))
    transposed = rng.random() < 0.5
    weight = (
        torch.randn(n_out, n_in).T if transposed else torch.randn(n_in, n_out)
    )
    bias = torch.randn(n_out) if rng.random() < 0.5 else None
    offsets = torch.randn(n_in) if rng.random() < 0.3 else None
    rows = torch.randn(n_rows, n_in)
    expected = rows @ (
        weight if offsets is None else weight - offsets[:, None]
    )
    expected = expected if bias is None else expected + bias
    for precision in compiled.PRECISIONS:
        packed = compiled.CompiledMatrix(weight, bias, precision, offsets)
        case = f"{(n_in, n_out, n_rows)}"
        _near(packed(rows), expected, precision, case, n_in)
        packed.columns(torch.randint(0, n_out, (3, 2)))


def model(rng: random.Random) -> None:
    """Run a random model in each precision, whole and in pieces."""
    import torch

    import gpt2
    from gpt2.inference import compiled

    head, n_head = rng.randint(1, 65), rng.choice([1, 2, 3, 5])
    n_embd = head * n_head
    config = gpt2.GPT2Config(
        n_vocab=rng.choice([1, 2, 15, 16, 17, 31, 50, 257]),
        n_ctx=rng.choice([1, 2, 15, 16, 17, 33, 70, 140]),
        n_embd=n_embd,
        n_head=n_head,
        n_layer=rng.choice([1, 2]),
        n_inner=rng.choice([None, 1, 7, n_embd, 5 * n_embd, 9 * n_embd + 3]),
        activation=rng.choice(["gelu_new", "gelu", "relu"]),
    )
    plain = gpt2.GPT2(config).eval()
    for parameter in plain.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    n_sequences, n_tokens = rng.randint(1, 9), rng.randint(1, config.n_ctx)
    tokens = torch.randint(config.n_vocab, (n_sequences, n_tokens))
    mask = torch.rand(n_sequences, n_tokens) < 0.7
    mask[:, rng.choice([0, -1])] = True
    expected = plain(tokens, mask)[mask]
    for precision in compiled.PRECISIONS:
        torch.set_num_threads(rng.choice([1, 2, 3]))
        packed = gpt2.for_inference(plain, precision)
        assert packed.compiled
        came = packed(tokens, mask)[mask]
        _near(came, expected, precision, f"{config}", n_embd)
        packed(tokens, last_only=True)
        cache, parts, done = packed.new_cache(n_sequences, n_tokens), [], 0
        while done < n_tokens:
            n_new = min(rng.choice([1, 2, 3, 8, 9, 17]), n_tokens - done)
            new = tokens[:, done : done + n_new]
            done += n_new
            parts.append(packed(new, mask[:, :done], cache=cache))
        came = torch.cat(parts, dim=1)[mask]
        _near(came, expected, precision, f"cached {config}", n_embd)
        cache = packed.new_cache(n_sequences, n_tokens)
        packed(tokens[:, : n_tokens - 1 or 1], cache=cache)
        chosen = torch.randint(n_sequences, (rng.randint(1, 5),))
        cache.select(chosen)
        if n_tokens > 1:
            packed(tokens[chosen, -1:], cache=cache)


def _near(
    came: object, expected: object, precision: str, case: str, n_in: int
) -> None:
    """Exit unless two tensors agree; few values average out few errors."""
    import torch

    assert isinstance(came, torch.Tensor)
    assert isinstance(expected, torch.Tensor)
    error = float((came - expected).abs().max() / expected.abs().max())
    limit = TOLERANCE[precision] * (4 if n_in < 8 else 1)
    if not error < limit:
        raise SystemExit(f"off by {error:.2g} in {precision}: {case}")


def main(arguments: Sequence[str]) -> None:
    """Run the cases in a process for each build, or as one of them."""
    seed, n_cases = (int(a) for a in [*arguments, "0", "100"][:2])
    if len(arguments) < 3:
        if (what := missing()) is not None:
            raise SystemExit(what)
        failed = False
        for build in BUILDS:
            sys.stderr.write(f"{build} ...\n")
            code, output = outcome(start(build, seed, n_cases))
            sys.stdout.write(output)
            failed = failed or code != 0
        raise SystemExit(failed)
    build = arguments[2]
    import torch

    torch.set_grad_enabled(False)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        prepare(build)
        for _ in range(n_cases):
            matrix(rng)
            model(rng)
    sys.stdout.write(f"{build}, seed {seed}: {n_cases} cases are clean\n")


if __name__ == "__main__":
    main(sys.argv[1:])
