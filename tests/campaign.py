"""Thousands of random tests, to be run by hand.

    python tests/campaign.py [KIND ...] [--seed N] [--seconds N] [--share X]

By default, all kinds run; `--share 0.01` runs one in a hundred of their cases.
A case fails if it crashes, hangs, loads data whose checksum is wrong, or is
refused without the name of its file. Failures are printed with the seed that
reproduces them, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
IN_ONE_PROCESS = 500
"""Cases per process: a crash or a hang costs no more than these."""
HANG = 60.0
"""Seconds without an outcome after which a case counts as hanging."""

Outcomes = Iterator[tuple[int, str]]
"""The number of each case and its outcome; `wrong: ...` is a failure."""


def files(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Read damaged files of a kind."""
    import fuzzing

    with tempfile.TemporaryDirectory() as folder:
        for i in range(first, first + count):
            rng = random.Random(f"{seed} {kind} {i}")
            case = fuzzing.DAMAGED[kind](rng, Path(folder, "case"))
            yield i, fuzzing.outcome(case)


def strings(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Encode and decode strings of random characters."""
    import gpt2

    _, tokenizer = gpt2.load("story")
    ranges = [(32, 127), (0, 256), (0x300, 0x370), (0x4E00, 0x9FFF)]
    ranges += [(0x1F300, 0x1FAFF), (0, 0xD7FF), (0xE000, 0x10FFFF)]
    for i in range(first, first + count):
        rng = random.Random(f"{seed} strings {i}")
        low, high = rng.choice(ranges)
        length = rng.choice([0, 1, 2, 3, 8, 40])
        text = "".join(
            chr(rng.randint(low, high))
            if rng.random() < 0.8
            else " \n'sA1é"[rng.randrange(7)]
            for _ in range(length)
        )
        text = "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)
        ids = tokenizer.encode(text)
        fine = tokenizer.decode(ids) == text
        fine = fine and tokenizer.decode(tokenizer.encode_slowly(text)) == text
        fine = fine and "".join(tokenizer.stream(iter(ids))) == text
        yield i, "the same" if fine else f"wrong: {text!r}"


def configs(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Compare models of random sizes, saved and loaded, with transformers'."""
    import torch

    import gpt2

    torch.set_grad_enabled(False)
    for i in range(first, first + count):
        rng = random.Random(f"{seed} configs {i}")
        torch.manual_seed(rng.randrange(2**32))
        theirs = _theirs(rng)
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            ours = gpt2.load_model(folder)
            n_tokens = rng.randint(1, ours.config.n_ctx)
            tokens = torch.randint(ours.config.n_vocab, (2, n_tokens))
            expected = theirs(tokens).logits
            scale = expected.abs().max()
            narrow = 4 if ours.config.n_embd < 8 else 1
            for precision, tolerance in (
                (None, 1e-5),
                ("float32", 1e-4),
                ("bfloat16", 0.06),
                ("int8", 0.1),
                ("int4", 0.6),
            ):
                engine = ours
                if precision is not None:
                    engine = gpt2.for_inference(ours, precision)
                error = float((engine(tokens) - expected).abs().max() / scale)
                if not error < tolerance * narrow:
                    yield i, f"wrong: {precision} {error:.2g} {ours.config}"
                    break
            else:
                yield i, "within the tolerance"


def _theirs(rng: random.Random) -> Any:
    """Make a model of transformers of random sizes."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    n_head = rng.randint(1, 6)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=rng.randint(1, 300),
            n_positions=rng.randint(1, 64),
            n_embd=n_head * rng.randint(1, 24),
            n_head=n_head,
            n_layer=rng.randint(1, 4),
            n_inner=rng.choice([None, rng.randint(1, 200)]),
            activation_function=rng.choice(["gelu_new", "gelu", "relu"]),
            layer_norm_epsilon=rng.choice([1e-5, 1e-6, 1e-3]),
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return model


def commands(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Run hostile command lines: they print one line and exit with 1 or 2."""
    import test_command_line

    from gpt2.__main__ import main

    lines = list(test_command_line.hostile_command_lines())
    for i in range(first, first + count):
        arguments, option = lines[i % len(lines)]
        with (
            contextlib.redirect_stderr(io.StringIO()) as errors,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code
        said = errors.getvalue().strip()
        fine = code in (1, 2) and "\n" not in said and option in said
        yield i, f"exit code {code}" if fine else f"wrong: {arguments} {said}"


def kills(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Kill a training run at random, and resume it: the bits are the same."""
    from forking import Server
    from test_training_processes import MODEL, RUN, TEXT, last_bytes

    from gpt2.training.checkpoint import checkpoints

    rng = random.Random(f"{seed} kills {first}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        server = Server()

        def start(run: Path) -> Any:
            resume = ["--resume"] if checkpoints(run) else []
            return server.start(
                *("train", run, "--data", folder / "text.txt", *MODEL, *RUN),
                *("--quiet", "--dropout=0.1", "--n-steps=40", *resume),
                *("--save-every=1", "--evaluate-every=7"),
                output=folder / "output",
            )

        whole, broken = folder / "whole", folder / "broken"
        assert start(whole).wait() == 0
        done = 0
        while done < count:
            process = start(broken)
            time.sleep(rng.uniform(0, 0.6))
            if process.poll() is None:
                process.kill()
            code = process.wait()
            if code == -signal.SIGKILL:
                yield first + done, "killed"
                done += 1
            elif code != 0:
                yield first + done, f"wrong: {process.err.strip()}"
                done += 1
            else:
                same = last_bytes(broken) == last_bytes(whole)
                yield first + done, "the same" if same else "wrong: differs"
                done += 1
                shutil.rmtree(broken)
        server.close()


def checkpoints(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Flip a bit of a training checkpoint: it is refused by name."""
    from test_training_processes import MODEL, RUN, TEXT

    from gpt2.__main__ import main
    from gpt2.training.checkpoint import ResumeError, read_checkpoint
    from gpt2.training.checkpoint import checkpoints as found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        run = folder / "run"
        with contextlib.redirect_stdout(io.StringIO()):
            main(
                [
                    *("train", str(run), "--data", str(folder / "text.txt")),
                    *(*MODEL, *RUN, "--quiet", "--n-steps=4"),
                ]
            )
        files = sorted(found(run)[-1].iterdir())
        read_checkpoint(run)
        for i in range(first, first + count):
            rng = random.Random(f"{seed} checkpoints {i}")
            path = rng.choice(files)
            sound = path.read_bytes()
            flipped = bytearray(sound)
            flipped[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            try:
                read_checkpoint(run)
                yield i, f"wrong: {path.name} is accepted"
            except ResumeError as error:
                named = str(path.parent) in str(error)
                yield i, "refused" if named else f"wrong: {error}"
            path.write_bytes(sound)


def saves(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Kill a save over another model: one of the two models is complete."""
    import torch

    import gpt2

    torch.manual_seed(0)
    both = []
    for n_embd, text in ((4, "the cat sat, the cat"), (6, "a dog ran, a dog")):
        config = gpt2.GPT2Config(
            n_vocab=300, n_ctx=8, n_embd=n_embd, n_head=2, n_layer=1
        )
        both.append((gpt2.GPT2(config), gpt2.Tokenizer.train(text, 262)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        for i in range(first, first + count):
            rng = random.Random(f"{seed} saves {i}")
            gpt2.save(*both[0], folder)
            pid = os.fork()
            if pid == 0:
                gpt2.save(*both[1], folder)
                os._exit(0)
            time.sleep(rng.uniform(0, 0.06))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            try:
                model, tokenizer = gpt2.load(folder)
            except ValueError as error:
                named = str(folder) in str(error)
                yield i, "refused" if named else f"wrong: {error}"
                continue
            found = [
                model.config == saved.config and tokenizer.ranks == its.ranks
                for saved, its in both
            ]
            yield (
                i,
                f"model {'AB'[found.index(True)]}"
                if any(found)
                else "wrong: a mix",
            )


def sanitizers(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Run the C under the compiler's sanitizers."""
    from sanitized import BUILDS, missing, outcome, start

    if (what := missing()) is not None:
        yield first, f"skipped, since {what}"
        return
    for build in BUILDS:
        code, output = outcome(start(build, seed + first, count))
        yield first, "clean" if code == 0 else f"wrong: {output[-2000:]}"


KINDS: dict[str, tuple[int, Callable[[str, int, int, int], Outcomes]]] = {
    "safetensors": (10_000, files),
    "index": (1_000, files),
    "config": (2_000, files),
    "tokenizer": (2_000, files),
    "pickle": (500, files),
    "tensorflow": (2_000, files),
    "strings": (100_000, strings),
    "configs": (200, configs),
    "commands": (500, commands),
    "checkpoints": (200, checkpoints),
    "saves": (500, saves),
    "kills": (108, kills),
    "sanitizers": (100, sanitizers),
}
"""The number of cases of each kind, and the function that runs them."""


def run_part(kind: str, first: int, count: int, seed: int) -> None:
    """Run some cases in this process, and print a line for each."""
    import warnings

    warnings.simplefilter("ignore")
    _, runner = KINDS[kind]
    last = first - 1
    try:
        for last, came in runner(kind, first, count, seed):
            print(last, " ".join(came.split()), flush=True)
    except BaseException:
        said = " | ".join(traceback.format_exc().split("\n")[-4:])
        print(last + 1, f"wrong: {said}", flush=True)


def run_kind(kind: str, share: float, seed: int, end: float) -> Counter[str]:
    """Run the cases of a kind in new processes."""
    total = max(1, round(KINDS[kind][0] * share))
    size = {"strings": 20_000, "kills": total}.get(kind, IN_ONE_PROCESS)
    came: Counter[str] = Counter()
    first = 0
    while first < total and time.monotonic() < end:
        count = min(size, total - first)
        for number, what in _outcomes(kind, first, count, seed):
            wrong = what.startswith("wrong")
            came["wrong" if wrong else what] += 1
            if wrong and came["wrong"] <= 20:
                print(f"{kind} {number}, seed {seed}: {what}", flush=True)
            first = max(first, number + 1)
        first = first if kind not in ("sanitizers",) else first + count - 1
    return came


def _outcomes(kind: str, first: int, count: int, seed: int) -> Outcomes:
    """Run some cases in a process, and yield what it prints, or its end."""
    part = ["--part", kind, str(first), str(count), "--seed", str(seed)]
    last = first - 1
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, *part],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        watch = _Watch(process, HANG + (600 if kind == "sanitizers" else 0))
        for line in process.stdout:
            watch.reset()
            number, _, what = line.strip().partition(" ")
            last = int(number)
            yield last, what
        code = process.wait()
        watch.stop()
        errors.seek(0)
        said = errors.read()[-500:]
    if code != 0:
        how = "hangs" if watch.fired else f"ends with {code}"
        yield last + 1, f"wrong: {how}; {said}"
    elif last < first:
        yield first, f"wrong: nothing came; {said}"


class _Watch:
    """Kills a process that prints nothing for too long."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        import threading

        self.process, self.seconds, self.fired = process, seconds, False
        self.last, self.stopped = time.monotonic(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.stopped.wait(1):
            if time.monotonic() - self.last > self.seconds:
                self.fired = True
                self.process.kill()
                return

    def reset(self) -> None:
        self.last = time.monotonic()

    def stop(self) -> None:
        self.stopped.set()


def main() -> None:
    """Run the chosen kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ", ".join(KINDS)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=kinds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--share", type=float, default=1)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        kind, first, count = options.part
        run_part(kind, int(first), int(count), options.seed)
        return
    if unknown := set(options.kinds) - KINDS.keys():
        parser.error(f"no such kind: {', '.join(unknown)}; there are {kinds}")
    end = time.monotonic() + options.seconds
    n_wrong = 0
    for kind in options.kinds or KINDS:
        begun = time.monotonic()
        came = run_kind(kind, options.share, options.seed, end)
        n_wrong += came["wrong"]
        shown = ", ".join(f"{n:,} {what}" for what, n in came.most_common())
        seconds = time.monotonic() - begun
        print(f"{kind:12} {shown or 'no time'} ({seconds:.0f} s)", flush=True)
    sys.exit(n_wrong > 0)


if __name__ == "__main__":
    main()
