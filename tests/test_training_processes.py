"""Training as processes: killed, out of disk, and several at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import gpt2
from gpt2.training import metrics
from gpt2.training.checkpoint import checkpoints, read_checkpoint

if not hasattr(os, "fork"):
    pytest.skip("this system cannot fork", allow_module_level=True)
from forking import Process, Server

pytestmark = pytest.mark.xdist_group("processes")

TEXT = "".join(
    f"{name} saw {n} {thing}s.\n"
    for name in ("Ann", "Bob", "Eve", "Tom")
    for n in range(2, 30)
    for thing in ("cat", "dog", "boat")
)
MODEL = ["--n-ctx=16", "--n-embd=16", "--n-head=2", "--n-layer=2"]
RUN = [
    *("--tokenizer=bytes", "--precision=float32", "--n-warmup=3"),
    *("--batch-size=8", "--evaluate-rows=8"),
]
Start = Callable[..., Process]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    """`start(name, *options)` starts a training run in a folder `name`."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    started: list[Process] = []

    def start(
        name: str, *options: str, loud: bool = False, **more: Any
    ) -> Process:
        process = server.start(
            *("train", tmp_path / name, "--data", text),
            *(*MODEL, *RUN, *([] if loud else ["--quiet"]), *options),
            output=outputs / f"{name}-{len(started)}",
            **more,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def wait_for(condition: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this never happens"
        time.sleep(0.0005)


def succeed(process: Process) -> None:
    code = process.wait()
    assert code == 0, process.err


def last_bytes(folder: Path) -> dict[str, bytes]:
    """The files of the last checkpoint and of the best model."""
    last = checkpoints(folder)[-1]
    return {
        "best": (folder / "model.safetensors").read_bytes(),
        **{
            name: (last / name).read_bytes()
            for name in ("model.safetensors", "optimizer.safetensors")
        },
    }


def record(folder: Path) -> list[dict[str, Any]]:
    steps = metrics.read(folder)[1:]
    for step in steps:
        del step["seconds"]
    return steps


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stages(folder: Path) -> list[Path]:
    """Checkpoints that a run is writing, or was writing when killed."""
    return list((folder / "checkpoints").glob(".step-*.saving"))


CONTENT = [
    *("checkpoints", "config.json", "data", "loss.png", "merges.txt"),
    *("metrics.jsonl", "model.safetensors", "tokenizer_config.json"),
    "vocab.json",
]


# One process.


def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    start: Start, tmp_path: Path
) -> None:
    """Killed in the middle of writing, and at random, again and again."""
    options = ["--n-steps=40", "--save-every=1", "--evaluate-every=7"]
    options += ["--dropout=0.1", "--n-accumulate=2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed(start("whole", *options))
    rng = random.Random(0)
    for kills in range(4):
        process = start(
            *("broken", *options, *(["--resume"] if kills else [])),
            signalled=(signal.SIGKILL, "training.json", 2),
        )
        assert process.wait() == -signal.SIGKILL, process.err
        assert stages(broken)
    kills = 4
    while True:
        begun = checkpoints(broken)[-1]
        process = start("broken", *options, "--resume")
        wait_for(
            lambda process=process, begun=begun: (
                checkpoints(broken)[-1] != begun or process.poll() is not None
            )
        )
        if kills < 8:
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
        if process.wait() == 0:
            break
        assert process.wait() == -signal.SIGKILL, process.err
        kills += 1
    assert kills >= 5
    assert last_bytes(broken) == last_bytes(whole)
    assert record(broken) == record(whole)
    assert [line["step"] for line in record(broken)] == list(range(1, 41))
    assert names(broken) == names(whole) == CONTENT
    assert names(tmp_path) == ["broken", "outputs", "text.txt", "whole"]


def test_killed_while_it_prepares_the_data_it_begins_anew(
    start: Start, tmp_path: Path
) -> None:
    options = ["--n-steps=2"]
    succeed(start("whole", *options))
    process = start(
        "broken", *options, signalled=(signal.SIGKILL, "recipe.json", 1)
    )
    assert process.wait() == -signal.SIGKILL, process.err
    place = tmp_path / "broken" / "data"
    assert (tmp_path / "broken" / ".data.saving").exists()
    assert not place.exists()
    succeed(start("broken", *options))
    assert last_bytes(tmp_path / "broken") == last_bytes(tmp_path / "whole")
    assert names(place) == names(tmp_path / "whole" / "data")


def test_out_of_disk_loses_nothing(start: Start, tmp_path: Path) -> None:
    options = ["--n-steps=12", "--save-every=4", "--evaluate-every=12"]
    folder = tmp_path / "full"
    succeed(start("whole", *options))
    size = (tmp_path / "whole" / "model.safetensors").stat().st_size
    process = start(
        "full", *options, signalled=(signal.SIGKILL, "training.json", 2)
    )
    assert process.wait() == -signal.SIGKILL, process.err
    kept = {p: p.read_bytes() for p in checkpoints(folder)[-1].iterdir()}
    process = start("full", *options, "--resume", limit=size - 1)
    assert process.wait() == 1
    assert "File too large" in process.err
    assert len(process.err.splitlines()) == 1
    assert {p: p.read_bytes() for p in kept} == kept
    assert stages(folder) == []
    assert ".running" not in names(folder)
    succeed(start("full", *options, "--resume"))
    assert last_bytes(folder) == last_bytes(tmp_path / "whole")
    assert record(folder) == record(tmp_path / "whole")


def test_no_room_for_the_data_leaves_none(
    start: Start, tmp_path: Path
) -> None:
    process = start("full", limit=5000)  # the tokens take 10,000
    assert process.wait() == 1
    assert "File too large" in process.err
    assert not (tmp_path / "full").exists() or names(tmp_path / "full") == []


def test_a_second_run_keeps_out(start: Start, tmp_path: Path) -> None:
    """Until the first has ended, and without changing anything."""
    folder = tmp_path / "one"
    first = start("one", "--n-steps=100000", "--save-every=5")
    wait_for(lambda: checkpoints(folder) or first.poll() is not None)
    second = start("one", "--n-steps=100000", "--save-every=5", "--resume")
    assert second.wait() == 2
    (message,) = second.err.splitlines()
    assert message.startswith(f"gpt2: {folder} is in use: another run")
    assert first.poll() is None
    first.kill()
    first.wait()
    assert ".running" in names(folder)  # the file, but no lock on it
    third = start("one", "--n-steps=100000", "--save-every=5", "--resume")
    begun = checkpoints(folder)[-1]
    wait_for(
        lambda: checkpoints(folder)[-1] > begun or third.poll() is not None
    )
    assert third.poll() is None, third.err


def test_a_second_run_keeps_out_from_the_beginning(
    start: Start, tmp_path: Path
) -> None:
    """Even before the first has prepared its data."""
    first = start(
        "one", "--n-steps=2", signalled=(signal.SIGSTOP, "recipe.json", 1)
    )
    # Made under the hold; the file `.running` is there before it is locked.
    wait_for(lambda: list((tmp_path / "one").glob(".data*/new")))
    second = start("one", "--n-steps=2", "--tokenizer=own")
    assert second.wait() == 2
    assert "is in use" in second.err
    assert first.poll() is None

    def has_ended() -> bool:
        if first.poll() is None:  # it may only now come to its stop
            os.kill(first.pid, signal.SIGCONT)
        return first.poll() is not None

    wait_for(has_ended)
    succeed(first)


def test_a_run_whose_folder_is_removed_ends(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    process = start("one", "--n-steps=100000", "--save-every=5")
    wait_for(lambda: checkpoints(folder) or process.poll() is not None)
    folder.rename(tmp_path / "moved")
    assert process.wait() == 1
    *_, message = process.err.splitlines()
    assert "Traceback" not in process.err
    assert f"{folder} was removed or replaced" in message
    assert not folder.exists()


# Several.


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def start_two(
    start: Start, name: str, *options: str, **more: Any
) -> list[Process]:
    """Start two processes as torchrun does."""
    port = free_port()
    return [
        start(
            name,
            *options,
            RANK=rank,
            LOCAL_RANK=rank,
            WORLD_SIZE=2,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            **more,
        )
        for rank in range(2)
    ]


def assert_close_weights(
    one: Path, other: Path, tolerance: float = 1e-5
) -> None:
    """Except for the keys' biases; see `test_training.assert_same_weights`."""
    tensors = load_file(other / "model.safetensors")
    for name, tensor in load_file(one / "model.safetensors").items():
        difference = (tensor - tensors[name]).abs()
        if name.endswith("c_attn.bias"):
            difference = difference.view(3, -1)[[0, 2]]
        assert difference.max() <= tolerance, name


def copy_of_the_first_half(folder: Path, copy: Path) -> None:
    """Copy a run without the last of its checkpoints."""
    shutil.copytree(folder, copy)
    shutil.rmtree(checkpoints(copy)[-1])


# Muon scales up the smallest directions of a gradient, in bfloat16, and with
# them the rounding errors.
@pytest.mark.parametrize(
    ("sharing", "optimizer", "tolerance"),
    [
        ("ddp", "adamw", 1e-5),
        ("ddp", "muon", 1e-3),
        ("fsdp", "adamw", 1e-5),
        ("fsdp", "muon", 1e-3),
    ],
)
def test_two_processes_do_what_one_does(
    start: Start,
    tmp_path: Path,
    sharing: str,
    optimizer: str,
    tolerance: float,
) -> None:
    """And each resumes what the other left."""
    options = ["--n-steps=8", "--save-every=4", "--evaluate-every=4"]
    options += [f"--sharing={sharing}", "--n-accumulate=2"]
    options += [f"--optimizer={optimizer}"]
    one, two, down, up = (tmp_path / n for n in ("one", "two", "down", "up"))
    succeed(start("one", *options))
    first, second = start_two(start, "two", *options, loud=True)
    succeed(first)
    succeed(second)
    assert "[step 4]" in first.err
    assert "[step 8]" in first.err
    assert "[step" not in second.err
    assert (second.out, names(two)) == ("", CONTENT)
    copy_of_the_first_half(two, down)
    copy_of_the_first_half(one, up)
    succeed(start("down", *options, "--resume"))
    for process in start_two(start, "up", *options, "--resume"):
        succeed(process)
    for folder in (two, down, up):
        assert_close_weights(one, folder, tolerance)
        steps = zip(record(one), record(folder), strict=True)
        for expected, came in steps:
            assert came == pytest.approx(expected, abs=tolerance)
    assert len(record(one)) == 8


def test_two_processes_drop_different_numbers(
    start: Start, tmp_path: Path
) -> None:
    """Otherwise, equal rows would give both the same loss."""
    (tmp_path / "one.txt").write_text("0123456789abcde")
    options = ["--data", str(tmp_path / "one.txt"), "--held-out=0"]
    options += ["--n-steps=1", "--dropout=0.5", "--batch-size=2"]
    for process in start_two(start, "two", *options):
        succeed(process)
    succeed(start("one", *options, "--batch-size=1"))
    (two,), (one,) = record(tmp_path / "two"), record(tmp_path / "one")
    assert one["loss"] != pytest.approx(two["loss"], abs=1e-4)


@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_dies_the_other_says_so(
    start: Start, tmp_path: Path, sharing: str, killed: int
) -> None:
    options = ["--n-steps=100000", "--save-every=2", f"--sharing={sharing}"]
    folder = tmp_path / "two"
    both = start_two(start, "two", *options)
    wait_for(lambda: checkpoints(folder) or both[0].poll() is not None)
    both[killed].kill()
    other = both[1 - killed]
    assert other.wait() == 1
    *_, message = other.err.splitlines()
    assert message.startswith(f"gpt2: process {1 - killed} stops after step ")
    assert "seems to be lost" in message
    last = checkpoints(folder)[-1]
    if killed == 1:  # otherwise, it may have written another one
        assert f"the last checkpoint is {last}" in message
    assert read_checkpoint(folder).progress.step % 2 == 0
    assert gpt2.load_model(last).config.n_embd == 16


@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_stop_at_a_loss_that_is_not_a_number(
    start: Start, sharing: str
) -> None:
    options = ["--learning-rate=1e30", f"--sharing={sharing}"]
    for process in start_two(start, "two", *options):
        assert process.wait() == 1
        *_, message = process.err.splitlines()
        assert "step 2 " in message
        assert "the output of h.0." in message
        assert "no checkpoint yet" in message


def test_two_processes_do_not_wait_for_data_that_never_come(
    start: Start,
) -> None:
    first, second = start_two(start, "two", "--data", "nowhere.txt")
    assert first.wait() == 1
    assert "No such file" in first.err
    assert second.wait() == 1
    assert "Traceback" not in second.err


def test_two_processes_keep_out_two_others(
    start: Start, tmp_path: Path
) -> None:
    options = ["--n-steps=100000", "--save-every=5"]
    folder = tmp_path / "two"
    both = start_two(start, "two", *options)
    wait_for(lambda: checkpoints(folder) or both[0].poll() is not None)
    first, second = start_two(start, "two", *options, "--resume")
    assert first.wait() == 2
    assert "is in use" in first.err
    assert second.wait() == 1
    assert "Traceback" not in second.err
    assert [process.poll() for process in both] == [None, None]


def workers_of(pid: int) -> dict[str, int]:
    """The processes that torchrun started, by rank."""
    found = {}
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    for child in text.split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        for variable in variables:
            if variable.startswith(b"RANK="):
                found[variable[5:].decode()] = int(child)
    return found


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="no list of child processes"
)
def test_torchrun(tmp_path: Path) -> None:
    """The real one, with one of its processes killed."""
    (tmp_path / "text.txt").write_text(TEXT)
    folder, errors = tmp_path / "run", tmp_path / "errors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "gpt2", "train", str(folder)]
    command += ["--data", str(tmp_path / "text.txt"), *MODEL, *RUN]
    command += ["--quiet", "--n-steps=100000", "--save-every=5"]
    with errors.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=file,
        )
    try:
        wait_for(lambda: checkpoints(folder) or process.poll() is not None)
        workers = workers_of(process.pid)
        assert set(workers) == {"0", "1"}
        os.kill(workers["1"], signal.SIGKILL)
        assert process.wait(240) == 1
    finally:
        process.terminate()  # torchrun passes it on to its workers
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    said = errors.read_text()
    assert "gpt2: process 0 stops after step" in said
    assert f"the last checkpoint is {checkpoints(folder)[-1]}" in said
    assert read_checkpoint(folder).progress.step % 5 == 0
