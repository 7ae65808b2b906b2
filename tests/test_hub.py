"""Fetching checkpoints from a small local hub.

A server in this process answers like the real hub, and records the requests.
The client library reads its settings on import, so each test runs it in a new
process, with its own cache.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialize

import gpt2
from gpt2.config import GPT2Config
from gpt2.model import GPT2
from gpt2.tokenizer.bpe import END_OF_TEXT, TokenizerError, spell
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights import digests
from gpt2.weights.errors import CheckpointError
from gpt2.weights.pins import HUB_PRESETS, Pin, check_pinned

PROJECT = Path(gpt2.__file__).parent.parent
COMMIT = "c0ffee" + 34 * "0"
MODEL, INDEX, BIN = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)

# --- the hub ---


class Hub(http.server.ThreadingHTTPServer):
    """Repositories in memory, served like those of the Hugging Face hub."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.out_of_order: set[str] = set()
        self.kinds: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.n_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def forget(self) -> None:
        """Reset the counts."""
        self.requests.clear()
        self.n_bytes = 0

    def fetched(self) -> list[str]:
        """The files that were downloaded, in order."""
        return [
            path.split("/")[-1]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        ]


class Answer(http.server.BaseHTTPRequestHandler):
    """The handler of a request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.server.requests.append((self.command, self.path))
        parts = self.path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 6:
            _, _, owner, name, _, revision = parts
            file = None
        elif len(parts) >= 5 and parts[2] == "resolve":
            owner, name, _, revision, file = *parts[:4], "/".join(parts[4:])
        else:
            return self.send(404, b"")
        repo = f"{owner}/{name}"
        files = self.server.repos.get(repo)
        if files is None:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if repo in self.server.gated:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        if repo in self.server.out_of_order:
            return self.send(500, b"")
        if revision != "main" and len(revision) != 40:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = COMMIT if revision == "main" else revision
        headers = {"X-Repo-Commit": commit}
        if file is None:
            siblings = [{"rfilename": file} for file in files]
            info = {"id": repo, "sha": commit, "siblings": siblings}
            if repo in self.server.kinds:
                info["config"] = {"model_type": self.server.kinds[repo]}
            return self.send(200, json.dumps(info).encode(), headers)
        if file not in files:
            headers["X-Error-Code"] = "EntryNotFound"
            return self.send(404, b"", headers)
        contents = files[file]
        headers["ETag"] = f'"{hashlib.sha256(contents).hexdigest()}"'
        headers["Accept-Ranges"] = "bytes"
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            begin, end = int(first), int(last or len(contents) - 1)
            end = min(end, len(contents) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(contents)}"
            return self.send(206, contents[begin : end + 1], headers)
        return self.send(200, contents, headers)

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.server.n_bytes += len(body)


# --- its repositories ---


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model() -> GPT2:
    torch.manual_seed(3)
    return GPT2(
        GPT2Config(n_vocab=257, n_ctx=8, n_embd=6, n_head=2, n_layer=2)
    )


@pytest.fixture(scope="module")
def whole(
    model: GPT2, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """A repository's files, including some that are not needed."""
    folder = tmp_path_factory.mktemp("whole")
    gpt2.save(model, Tokenizer.bytes_only(), folder)
    return files_of(folder) | {
        BIN: b"older",
        "tf_model.h5": b"another library's",
        "README.md": b"a card",
    }


@pytest.fixture(scope="module")
def sharded(model: GPT2, whole: dict[str, bytes]) -> dict[str, bytes]:
    """The same tensors in three files, without a tokenizer."""
    tensors = list(model.state_dict().items())
    parts = {
        f"model-{i + 1:05d}-of-00003.safetensors": dict(tensors[i::3])
        for i in range(3)
    }
    weight_map = {name: file for file, part in parts.items() for name in part}
    return {
        "config.json": whole["config.json"],
        INDEX: json.dumps({"weight_map": weight_map}).encode(),
        **{file: serialize(part) for file, part in parts.items()},
    }


