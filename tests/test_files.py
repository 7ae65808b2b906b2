"""Files are written atomically, whichever process is killed and when."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import gpt2
from gpt2.config import GPT2Config
from gpt2.data import DataError, read_tokens, write_tokens
from gpt2.files import exchanging, writing
from gpt2.files.checksums import SUMS, check_sums, write_sums
from gpt2.files.lock import InUseError, locked
from gpt2.files.whole import check_whole
from gpt2.files.writing import mend, replacing, write_file
from gpt2.model import GPT2
from gpt2.tokenizer import contents as reading_files
from gpt2.tokenizer.bpe import TokenizerError
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import inspecting, loading
from gpt2.weights.errors import CheckpointError

forks = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system cannot fork"
)
both_ways = pytest.mark.parametrize(
    "exchanges",
    [True, False],
    indirect=True,
    ids=["exchanging", "one by one"],
)

CHANGING = ("link", "mkdir", "rename", "replace", "rmdir", "unlink", "fsync")


class Counter:
    """Counts changes to the disk, and acts before the n-th one."""

    def __init__(self, n: int, act: Callable[[], None]) -> None:
        self.n, self.act, self.count = n, act, 0

    def watch(
        self, patch: pytest.MonkeyPatch, owner: Any = os, *names: str
    ) -> None:
        for name in names or CHANGING:
            patch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.n:
                self.act()
            return function(*arguments, **options)

        return call


def dies(n: int, action: Callable[[], Any]) -> bool:
    """Run an action in a process that dies before its n-th change."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            patch = pytest.MonkeyPatch()
            counter = Counter(n, lambda: os._exit(9))
            counter.watch(patch)
            counter.watch(patch, exchanging, "_swap")
            action()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses no written data; only a power failure does."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """The files, except what a killed save may leave."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".saving")
    }


