"""Compile `compiled.c` for this processor, and load what was compiled.

What is loaded is run. So it is kept in a folder that no other user can change,
with its SHA-256 beside it, and loaded only if that is still its own. Where
there is no such folder, it is compiled anew for each process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

from gpt2.files.cache import cache_folder, read_private
from gpt2.files.lock import locked

SOURCE = Path(__file__).with_name("compiled.c")
# Sums may be taken in another order. Not by `-ffast-math`: what is linked with
# it sets tiny numbers to 0, in all of the process.
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
    *("-ffinite-math-only", "-fno-math-errno"),
    "-fno-strict-aliasing",  # a word of 32 bits is also two or four numbers
)
_OTHERS = 8
"""How many libraries stay beside the one that is made."""
_SECONDS = 60
"""The most that a compiler may take, or another process that compiles."""


def load() -> ctypes.CDLL | None:
    """Return the compiled library, or None where there is no compiler.

    Where something else is in the way, a warning says what.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return _load_kept(compiler)
    except OSError as error:
        where = f"the compiled routines cannot be kept: {error}"
    except subprocess.SubprocessError as error:
        warnings.warn(
            f"{compiler} cannot compile {SOURCE.name} "
            f"({_reason(error)}); PyTorch's routines are used, which are "
            f"slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="gpt2-") as folder:
            found = ctypes.CDLL(str(_compile(compiler, Path(folder))))
    except (OSError, subprocess.SubprocessError) as error:
        then = f"nor used ({_reason(error)}); PyTorch's, slower, are"
        found = None
    else:
        then = "they were compiled for this process alone"
    warnings.warn(f"{where}; {then}", RuntimeWarning, stacklevel=2)
    return found


def find_compiler() -> str | None:
    """Return the absolute path of a C compiler, if there is one."""
    if os.name != "posix":
        return None
    for name in ("cc", "gcc"):
        found = shutil.which(name)
        # A relative one would be whatever lies in the current folder.
        if found is not None and Path(found).is_absolute():
            return found
    return None


def _load_kept(compiler: str) -> ctypes.CDLL:
    """Load the library from the user's cache, compiled if need be."""
    folder = cache_folder()
    kept = folder / f"compiled-{_key(compiler)}.so"
    draft = folder / "draft"  # which a process that was killed may have left
    if os.path.lexists(draft) or not _is_whole(kept):
        with locked(folder / "compiling.lock", _SECONDS):
            _remove(draft)
            try:
                if not _is_whole(kept):  # nor has another process made it so
                    _remove(kept)
                    _keep(_compile(compiler, draft), kept)
            finally:
                _remove(draft)
    return ctypes.CDLL(str(kept))


def _is_whole(kept: Path) -> bool:
    """Tell whether a library is there and has the SHA-256 beside it."""
    try:
        stored = read_private(_digest_of(kept)).decode(errors="replace")
        return stored == hashlib.sha256(read_private(kept)).hexdigest()
    except OSError:
        return False


def _remove(path: Path) -> None:
    """Remove whatever has this name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _keep(made: Path, kept: Path) -> None:
    """Move a library to its place, and write down its SHA-256.

    Of those for other sources and processors, only the last few stay.
    """
    others = sorted(
        kept.parent.glob("compiled-*.so"),
        key=lambda path: path.lstat().st_mtime,
    )
    for old in others[: -_OTHERS or None]:
        _remove(old)
        _remove(_digest_of(old))
    digest = made.with_suffix(".sha256")
    digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
    for path, place in ((digest, _digest_of(kept)), (made, kept)):
        path.chmod(0o600)
        path.replace(place)


def _digest_of(kept: Path) -> Path:
    return kept.with_suffix(".sha256")


def _compile(compiler: str, folder: Path) -> Path:
    """Compile into a folder, made if need be, and return the library."""
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder.absolute() / "compiled.so"
    command = [compiler, *FLAGS, str(SOURCE.absolute()), "-o", str(made)]
    subprocess.run(
        [*command, "-lm"],
        check=True,
        capture_output=True,
        timeout=_SECONDS,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(made.parent)},
    )
    return made


def _key(compiler: str) -> str:
    """Return what is different where another library is needed."""
    facts = (compiler, *FLAGS, platform.machine(), _processor())
    key = hashlib.sha256(SOURCE.read_bytes() + repr(facts).encode())
    return key.hexdigest()[:16]


def _processor() -> str:
    """Describe what the processor can do: a home may be on several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [x for x in lines if x.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


def _reason(error: Exception) -> str:
    """Return the first line of what a compiler or the system says."""
    said = getattr(error, "stderr", None) or str(error)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return (text.strip().splitlines() or [type(error).__name__])[0]