@pytest.fixture(scope="module")
def pickled(
    model: GPT2, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("pickled")
    gpt2.save(model, None, folder)
    (folder / MODEL).unlink()
    torch.save(model.state_dict(), folder / BIN)
    return files_of(folder)


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


@pytest.fixture
def hub(
    server: Hub,
    whole: dict[str, bytes],
    sharded: dict[str, bytes],
    pickled: dict[str, bytes],
) -> Hub:
    server.repos = {
        "someone/whole": dict(whole),
        "someone/sharded": dict(sharded),
        "someone/pickled": dict(pickled),
    }
    server.gated.clear()
    server.out_of_order.clear()
    server.kinds.clear()
    server.forget()
    return server


# --- the client ---

CLIENT = """
import hashlib, json, sys
from pathlib import Path
from gpt2.weights import hub, inspecting, loading, locating
from gpt2.weights.errors import CheckpointError
from gpt2.weights.pins import HUB_PRESETS, Pin

def unread(file, name):
    raise AssertionError("a file was read again")

for argument in sys.argv[2:]:
    action, *rest = argument.split()
    try:
        if action == "locate":
            found = str(locating.locate(rest[0]).weights)
        elif action == "fetch":
            pin = Pin(rest[0], rest[1], json.loads(rest[2]))
            found = str(hub.fetch(pin))
        elif action == "pin":  # make `gpt2` a small model
            HUB_PRESETS["gpt2"] = Pin(rest[0], rest[1], json.loads(rest[2]))
            found = None
        elif action == "unread":  # from now on
            hashlib.file_digest = unread
            found = None
        elif action == "inspect":
            seen = inspecting.inspect(rest[0])
            sizes = [info.n_bytes for info in seen.infos.values()]
            found = [seen.file, seen.format, len(seen.names), sum(sizes)]
        elif action == "load":
            import torch
            model = loading.load_model(rest[0])
            found = model(torch.arange(8)[None])[0].tolist()
        elif action == "patience":
            hub._PATIENCE = float(rest[0])
            found = None
    except CheckpointError as error:
        found = {"error": str(error)}
    with Path(sys.argv[1]).open("a") as file:
        file.write(json.dumps(found) + "\\n")
"""


def environment(url: str, home: Path, **settings: str) -> dict[str, str]:
    """The variables that a process needs, and none that redirect it."""
    needed = {"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP"}
    return {
        **{name: os.environ[name] for name in needed & os.environ.keys()},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PROJECT),
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "XDG_CACHE_HOME": str(home.parent / "own"),
        **settings,
    }