@pytest.fixture
def exchanges(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> bool:
    """Whether folders are exchanged, or files are moved one by one."""
    if not request.param:
        monkeypatch.setattr(exchanging, "_swap", lambda one, other: False)
    elif not exchanging._swap(
        *(tmp_path_factory.mktemp("x") for _ in range(2))
    ):
        pytest.skip("folders cannot be exchanged here")
    return bool(request.param)


Saved = tuple[GPT2, Tokenizer]


@pytest.fixture(scope="module")
def two() -> tuple[Saved, Saved]:
    """Two models that have nothing in common."""
    torch.manual_seed(0)
    config = GPT2Config(n_vocab=270, n_ctx=8, n_embd=4, n_head=2, n_layer=1)
    other = GPT2Config(n_vocab=300, n_ctx=6, n_embd=6, n_head=3, n_layer=2)
    return (
        (GPT2(config).eval(), Tokenizer.train("the cat sat, the cat", 262)),
        (GPT2(other).eval(), Tokenizer.train("a dog ran, a dog ran", 264)),
    )


def loaded(folder: Path, two: tuple[Saved, Saved]) -> str:
    """Load a folder: it gives model A or B, or is refused by name."""
    try:
        model, tokenizer = gpt2.load(folder)
    except (CheckpointError, TokenizerError) as error:
        assert f"{folder} is half saved" in str(error)
        return "refused"
    for name, (saved, its) in zip("AB", two, strict=True):
        if model.config == saved.config:
            assert tokenizer.ranks == its.ranks
            for key, tensor in model.state_dict().items():
                assert torch.equal(tensor, saved.state_dict()[key])
            return name
    raise AssertionError("neither of the two")


# Killed processes.


@forks
@both_ways
def test_a_save_killed_at_any_moment_leaves_the_old_model_or_the_new(
    tmp_path: Path, two: tuple[Saved, Saved], exchanges: bool
) -> None:
    """Or the folder is refused by name, if files are moved one by one."""
    a, b = tmp_path / "a", tmp_path / "b"
    folder = tmp_path / "place" / "model"
    for place, pair in ((a, two[0]), (b, two[1])):
        gpt2.save(*pair, place)
        (place / "README.md").write_text("mine")
    clean = [contents(a), contents(b)]
    (a / "special_tokens_map.json").write_text("{}")
    outcomes = []
    for n in range(1, 200):
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(a, folder)
        died = dies(n, lambda: gpt2.save(*two[1], folder))
        outcomes.append(loaded(folder, two))
        # Other programs do not check for a half-saved folder, but the config
        # that they need is missing.
        if outcomes[-1] == "refused" and (folder / "config.json").exists():
            assert contents(folder) in [contents(a), contents(b)]
        if not died:
            break
        gpt2.save(*two[n % 2], folder)
        assert loaded(folder, two) == "AB"[n % 2]
        assert contents(folder) == clean[n % 2]
        assert names(folder.parent) == ["model"]
    assert len(outcomes) > 30
    assert contents(folder) == clean[1]
    stages = [k for k, _ in itertools.groupby(outcomes)]
    assert stages == (["A", "B"] if exchanges else ["A", "refused", "B"])


@forks
def test_a_new_folder_appears_atomically(
    tmp_path: Path, two: tuple[Saved, Saved]
) -> None:
    folder = tmp_path / "place" / "model"
    outcomes = []
    for n in range(1, 200):
        died = dies(n, lambda: gpt2.save(*two[1], folder))
        there = folder.exists()
        outcomes.append(loaded(folder, two) if there else "nothing")
        if not died:
            break
        gpt2.save(*two[1], folder)
        assert names(folder.parent) == ["model"]
        shutil.rmtree(folder.parent)
    assert [k for k, _ in itertools.groupby(outcomes)] == ["nothing", "B"]


@forks
def test_rewriting_a_corpus_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    texts = [[1, 2, 3, 0], [4, 5, 0]], [[6, 7, 0], [8, 9, 10, 11, 0]]
    old, new = ([0, *a, *b] for a, b in texts)
    outcomes = []
    for n in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / "c.bin"
        write_tokens(folder / "other.bin", texts[0], 17, 0)
        write_tokens(path, texts[0], 17, 0)
        died = dies(n, lambda path=path: write_tokens(path, texts[1], 17, 0))
        try:
            found = read_tokens(path).ids.tolist()
            outcomes.append({str(old): "old", str(new): "new"}[str(found)])
        except DataError as error:
            assert f"{path} is half saved" in str(error)
            outcomes.append("refused")
            assert read_tokens(folder / "other.bin").ids.tolist() == old
            if n % 2:  # the next save finishes it
                mend(folder)
                assert read_tokens(path).ids.tolist() == new
                assert len(names(folder)) == 6
        if not died:
            break
        write_tokens(path, texts[0], 17, 0)
        assert read_tokens(path).ids.tolist() == old
        assert len(names(folder)) == 6
    stages = [k for k, _ in itertools.groupby(outcomes)]
    assert stages == ["old", "refused", "new"]


# In one step.


def save(folder: Path, files: dict[str, str], **options: Any) -> None:
    with replacing(folder, **options) as stage:
        for name, text in files.items():
            (stage / name).write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {k: v.decode() for k, v in contents(folder).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "place" / "folder"
    save(folder, {"a": "1", "b": "2", "c": "3"})
    (folder / "mine").write_text("mine")
    return folder


def inodes(folder: Path) -> dict[str, int]:
    return {p.name: p.lstat().st_ino for p in (folder, *folder.iterdir())}


def test_equal_files_are_not_touched(folder: Path) -> None:
    before = inodes(folder)
    save(folder, {"a": "1", "b": "2", "c": "3"})
    assert inodes(folder) == before
    save(folder, {"a": "1", "b": "two", "c": "3"})
    assert texts(folder) == {"a": "1", "b": "two", "c": "3", "mine": "mine"}
    after = inodes(folder)
    assert after.pop("b") != before.pop("b")
    assert after == before  # the folder is the same, too
    assert names(folder.parent) == ["folder"]


@both_ways
def test_several_files_change_and_some_are_removed(
    folder: Path, exchanges: bool
) -> None:
    (folder / "link").symlink_to("mine")
    folder.chmod(0o750)
    before = inodes(folder)
    save(folder, {"a": "x", "b": "2", "d": "y"}, leaves={"c"}.__contains__)
    assert texts(folder) == {
        "a": "x",
        "b": "2",
        "d": "y",
        "mine": "mine",
        "link": "mine",
    }
    after = inodes(folder)
    for name in ("b", "mine", "link"):
        assert after[name] == before[name]
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "link").readlink() == Path("mine")
    assert names(folder.parent) == ["folder"]
    if not exchanges:
        assert after["folder"] == before["folder"]


def test_all_other_files_may_be_removed_but_no_folder(folder: Path) -> None:
    (folder / "inner").mkdir()
    save(folder, {"a": "1", "z": "9"}, leaves=lambda name: True)
    assert names(folder) == ["a", "inner", "z"]


def test_a_folder_in_use_is_not_exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that this process is in, or that has a sub-folder."""
    number = folder.stat().st_ino
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        save(Path(), {"a": "x", "b": "x"})
        assert names(Path()) == ["a", "b", "c", "mine"]
    (folder / "inner").mkdir()
    save(folder, {"a": "y", "b": "y"})
    assert folder.stat().st_ino == number
    assert (folder / "inner").is_dir()


def test_files_that_others_add_meanwhile_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = exchanging._swap

    def busy(one: Path, other: Path) -> bool:
        (folder / "new").write_text("of another program")
        (folder / "edited").write_text("mine, edited")
        (folder / "edited").replace(folder / "mine")
        return swap(one, other)

    monkeypatch.setattr(exchanging, "_swap", busy)
    save(folder, {"a": "x", "b": "x"})
    assert texts(folder) == {
        "a": "x",
        "b": "x",
        "c": "3",
        "mine": "mine, edited",
        "new": "of another program",
    }


def test_a_link_to_a_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    save(tmp_path / "link", {"a": "x", "b": "x"})
    assert (tmp_path / "link").is_symlink()
    assert texts(folder)["a"] == "x"


# Failures change nothing.


@both_ways
def test_a_failure_at_any_step_changes_nothing(
    folder: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it comes when all files are new, and the message says so."""

    def fail() -> None:
        raise OSError(errno.EIO, "the disk is on fire")

    new = {"a": "x", "b": "x", "d": "x", "mine": "mine"}
    outcomes = []
    for n in range(1, 200):
        before = texts(folder)
        counter = Counter(n, fail)
        outcome = "succeeded"
        with monkeypatch.context() as patch:
            counter.watch(patch)
            try:
                save(folder, {k: "x" for k in "abd"}, leaves="c".__contains__)
            except OSError as error:
                late = "the new files are in place" in str(error)
                outcome = "late" if late else "failed"
        check_whole(folder, ValueError)
        assert texts(folder) == (before if outcome == "failed" else new)
        outcomes.append(outcome)
        if counter.count < n:
            break
        shutil.rmtree(folder)
        save(folder, {"a": "1", "b": "2", "c": "3"})
        (folder / "mine").write_text("mine")
        assert names(folder.parent) == ["folder"]
    assert {"failed", "late", "succeeded"} == set(outcomes)


def test_a_failed_roll_back_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "_swap", lambda one, other: False)
    replace = Path.replace

    def stuck(path: Path, target: Path) -> Path:
        if path.name == "b":
            raise OSError(errno.EIO, "stuck")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stuck)
        with pytest.raises(
            OSError, match=r"half saved.*stuck.*nor moved back"
        ):
            save(folder, {"a": "x", "b": "x", "d": "x"})
    with pytest.raises(ValueError, match=f"{folder} is half saved"):
        check_whole(folder, ValueError)
    with pytest.raises(ValueError, match="half saved"):
        gpt2.load(folder)
    save(folder, {"e": "x"})
    check_whole(folder, ValueError)
    assert texts(folder) == {
        "a": "x",
        "b": "x",
        "c": "3",
        "d": "x",
        "e": "x",
        "mine": "mine",
    }


