"""Compile `compiled.c` for this processor, and load the library.

A loaded library can run any code. So it is cached in a folder that no other
user can write to, next to its SHA-256, and loaded only if the two match. Where
there is no such folder, each process compiles its own.
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
from gpt2.progress import task

SOURCE = Path(__file__).with_name("compiled.c")
# Sums may be reordered. `-ffast-math` would allow that too, but a library that
# is linked with it flushes denormal numbers to 0 in the whole process.
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
    *("-ffinite-math-only", "-fno-math-errno"),
    "-fno-strict-aliasing",  # a word of 32 bits holds several values
)
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_OTHERS = 8
"""How many older libraries to keep."""
_SECONDS = 60
"""How long to wait for a compiler, or for another process that compiles."""


def load() -> ctypes.CDLL | None:
    """Load the library, compiled if need be.

    Returns:
        The library, or None where there is no compiler or it fails. A failure
        is reported in a warning, and so is a cache folder that is unusable.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return _load_cached(compiler)
    except OSError as error:
        problem = f"the compiled routines cannot be cached: {error}"
    except subprocess.SubprocessError as error:
        warnings.warn(
            f"{compiler} cannot compile {SOURCE.name} "
            f"({_reason(error)}); PyTorch's slower routines are used instead",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gpt2-") as folder,
            task("Compiling the C code for this process"),
        ):
            found = ctypes.CDLL(str(_compile(compiler, Path(folder))))
    except (OSError, subprocess.SubprocessError) as error:
        outcome = f"nor used ({_reason(error)}); PyTorch's slower ones are"
        found = None
    else:
        outcome = "they were compiled for this process alone"
    warnings.warn(f"{problem}; {outcome}", RuntimeWarning, stacklevel=2)
    return found


def find_compiler() -> str | None:
    """Return the absolute path of a C compiler, if there is one."""
    if os.name != "posix":
        return None
    for name in ("cc", "gcc"):
        found = shutil.which(name)
        # A relative path would be whatever is in the current folder.
        if found is not None and Path(found).is_absolute():
            return found
    return None


def _load_cached(compiler: str) -> ctypes.CDLL:
    """Load the library from the user's cache, compiled if need be."""
    folder = cache_folder()
    library = folder / f"compiled-{_key(compiler)}.so"
    draft = folder / "draft"  # a killed process may have left one
    if os.path.lexists(draft) or not _is_intact(library):
        with locked(folder / "compiling.lock", _SECONDS):
            _remove(draft)
            try:
                # Another process may have compiled it meanwhile.
                if not _is_intact(library):
                    _remove(library)
                    with task("Compiling the C code, once"):
                        _store(_compile(compiler, draft), library)
            finally:
                _remove(draft)
    return ctypes.CDLL(str(library))


def _is_intact(library: Path) -> bool:
    """Return whether a library exists and matches the SHA-256 next to it."""
    try:
        stored = read_private(_digest_of(library)).decode(errors="replace")
        return stored == hashlib.sha256(read_private(library)).hexdigest()
    except OSError:
        return False


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _store(made: Path, library: Path) -> None:
    """Move a library into the cache and write its SHA-256 next to it.

    Of the libraries for other sources and processors, keep the newest few.
    """
    others = sorted(
        library.parent.glob("compiled-*.so"),
        key=lambda path: path.lstat().st_mtime,
    )
    for old in others[: -_OTHERS or None]:
        _remove(old)
        _remove(_digest_of(old))
    digest = made.with_suffix(".sha256")
    digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
    for path, place in ((digest, _digest_of(library)), (made, library)):
        path.chmod(0o600)
        path.replace(place)


def _digest_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _compile(compiler: str, folder: Path) -> Path:
    """Compile into a folder, created if missing; return the library's path."""
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder.absolute() / "compiled.so"
    flags = (*FLAGS, f"-DL1_BYTES={l1_bytes()}")
    command = [compiler, *flags, str(SOURCE.absolute()), "-o", str(made)]
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
    """Hash all that a library depends on."""
    machine = (platform.machine(), _processor(), l1_bytes())
    facts = (compiler, *FLAGS, *machine)
    key = hashlib.sha256(SOURCE.read_bytes() + repr(facts).encode())
    return key.hexdigest()[:16]


def _processor() -> str:
    """List the processor's features: several machines may share a home."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [x for x in lines if x.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


def l1_bytes(caches: Path = CACHES) -> int:
    """Return the size of a core's L1 data cache, or 0 if it is unknown."""
    for index in sorted(caches.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if (level, kind, size[-1:]) == ("1", "Data", "K"):
            return 1024 * int(size[:-1])  # Linux writes it so
    return 0


def _reason(error: Exception) -> str:
    """Return the first line of what the compiler or the system reported."""
    said = getattr(error, "stderr", None) or str(error)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return (text.strip().splitlines() or [type(error).__name__])[0]
