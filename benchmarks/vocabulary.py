"""Learn a vocabulary, and encode a text to a token file, beside the peers.

    python vocabulary.py [ROUNDS] [THREADS] [TEXT]

Ours and `tokenizers` learn 50,257 tokens from all of TEXT, once each. Then
ours and `tiktoken` encode it with GPT-2's vocabulary, in turn, `ROUNDS` times:
ours from the file to a token file, tiktoken in memory, from a list of the same
blocks to lists of ids. Each runs in a process of its own. The tables go to
`results/vocabulary.md`. TEXT is a file in UTF-8; without it, one of 100 MB is
made of the Python sources of this environment and of stories.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

N_VOCAB, N_BYTES = 50_257, 100_000_000
END = "<|endoftext|>"
LEARNING = ("gpt2", "tokenizers")
ENCODING = ("gpt2", "tiktoken")
HERE = Path(__file__).parent


def write_text(path: Path, n_bytes: int = N_BYTES) -> None:
    """Write a text: sources in an order drawn at random, then stories."""
    from gpt2 import stories

    rng, n_written = random.Random(0), 0
    sources = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    rng.shuffle(sources)
    with path.open("wb") as file:
        while n_written < n_bytes:
            if sources:
                text = sources.pop().read_text("utf-8", "ignore")
            else:
                text = stories.sample(rng)
            n_written += file.write((text + END).encode())


def learn(way: str, text: Path) -> None:
    """Learn a vocabulary."""
    if way == "gpt2":
        from gpt2.texts import read_blocks
        from gpt2.tokenizer.tokenizer import Tokenizer

        Tokenizer.train(read_blocks(text), N_VOCAB)
        return
    from tokenizers import ByteLevelBPETokenizer

    ByteLevelBPETokenizer().train(
        [str(text)],
        vocab_size=N_VOCAB,
        min_frequency=0,
        special_tokens=[END],
        show_progress=False,
    )


def encode(way: str, text: Path, threads: int) -> float:
    """Encode a text, and return the seconds without loading a vocabulary."""
    from gpt2.texts import read_blocks
    from gpt2.tokenizer.tokenizer import Tokenizer

    if way == "gpt2":
        from gpt2.data import write_tokens
        from gpt2.training.corpus import Source, _chunks

        tokenizer = Tokenizer.gpt2()
        os.cpu_count = lambda: threads
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            chunks = _chunks(Source((text,)), tokenizer)
            path = Path(folder, "tokens.bin")
            write_tokens(path, chunks, N_VOCAB, tokenizer.end_of_text)
            return time.perf_counter() - began
    import tiktoken

    encoding, blocks = tiktoken.get_encoding("gpt2"), list(read_blocks(text))
    began = time.perf_counter()
    encoding.encode_batch(blocks, num_threads=threads, allowed_special="all")
    return time.perf_counter() - began


def measure(task: str, way: str, text: str, threads: str) -> None:
    """Do a task, and print the seconds and the peak memory in bytes."""
    began = time.perf_counter()
    if task == "learn":
        learn(way, Path(text))
        seconds = time.perf_counter() - began
    else:
        seconds = encode(way, Path(text), int(threads))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak]))


def ask(*arguments: str) -> tuple[float, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    seconds, peak = json.loads(subprocess.check_output(command))
    return seconds, peak


def table(
    text: Path, found: dict[str, list[tuple[float, float]]]
) -> list[str]:
    """Return a table of the medians."""
    size = text.stat().st_size / 1e6
    lines = ["| | seconds | MB of text/s | peak memory, MB |"]
    lines.append("| --- | --- | --- | --- |")
    for way, results in found.items():
        seconds, peak = map(median, zip(*results, strict=True))
        lines.append(
            f"| {way} | {seconds:.2f} | {size / seconds:.2f} | "
            f"{peak / 1e6:.0f} |"
        )
    return lines


def main(rounds: str = "7", threads: str = "", text: str = "") -> None:
    """Measure, and write the tables."""
    threads = threads or str(os.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(text or Path(folder, "text.txt"))
        if not text:
            write_text(path)
        lines = compare(path, rounds, threads)
    (HERE / "results" / "vocabulary.md").write_text("\n".join(lines) + "\n")


def compare(path: Path, rounds: str, threads: str) -> list[str]:
    """Measure all on one text, and return the tables."""
    text = str(path)
    learned = {way: [ask("learn", way, text, threads)] for way in LEARNING}
    encoded: dict[str, list[tuple[float, float]]] = {w: [] for w in ENCODING}
    for _ in range(int(rounds)):
        for way, results in encoded.items():
            results.append(ask("encode", way, text, threads))
    return [
        "# Vocabulary and data",
        "",
        f"From `vocabulary.py`: a text of {path.stat().st_size / 1e6:.0f} MB, "
        f"{threads} threads.",
        "",
        f"Learning {N_VOCAB:,} tokens:",
        "",
        *table(path, learned),
        "",
        f"Encoding with GPT-2's vocabulary, medians of {rounds} rounds; ours "
        "to a token file, tiktoken in memory:",
        "",
        *table(path, encoded),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] in (["learn"], ["encode"]):
        measure(*sys.argv[1:])
    else:
        main(*sys.argv[1:])