@pytest.mark.parametrize(
    "plan",
    [
        "",
        "[]",
        '{"out": []}',
        '{"out": ["../../mine"], "in": []}',
        '{"out": [], "in": [3]}',
    ],
)
def test_a_hostile_plan_is_not_followed(folder: Path, plan: str) -> None:
    marker = folder / ".half-saved"
    (marker / "old").mkdir(parents=True)
    (marker / "new").mkdir()
    (marker / "plan.json").write_text(plan)
    before = texts(folder)
    with pytest.raises(ValueError, match=r"half-saved.plan\.json"):
        save(folder, {"a": "x", "b": "x"})
    assert texts(folder) == before


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OSError, match="file"):
            save(place, {"a": "x"})
    (tmp_path / "folder" / "a" / "inner").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="folder/a"):
        save(tmp_path / "folder", {"a": "x", "b": "x"})
    assert names(tmp_path / "folder") == ["a"]
    assert (tmp_path / "file").read_text() == "mine"


def test_one_file(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "file", b"one")
    write_file(tmp_path / "new" / "file", b"two")
    assert contents(tmp_path / "new") == {"file": b"two"}
    assert names(tmp_path / "new") == ["file"]


@pytest.mark.parametrize("kind", ["link", "file", "somebody else's"])
def test_what_no_save_created_is_not_removed(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    """Nor are links followed."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("mine")
    if kind == "link":
        (folder / ".saving").symlink_to(other)
    elif kind == "file":
        (folder / ".saving").write_text("mine")
    else:
        (folder / ".saving").mkdir()
        (folder / ".saving" / "precious").write_text("mine")
    before = texts(folder)
    with pytest.raises(OSError, match=rf"{folder}/.saving (is not|holds)"):
        save(folder, {"a": "x", "b": "x"})
    assert texts(folder) == before
    assert names(other) == ["precious"]
    assert os.path.lexists(folder / ".saving")


def test_a_link_is_not_locked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (folder / ".saving.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"saving.lock is a link"):
        save(folder, {"a": "x"})
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_with_the_name_of_the_twin_stays(folder: Path) -> None:
    mine = folder.parent / ".folder.exchanging"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    save(folder, {"a": "x", "b": "x"})
    assert texts(folder)["a"] == "x"
    assert texts(mine) == {"precious": "mine"}


@pytest.mark.parametrize("link", [False, True])
def test_a_marker_without_a_plan_says_what_to_do(
    folder: Path, tmp_path: Path, link: bool
) -> None:
    marker = folder / ".half-saved"
    if link:
        marker.symlink_to(tmp_path / "nowhere")
    else:
        marker.mkdir()
    with pytest.raises(
        ValueError, match=rf"{marker} means that .* Look into it, .* remove it"
    ):
        save(folder, {"a": "x"})
    marker.unlink() if link else marker.rmdir()
    save(folder, {"a": "x"})
    assert texts(folder)["a"] == "x"


@both_ways
@pytest.mark.parametrize("letter", ["n", "é"])
def test_the_longest_name(
    tmp_path: Path, letter: str, exchanges: bool
) -> None:
    folder = tmp_path / (letter * (255 // len(letter.encode())))
    for text in ("1", "2"):
        save(folder, {"a": text, "b": text})
        write_file(folder / folder.name, text.encode())
        assert texts(folder) == {"a": text, "b": text, folder.name: text}
        assert names(tmp_path) == [folder.name]
    (folder / ".saving.lock").touch()
    mend(folder)
    assert names(folder) == ["a", "b", folder.name]


@pytest.mark.parametrize(
    "what", ["mkdir", "open", "fsync", "FileLock.acquire"]
)
@pytest.mark.parametrize("new", [False, True])
def test_write_errors_name_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, new: bool
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = folder.parent / "new" if new else folder
    where = {"FileLock.acquire": (FileLock, "acquire")}.get(what, (os, what))
    with monkeypatch.context() as patch:
        if what == "open":
            patch.setattr(Path, "write_text", full)
        else:
            patch.setattr(*where, full)
        with pytest.raises(
            OSError, match=f"{place} cannot be written: No space left on"
        ) as caught:
            save(place, {"a": "x"})
    assert caught.value.errno == errno.ENOSPC
    assert texts(folder)["a"] == "1"


def test_read_errors_meanwhile_are_not_write_errors(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(folder):
        (tmp_path / "missing").read_text()
    assert caught.value.filename == str(tmp_path / "missing")


# Several processes.


@forks
def test_the_stage_of_a_running_save_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with replacing(folder) as stage:
            (stage / "a").write_text("of the first")
            os.write(here[1], b"!")
            os.read(there[0], 1)
        os._exit(0)
    os.read(here[0], 1)
    monkeypatch.setattr(writing, "_PATIENCE", 0.01)
    with pytest.raises(InUseError, match=f"{folder} is being written by"):
        save(folder, {"a": "of the second"})
    save(folder, {"loss.png": "another thing"}, name="loss.png")
    os.write(there[1], b"!")
    assert os.waitpid(pid, 0)[1] == 0
    assert texts(folder)["a"] == "of the first"
    save(folder, {"a": "of the second"})
    assert texts(folder)["a"] == "of the second"
    assert names(folder) == ["a", "b", "c", "loss.png", "mine"]


@forks
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    pid = os.fork()
    if pid == 0:
        with locked(lock):
            os._exit(9)
    os.waitpid(pid, 0)
    assert lock.exists()
    with locked(lock):
        with pytest.raises(InUseError, match="lock"), locked(lock):
            raise AssertionError
        assert lock.exists()
    assert names(tmp_path) == []


def test_another_lock_with_the_same_name_is_left_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with locked(folder / "lock"):
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / "lock").write_text("of another")
    assert names(folder) == ["lock"]


def test_saving_works_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", none_here)
    save(tmp_path / "new", {"a": "1"})
    save(tmp_path / "new", {"a": "2"})
    assert contents(tmp_path / "new") == {"a": b"2"}


# Readers.


@both_ways
@pytest.mark.parametrize(
    "at", ["open_weights", "read_config", "read_tokenizer"]
)
def test_a_save_while_loading_is_not_mixed(
    tmp_path: Path,
    two: tuple[Saved, Saved],
    exchanges: bool,
    at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint is read again, and refused if it changes again."""
    folder = tmp_path / "model"
    reading = getattr(loading, at)
    once = True
    others = itertools.cycle([two[1], two[0]])

    def busy(*arguments: Any) -> Any:
        if at == "open_weights":  # between the header and the numbers
            weights = reading(*arguments)
        if not (once and calls):
            gpt2.save(*next(others), folder)
        calls.append(at)
        return weights if at == "open_weights" else reading(*arguments)

    gpt2.save(*two[0], folder)
    monkeypatch.setattr(loading, at, busy)
    calls: list[str] = []
    assert loaded(folder, two) == "B"
    assert len(calls) == 2
    once = False
    for load in (gpt2.load, gpt2.load_model):
        if load is gpt2.load or at != "read_tokenizer":
            with pytest.raises(
                CheckpointError,
                match=f"{folder} was saved to while it was read",
            ):
                load(folder)


@both_ways
def test_a_save_while_inspecting_is_not_mixed(
    tmp_path: Path,
    two: tuple[Saved, Saved],
    exchanges: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The config and the weights are of the same model, or are refused."""
    folder = tmp_path / "model"
    gpt2.save(*two[0], folder)
    read_config = inspecting.read_config
    coming = iter([two[1]])

    def busy(*arguments: Any) -> Any:
        for pair in coming:
            gpt2.save(*pair, folder)
        return read_config(*arguments)

    monkeypatch.setattr(inspecting, "read_config", busy)
    assert gpt2.inspect(folder).config == two[1][0].config
    coming = itertools.cycle([two[0], two[1]])

    def always(*arguments: Any) -> Any:
        gpt2.save(*next(coming), folder)
        return read_config(*arguments)

    monkeypatch.setattr(inspecting, "read_config", always)
    with pytest.raises(CheckpointError, match=f"{folder} was saved to while"):
        gpt2.inspect(folder)


@both_ways
def test_a_save_while_loading_a_tokenizer_is_not_mixed(
    tmp_path: Path,
    two: tuple[Saved, Saved],
    exchanges: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = (tokenizer for _, tokenizer in two)
    one.save(tmp_path / "t")
    read_merges = reading_files._read_merges
    coming = iter([other])

    def busy(path: Path) -> Any:
        for tokenizer in coming:
            tokenizer.save(tmp_path / "t")
        return read_merges(path)

    monkeypatch.setattr(reading_files, "_read_merges", busy)
    assert Tokenizer.load(tmp_path / "t").ranks == other.ranks
    others = itertools.cycle([one, other])

    def always(path: Path) -> Any:
        next(others).save(tmp_path / "t")
        return read_merges(path)

    monkeypatch.setattr(reading_files, "_read_merges", always)
    with pytest.raises(TokenizerError, match="was saved to while it was read"):
        Tokenizer.load(tmp_path / "t")


def test_a_log_beside_a_model_may_grow_while_loading(
    tmp_path: Path, two: tuple[Saved, Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    gpt2.save(*two[0], folder)
    read_config, calls = loading.read_config, []

    def busy(*arguments: Any) -> Any:
        calls.append(1)
        (folder / f"{len(calls)}.log").write_text("a line")
        return read_config(*arguments)

    monkeypatch.setattr(loading, "read_config", busy)
    assert loaded(folder, two) == "A"
    assert len(calls) == 1


# Checksums.


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    folder = tmp_path / "summed"
    folder.mkdir()
    (folder / "a").write_text("one")
    (folder / "b").write_text("two")
    write_sums(folder)
    return folder


def test_checksums_are_those_of_sha256sum(summed: Path) -> None:
    check_sums(summed, ["a", "b", "c"], ValueError)
    assert (summed / SUMS).read_text() == (
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a\n"
        "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  b\n"
    )
    (summed / "z").write_text("of no account")
    check_sums(summed, ["a", "b", "c"], ValueError)
    (summed / "c").write_text("should have one")
    with pytest.raises(ValueError, match="SHA256SUMS has no line for c"):
        check_sums(summed, ["a", "b", "c"], ValueError)


def test_a_flipped_bit_is_caught_in_any_byte(summed: Path) -> None:
    for name in ("a", "b", SUMS):
        path = summed / name
        before = path.read_bytes()
        for position in range(len(before)):
            data = bytearray(before)
            data[position] ^= 1 << position % 8
            path.write_bytes(data)
            with pytest.raises(ValueError, match=rf"summed.*{name}"):
                check_sums(summed, ["a", "b"], ValueError)
        path.write_bytes(before)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "\n",
        "x  a\n",
        f"{'0' * 64}  ../a\n",
        f"{'0' * 64}  a\n" * 2,
        f"{'0' * 63}  a\n",
        f"{'0' * 64} a",
        "x" * 1_000_000,
    ],
    ids=range(9),
)
def test_odd_checksums_are_refused(summed: Path, text: str | None) -> None:
    (summed / SUMS).unlink()
    if text is not None:
        (summed / SUMS).write_text(text)
    with pytest.raises(ValueError, match="SHA256SUMS"):
        check_sums(summed, ["a"], ValueError)


def test_checksums_that_are_missing_can_be_written(summed: Path) -> None:
    """A run of an older version has none."""
    (summed / SUMS).unlink()
    with pytest.raises(
        ValueError, match=r"has no SHA256SUMS: .* older.*`sha256sum \* >"
    ):
        check_sums(summed, ["a"], ValueError)
