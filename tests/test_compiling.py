"""The C routines are compiled once, and cached in a private folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gpt2.files.cache import NAME, cache_folder, check_private
from gpt2.inference import compiled, compiling, kernels

PROJECT = Path(__file__).parent.parent
needs_compiler = pytest.mark.skipif(
    compiling.find_compiler() is None, reason="there is no compiler"
)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package's cache folder on a machine that has compiled nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.library.cache_clear()
    yield tmp_path / NAME
    compiled.library.cache_clear()


def works() -> bool:
    """Load the library anew, and try it."""
    compiled.library.cache_clear()
    if compiled.library() is None:
        return False
    weight, rows = torch.randn(20, 5), torch.randn(3, 20)
    came = compiled.CompiledMatrix(weight, None, "float32")(rows)
    return torch.allclose(came, rows @ weight, atol=1e-5)


def suffixes(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


KEPT = {".so", ".sha256"}


@needs_compiler
def test_it_is_compiled_once_and_kept(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert works()
    assert suffixes(fresh) == KEPT
    if os.name == "posix":
        assert fresh.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(
        "subprocess.run", lambda *_, **__: pytest.fail("again")
    )
    assert works()


def put(content: bytes, library: Path) -> None:
    """As another file: the one that is there is in use by this process."""
    library.with_suffix(".new").write_bytes(content)
    library.with_suffix(".new").replace(library)


def cut_off(library: Path) -> None:
    put(library.read_bytes()[:3000], library)


def altered(library: Path) -> None:
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    put(bytes(content), library)


def without_digest(library: Path) -> None:
    library.with_suffix(".sha256").unlink()
    put(b"something else", library)


def linked(library: Path) -> None:
    elsewhere = library.parent.with_name("elsewhere.so")
    library.rename(elsewhere)
    library.symlink_to(elsewhere)


def open_to_all(library: Path) -> None:
    put(library.read_bytes(), library)
    library.chmod(0o666)


@needs_compiler
@pytest.mark.parametrize(
    "harm", [cut_off, altered, without_digest, linked, open_to_all]
)
def test_one_that_is_not_what_was_built_is_built_again(
    fresh: Path, harm: Callable[[Path], None]
) -> None:
    assert works()
    (library,) = fresh.glob("*.so")
    built = library.read_bytes()
    harm(library)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works()
    assert library.read_bytes() == built
    assert not library.is_symlink()
    assert library.stat().st_mode & 0o022 == 0


def link_of_another(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    folder.symlink_to(other)


def open_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def open_above(folder: Path) -> None:
    folder.parent.chmod(0o777)


def a_file(folder: Path) -> None:
    folder.write_text("a file is in the way")


@needs_compiler
@pytest.mark.parametrize(
    "trouble, said",
    [
        (link_of_another, "is a link or not a folder"),
        (open_folder, "other users may write in"),
        (open_above, "other users may write in"),
        (a_file, "exists"),
    ],
)
def test_where_others_could_write_nothing_is_kept_or_loaded(
    fresh: Path, trouble: Callable[[Path], None], said: str
) -> None:
    trouble(fresh)
    with pytest.warns(RuntimeWarning) as caught:
        assert works()
        compiled.library()
    (warning,) = caught  # once
    assert said.lower() in str(warning.message).lower()
    assert "compiled for this process alone" in str(warning.message)
    assert not list(fresh.parent.rglob("*.so"))


@needs_compiler
def test_the_command_line_says_so_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-m", "gpt2", "generate", "Ella", "-n", "1"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    *_, line = done.stderr.splitlines()  # after the progress, if slow
    assert line.startswith("gpt2: the compiled routines cannot be cached: ")


@needs_compiler
def test_a_folder_of_another_user_is_not_used(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert works()
    uid = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert works()


def test_what_others_may_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    check_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@needs_compiler
@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
@pytest.mark.parametrize("name", ["draft", "library"])
def test_whatever_has_its_name_goes(fresh: Path, kind: str, name: str) -> None:
    assert works()
    (library,) = fresh.glob("*.so")
    path = library if name == "library" else fresh / "draft"
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "file").touch()
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to("nowhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works()
    assert suffixes(fresh) == KEPT


@needs_compiler
def test_only_the_last_few_libraries_stay(fresh: Path) -> None:
    fresh.mkdir(mode=0o700)
    for i in range(20):
        for suffix in KEPT:
            path = fresh / f"compiled-{i:016x}{suffix}"
            path.touch()
            os.utime(path, (i, i))
    assert works()
    assert len(list(fresh.glob("*.so"))) == 9
    assert len(list(fresh.glob("*.sha256"))) == 9
    assert (fresh / f"compiled-{19:016x}.so").exists()


def test_a_relative_cache_home_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the XDG specification, and since anybody may own this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("here", ".", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / "home" / ".cache" / NAME
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(OSError, match="not an absolute path"):
        cache_folder()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_compiler_in_the_current_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cc", "gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".")
    assert shutil.which("cc") is not None
    assert compiling.find_compiler() is None


@needs_compiler
def test_a_kill_leaves_nothing_behind(fresh: Path, tmp_path: Path) -> None:
    """The compiler of the test kills who has called it, and leaves files."""
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\ntouch "$TMPDIR/temporary"\nkill -9 $PPID')
    compiler.chmod(0o755)
    path = f"{compiler.parent}:{os.environ['PATH']}"
    code = "from gpt2.inference import compiling; compiling.load()"
    killed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PATH": path},
        cwd=PROJECT,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (fresh / "draft" / "temporary").exists()
    assert works()
    assert suffixes(fresh) == KEPT


def test_the_process_keeps_its_arithmetic() -> None:
    """What is linked for speed may set tiny numbers to 0, everywhere."""
    code = (
        "from gpt2.inference import compiled\n"
        "compiled.library()\n"
        "assert 5e-324 > 0 and 5e-324 / 1 > 0, 'tiny numbers are gone'\n"
        "tiny = float.fromhex('0x1p-1070')\n"
        "assert tiny * 0.5 == float.fromhex('0x1p-1071')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_compiler_there_is_none(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled.library() is None
    assert not kernels.is_compiled.__wrapped__("int8")


@needs_compiler
def test_a_compiler_that_fails_is_named(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(broken))
    with pytest.warns(RuntimeWarning, match=r"broken cannot.*it is broken"):
        assert compiled.library() is None
    assert not list(fresh.iterdir())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"level": "1", "type": "Data", "size": "48K"}, 49152),
        ({"level": "1", "type": "Instruction", "size": "64K"}, 0),
        ({"level": "1", "type": "Data", "size": ""}, 0),
        ({"level": "1"}, 0),
    ],
)
def test_the_size_of_the_first_cache_is_read_if_it_is_known(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    cache = tmp_path / "index0"
    cache.mkdir()
    for name, text in files.items():
        (cache / name).write_text(text + "\n")
    assert compiling.l1_bytes(tmp_path) == expected
    assert compiling.l1_bytes(tmp_path / "missing") == 0