class Client:
    """Runs the client library in processes that share a cache."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.home = folder / "home"

    @property
    def blobs(self) -> list[bytes]:
        """The contents of the files in the cache."""
        paths = self.home.glob("hub/models--*/blobs/*")
        return [path.read_bytes() for path in paths]

    def command(self, *actions: str) -> list[str]:
        self.output = self.folder / "output"
        self.output.unlink(missing_ok=True)
        return [sys.executable, "-c", CLIENT, str(self.output), *actions]

    def results(self) -> list[Any]:
        return [json.loads(line) for line in self.output.open()]

    def run(self, *actions: str, **settings: str) -> list[Any]:
        """Run actions in order, and return the result of each."""
        done = subprocess.run(
            self.command(*actions),
            env=environment(self.url, self.home, **settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return self.results()


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub.url, tmp_path)


def message(result: Any) -> str:
    """The error message, which has one line."""
    assert isinstance(result, dict), result
    text = str(result["error"])
    assert "\n" not in text
    return text


# --- fetching ---


def test_fetches_once(hub: Hub, client: Client) -> None:
    [found] = client.run("locate someone/whole")
    assert Path(found).name == MODEL
    folder = Path(found).parent
    assert hub.fetched() == [
        *("vocab.json", "merges.txt", "tokenizer_config.json"),
        *(MODEL, "config.json"),
    ]
    files = hub.repos["someone/whole"]
    assert files_of(folder) == {name: files[name] for name in hub.fetched()}
    # From now on no request is sent, with or without a network.
    hub.forget()
    assert (
        client.run("locate someone/whole", "inspect someone/whole")[0] == found
    )
    client.url = "http://127.0.0.1:1"
    assert client.run("locate someone/whole", HF_HUB_OFFLINE="1") == [found]
    assert hub.requests == []


def test_loads_what_it_fetches(hub: Hub, client: Client, model: GPT2) -> None:
    """In every format that a repository may have."""
    hub.repos["openai-community/gpt2-medium"] = hub.repos["someone/whole"]
    *found, medium = client.run(
        "load someone/whole",
        "load someone/sharded",
        "load someone/pickled",
        "load gpt2-medium",
    )
    with torch.no_grad():
        expected = model.eval()(torch.arange(8)[None])[0]
    for logits in found:
        torch.testing.assert_close(torch.tensor(logits), expected)
    assert "config.json has n_vocab=257, and gpt2-medium was published" in (
        message(medium)
    )


def test_an_incomplete_copy_is_completed(hub: Hub, client: Client) -> None:
    """The config and some files are in the cache, and one is not."""
    files = hub.repos["someone/sharded"]
    shards = sorted(name for name in files if name.startswith("model-"))
    assert len(shards) == 3
    late = files.pop(shards[-1])
    [refused] = client.run("locate someone/sharded")
    assert message(refused).startswith("someone/sharded on the hub lacks a")
    files[shards[-1]] = late
    [seen] = client.run("inspect someone/sharded")  # caches the config
    assert seen[0] == f"someone/sharded/{INDEX}"
    hub.forget()
    [found] = client.run("locate someone/sharded")
    assert hub.fetched() == [shards[-1]]
    assert Path(found).name == INDEX
    assert set(files_of(Path(found).parent)) == {INDEX, "config.json", *shards}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_shows_a_progress_bar(client: Client) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(
        theirs, (24, 79)
    )  # a terminal without a width shows no bar
    process = subprocess.Popen(
        client.command("locate someone/whole"),
        env=environment(client.url, client.home),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1024):
            shown += piece
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert printed == b""
    assert f"{MODEL}: 100%".encode() in shown


# --- pinned files ---


def test_pinned_content(hub: Hub, client: Client) -> None:
    """A file that differs from the published one is refused and removed."""
    good = hub.repos["someone/whole"][MODEL]
    sha256 = hashlib.sha256(good).hexdigest()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    hub.repos["someone/whole"][MODEL] = bad
    pin = f"fetch someone/whole {COMMIT} {one_word({MODEL: sha256})}"
    # The second time, it is not in the cache.
    for result in client.run(pin, pin):
        text = message(result)
        assert f"{MODEL} has SHA-256 {hashlib.sha256(bad).hexdigest()}" in text
        assert sha256 in text
    assert hub.fetched().count(MODEL) == 2
    assert bad not in client.blobs
    assert MODEL not in {path.name for path in client.home.rglob("*")}
    hub.repos["someone/whole"][MODEL] = good
    [found] = client.run(pin)
    assert (Path(found) / MODEL).read_bytes() == good


def test_preset_is_one_revision_of_known_content(
    hub: Hub, client: Client
) -> None:
    """Another tokenizer is refused, and so are other weights."""
    pin = HUB_PRESETS["gpt2"]
    repo = hub.repos[pin.repo] = dict(hub.repos["someone/whole"])
    assert "vocab.json has SHA-256" in message(*client.run("locate gpt2"))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        del repo[name]
    results = client.run("locate gpt2", "inspect gpt2")
    for name, result in zip((MODEL, "config.json"), results, strict=True):
        assert f"{name} has SHA-256" in message(result)
        assert pin.sha256[name] in message(result)
        assert repo[name] not in client.blobs
    asked = [path for _, path in hub.requests if pin.repo in path]
    assert asked
    assert all(f"/{pin.revision}" in path for path in asked)


@pytest.fixture
def pinned(hub: Hub, client: Client) -> tuple[str, Path]:
    """A small model that `gpt2` is pinned to, and its copy in the cache."""
    files = hub.repos["someone/whole"]
    names = set(files) - {BIN, "tf_model.h5", "README.md"}
    known = {n: hashlib.sha256(files[n]).hexdigest() for n in names}
    pin = f"pin someone/whole {COMMIT} {one_word(known)}"
    _, found = client.run(pin, "locate gpt2")
    assert set(files_of(Path(found).parent)) == names
    return pin, Path(found).parent


def one_word(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize("name", [MODEL, "vocab.json"])
def test_a_changed_copy_is_refused(
    hub: Hub, client: Client, pinned: tuple[str, Path], name: str
) -> None:
    """It is not removed, and the advice in the message works."""
    pin, folder = pinned
    path = folder / name
    blob = path.resolve()
    good = path.read_bytes()
    changed = good[:-1] + bytes([good[-1] ^ 1])
    blob.write_bytes(changed)
    hub.forget()
    text = message(client.run(pin, "locate gpt2")[1])
    assert text.startswith(f"{path} has SHA-256 {sha256_of(changed)}, and the")
    assert sha256_of(good) in text
    assert f"Delete {blob}, and it will be fetched again" in text
    assert blob.read_bytes() == changed
    assert hub.requests == []
    blob.unlink()
    [_, found] = client.run(pin, "locate gpt2")
    assert Path(found).parent == folder
    assert path.read_bytes() == good


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_unchanged_copy_is_read_once(
    client: Client, pinned: tuple[str, Path]
) -> None:
    pin, folder = pinned
    assert client.run(pin, "unread", "locate gpt2", "inspect gpt2")[2]
    time.sleep(0.02)
    os.utime((folder / MODEL).resolve())
    with pytest.raises(AssertionError, match="a file was read again"):
        client.run(pin, "unread", "locate gpt2")
    client.run(pin, "locate gpt2")
    assert client.run(pin, "unread", "locate gpt2")[2]


def test_what_is_not_pinned_is_not_read(
    hub: Hub, client: Client, pinned: tuple[str, Path]
) -> None:
    """A pinned preset uses no other file of its folder."""
    pin, folder = pinned
    stray = folder / "added_tokens.json"
    stray.write_text('{"<pad>": 257}')
    text = message(client.run(pin, "locate gpt2")[1])
    assert text.startswith(
        f"{stray} is not one of the known files of someone/w"
    )
    stray.unlink()
    # Other weights of the same model are not the published ones.
    (folder / MODEL).rename(folder / BIN)
    hub.forget()
    assert client.run(pin, "locate gpt2")[1] == str(folder / MODEL)
    assert hub.fetched() == []  # it is cached under its SHA-256
    # Other files of the repository are not fetched.
    hub.repos["someone/whole"]["added_tokens.json"] = b"{}"
    (folder / "config.json").unlink()
    client.run(pin, "locate gpt2")
    assert not stray.exists()


# --- the pins themselves, from independent sources ---

# The files' blob ids in the repository's git: SHA-1 with a header.
GIT_BLOBS = {
    "config.json": "10c66461e4c109db5a2196bff4bb59be30396ed8",
    "vocab.json": "1f1d9aaca301414e7f6c9396df506798ff4eb9a6",
    "merges.txt": "226b0752cac7789c48f0cb3ec53eda48b7be36cc",
    "tokenizer.json": "4b988bccc9dc5adacd403c00b4704976196548f8",
    "tokenizer_config.json": "be4d21d94f3b4687e5a54d84bf6ab46ed0f8defd",
}
PUBLISHED_CONFIG = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {
        "text-generation": {"do_sample": True, "max_length": 50}
    },
    "vocab_size": 50257,
}


def check_pin(name: str, content: bytes) -> None:
    header = f"blob {len(content)}\0".encode()
    assert hashlib.sha1(header + content).hexdigest() == GIT_BLOBS[name]
    assert sha256_of(content) == HUB_PRESETS["gpt2"].sha256[name]


def test_the_pinned_settings() -> None:
    """Reproduced byte for byte."""
    check_pin("config.json", json.dumps(PUBLISHED_CONFIG, indent=2).encode())
    assert GPT2Config.from_dict(PUBLISHED_CONFIG) == GPT2Config()
    check_pin("tokenizer_config.json", b'{"model_max_length": 1024}')


def test_the_pinned_vocabulary(tmp_path: Path) -> None:
    """The same, if tiktoken's cache has GPT-2's vocabulary."""
    try:
        tokenizer = Tokenizer.gpt2()
    except TokenizerError as error:
        pytest.skip(str(error))
    tokenizer.save(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        check_pin(name, (tmp_path / name).read_bytes())
    bytes_of = {"type": "ByteLevel", "add_prefix_space": True}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 50256,
                "special": True,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {
            **bytes_of,
            "add_prefix_space": False,
            "trim_offsets": True,
        },
        "post_processor": {**bytes_of, "trim_offsets": False},
        "decoder": {**bytes_of, "trim_offsets": True},
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": json.loads((tmp_path / "vocab.json").read_text()),
            "merges": [f"{spell(a)} {spell(b)}" for a, b in tokenizer.merges],
        },
    }
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    check_pin("tokenizer.json", text.encode())


def test_every_file_that_is_read_is_pinned() -> None:
    pins = HUB_PRESETS["gpt2"].sha256
    assert pins.keys() == {MODEL, *GIT_BLOBS}
    assert all(len(digest) == 64 for digest in pins.values())


def test_each_pinned_file_is_compared(tmp_path: Path, cache: Path) -> None:
    names = ["a", "b", "c"]
    pin = Pin("someone/whole", COMMIT, {n: sha256_of(b"1") for n in names})
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(b"1")
    check_pinned(pin, paths)
    for path in paths:
        path.write_bytes(b"2")
        with pytest.raises(CheckpointError, match="it was damaged or repl"):
            check_pinned(pin, paths)
        path.write_bytes(b"1")
    (tmp_path / "d").write_bytes(b"1")
    message = (
        f"{tmp_path / 'd'} is not one of the known files .* \\(a, b, c\\)"
    )
    with pytest.raises(CheckpointError, match=message):
        check_pinned(pin, [*paths, tmp_path / "d"])
    check_pinned(Pin("someone/whole"), [tmp_path / "d", tmp_path / "missing"])


# --- the cache of digests ---


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2-from-scratch" / "verified.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which files are hashed."""
    seen = []
    read = hashlib.file_digest

    def noted(file: Any, name: str) -> Any:
        seen.append(Path(file.name).name)
        return read(file, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return seen


def test_caches_the_digest_of_an_unchanged_file(
    tmp_path: Path, cache: Path, reads: list[str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    expected = sha256_of(b"1")
    for path in (one, other, one, other, tmp_path / "sub" / ".." / "one"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        digests.sha256(path, expected)
    assert digests.sha256(one, expected) == expected
    # A wrong digest is not cached.
    assert reads == ["one", "other", "other"]
    assert cache.stat().st_mode & 0o777 == 0o600 or os.name == "nt"
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    if os.name == "nt":
        return  # ctime is the time of creation there
    # Another content with the same size and modification time.
    before = one.stat()
    one.write_bytes(b"3")
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.sha256(one, expected) == sha256_of(b"3")


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff",
            b"[" * 9999,
            b'{"a": 1, "a": 2}',
        ),
        *(b'{"%s": 5}', b'{"%s": {"state": [], "sha256": 5}}', b'{"%s": []}'),
    ],
)
def test_a_damaged_cache_is_ignored(
    tmp_path: Path, cache: Path, reads: list[str], content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    cache.parent.mkdir(parents=True, mode=0o700)
    cache.write_bytes(content.replace(b"%s", str(path).encode()))
    cache.chmod(0o600)
    for _ in range(2):
        digest = sha256_of(b"1")
        assert digests.sha256(path, digest) == digest
    assert reads == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("kind", ["a file", "a link", "a folder", "a pipe"])
def test_a_cache_that_others_can_write_is_ignored(
    tmp_path: Path,
    cache: Path,
    reads: list[str],
    make_pipe: Callable[[Path], None],
    kind: str,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    expected = sha256_of(b"1")
    digests.sha256(path, expected)
    path.write_bytes(b"2")
    with path.open("rb") as file:
        forged = {str(path): {"state": digests._state(file)}}
    forged[str(path)]["sha256"] = expected
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps(forged))
    cache.unlink()
    if kind == "a file":
        elsewhere.chmod(0o666)
        elsewhere.rename(cache)
    elif kind == "a link":
        cache.symlink_to(elsewhere)
    elif kind == "a folder":
        cache.mkdir()
    else:
        make_pipe(cache)
    assert digests.sha256(path, expected) == sha256_of(b"2")


def test_without_a_cache_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"1")
    for _ in range(2):
        assert digests.sha256(path, sha256_of(b"1")) == sha256_of(b"1")
    assert reads == ["file", "file"]


def test_leftovers_of_a_killed_process_are_removed(
    tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    code = (
        "import os, pathlib, sys\n"
        "from gpt2.weights import digests\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "digests.sha256(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
    )
    arguments = (str(path), sha256_of(b"1"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(digests.__file__).parents[2]),
    }
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, check=False
    )
    assert killed.returncode == 9
    digests.sha256(path, sha256_of(b"1"))
    assert list(cache.parent.iterdir()) == [cache]


def test_the_cache_keeps_the_latest_files(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_MOST_FILES", 2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1")
        digests.sha256(tmp_path / name, sha256_of(b"1"))
    known = [Path(path).name for path in json.loads(cache.read_text())]
    assert known == ["b", "c"]


def test_what_cannot_be_read_has_no_sha256(
    tmp_path: Path, cache: Path
) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=str(path)):
            digests.sha256(path, "")


# --- inspecting without fetching ---


def test_inspects_without_fetching(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    """Of two megabytes, at most a hundred kilobytes are fetched."""
    wide = GPT2(GPT2Config(30_000, n_ctx=8, n_embd=16, n_head=2, n_layer=1))
    gpt2.save(wide, None, tmp_path / "wide")
    hub.repos["someone/wide"] = files_of(tmp_path / "wide")
    [found] = client.run("inspect someone/wide")
    size = 4 * wide.num_parameters()
    assert found == [f"someone/wide/{MODEL}", "safetensors", 16, size]
    assert size > 1_900_000
    assert hub.n_bytes < 110_000
    assert hub.fetched() == ["config.json", MODEL]


def test_inspects_several_files(hub: Hub, client: Client, model: GPT2) -> None:
    [found] = client.run("inspect someone/sharded")
    assert found == [
        f"someone/sharded/{INDEX}",
        "safetensors",
        28,
        4 * model.num_parameters(),
    ]


# --- refusals ---

REFUSED = {
    "locate nobody/nothing": "no public model 'nobody/nothing'",
    "inspect nobody/nothing": "no public model 'nobody/nothing'",
    "locate someone/gated": "no public model 'someone/gated'",
    "fetch someone/whole v9 {}": "someone/whole has no revision 'v9'",
    "locate someone/bare": f"someone/bare on the hub has none of {MODEL}",
    "locate someone/keras": "someone/keras on the hub holds no weights but tf_"
    "model.h5, which is a file of TensorFlow weights",
    "locate someone/adapted": "someone/adapted on the hub holds an adapter of",
    "inspect someone/adapted": "someone/adapted on the hub holds an adapter o",
    "locate someone/lone": "someone/lone on the hub has no config.json",
    "inspect someone/lone": "someone/lone on the hub has no config.json",
    "locate someone/outside": "lists '../config.json', which is not a file",
    "locate someone/odd": "json must hold a JSON object, got a list of 0",
    "inspect someone/pickled": "someone/pickled has no safetensors",
    "inspect someone/damaged": f"someone/damaged/{MODEL} is not a safetensors",
    "inspect someone/cut": f"cut/{MODEL}: tensor 'wte.weight' should be",
    "inspect someone/deep": "objects and lists are nested more than 32 deep",
    "inspect someone/huge": f"huge/{MODEL} cannot be read: a whole number",
    "inspect someone/twice": "config.json cannot be read: the name 'a' appear",
    "inspect someone/bert": "bert/config.json: the config describes a 'bert'",
    "inspect someone/known": "someone/known on the hub is a 'bert' model",
    "locate someone/known": "someone/known on the hub is a 'bert' model",
    "inspect someone/other": f"someone/other/{MODEL} lacks tensors 'h.2.",
    "locate someone/ill": "the Hugging Face hub cannot be reached (Server",
}


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.fixture(scope="module")
def refusals(
    server: Hub,
    whole: dict[str, bytes],
    pickled: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The result of each action, all in one process."""
    config = {"config.json": whole["config.json"]}
    outside = json.dumps({"weight_map": {"wte.weight": "../config.json"}})
    deeper = GPT2Config(257, 8, 6, 2, n_layer=3).to_dict()
    server.repos = {
        "someone/whole": whole,
        "someone/gated": whole,
        "someone/bare": {**config, "README.md": b""},
        "someone/keras": {**config, "tf_model.h5": b""},
        "someone/adapted": {**whole, "adapter_config.json": b"{}"},
        "someone/lone": {MODEL: whole[MODEL]},
        "someone/outside": {**config, INDEX: outside.encode()},
        "someone/odd": {**config, INDEX: b"[]"},
        "someone/pickled": pickled,
        "someone/damaged": {**config, MODEL: b"<html>" * 9},
        "someone/cut": {**config, MODEL: whole[MODEL][:-4]},
        "someone/deep": {**config, MODEL: header(b"[" * 9999 + b"]" * 9999)},
        "someone/huge": {**config, MODEL: header(b'{"a": ' + b"9" * 5000)},
        "someone/twice": {**whole, "config.json": b'{"a": 1, "a": 2}'},
        "someone/bert": {**whole, "config.json": b'{"model_type": "bert"}'},
        "someone/known": whole,
        "someone/other": {**whole, "config.json": json.dumps(deeper).encode()},
        "someone/ill": whole,
    }
    server.gated = {"someone/gated"}
    server.out_of_order = {"someone/ill"}
    server.kinds = {"someone/known": "bert", "someone/whole": "gpt2"}
    client = Client(server.url, tmp_path_factory.mktemp("refusals"))
    return dict(zip(REFUSED, client.run(*REFUSED), strict=True))


@pytest.mark.parametrize("action", REFUSED)
def test_refusals_say_why(refusals: dict[str, Any], action: str) -> None:
    assert REFUSED[action] in message(refusals[action])


def test_without_a_network(hub: Hub, client: Client) -> None:
    """A message that comes soon and says what to do."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))  # nobody listens at this port
        client.url = f"http://127.0.0.1:{port.getsockname()[1]}"
        begin = time.monotonic()
        results = client.run(
            "locate gpt2", "inspect gpt2", "inspect someone/whole"
        )
        # Includes starting Python; a download would retry for longer.
        assert time.monotonic() - begin < 25
    for result in results:
        text = message(result)
        assert "is not in the cache, and the Hugging" in text
        assert "cannot be reached" in text
        assert "Connect to the network once" in text
        assert "load their folder instead" in text


def test_a_network_that_does_not_answer(hub: Hub, client: Client) -> None:
    """The wait for a hub that never answers is limited."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen()
        client.url = f"http://127.0.0.1:{port.getsockname()[1]}"
        results = client.run("patience 0.3", "locate gpt2", "inspect gpt2")
    for result in results[1:]:
        assert "cannot be reached" in message(result)


def test_offline_without_a_copy(hub: Hub, client: Client) -> None:
    results = client.run("locate gpt2", "inspect a/b", HF_HUB_OFFLINE="1")
    for result in results:
        assert "is not in the cache" in message(result)
        assert "offline" in message(result)
    assert hub.requests == []


def test_a_cache_that_cannot_be_written(hub: Hub, client: Client) -> None:
    client.home.write_text("a file where a folder should be")
    [result] = client.run("locate someone/whole")
    assert "cannot be stored in the cache" in message(result)
    assert str(client.home) in message(result)
