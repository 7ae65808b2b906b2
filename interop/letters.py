"""Find the characters that the tokenizers cut differently.

    make interop               # this, after everything else
    python interop/letters.py  # this alone

GPT-2 cuts a text into runs of letters, of numbers, of white space and of the
rest, and merges bytes only within a run. To see to which a character belongs,
each tokenizer gets a vocabulary in which `a`, `1`, a line end and `!` merge
with the first byte of any character: they do so if the two are in one run.

The results go to `letters.json`, from which `tables.py` writes the tables of
the book's page.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from itertools import groupby, product
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the imports below
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tables  # noqa: E402
from processes import say  # noqa: E402

import gpt2  # noqa: E402
from gpt2.config import GPT2Config  # noqa: E402
from gpt2.tokenizer.bpe import (  # noqa: E402
    END_OF_TEXT,
    SPLIT_PATTERN,
    single_bytes,
)
from gpt2.weights.gguf_writing import write_gguf  # noqa: E402

RESULTS = HERE / "letters.json"
KINDS = {"a": "letter", "1": "number", "\n": "space", "!": "other"}
LEADS = bytes(range(0xC2, 0xF5))
"""The first bytes of the characters beyond ASCII."""
PACKAGES = (
    *("gpt2-from-scratch", "regex", "tiktoken", "tokenizers"),
    "llama-cpp-python",
)


def characters() -> list[str]:
    """Return the characters beyond ASCII that Unicode may assign.

    Left out are surrogates, private use, and the planes that Unicode leaves
    empty.
    """
    planes = [*range(0x80, 0xD800), *range(0xF900, 0x40000)]
    return [chr(i) for i in [*planes, *range(0xE0000, 0xE1000)]]


def vocabulary() -> gpt2.Tokenizer:
    """Make the vocabulary that shows the runs."""
    tokens = single_bytes(bytes(range(256)))
    tokens += [
        bytes([first.encode()[0], lead])
        for first, lead in product(KINDS, LEADS)
    ]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return gpt2.Tokenizer(ranks, {END_OF_TEXT: len(ranks)})


Encoder = Callable[[str], list[int]]


def _regex(ours: gpt2.Tokenizer, folder: Path) -> Encoder:
    """GPT-2's pattern alone, as in OpenAI's own `encoder.py`."""
    import regex

    pattern = regex.compile(SPLIT_PATTERN)

    def encode(text: str) -> list[int]:
        pieces = pattern.findall(text)
        first = pieces[0].encode()
        return [ours.ranks[first[:2] if len(first) > 1 else first]]

    return encode


def _tiktoken(ours: gpt2.Tokenizer, folder: Path) -> Encoder:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    encoding = tiktoken.Encoding(
        "read",
        pat_str=r50k_pat_str,
        mergeable_ranks=ours.ranks,
        special_tokens={},
    )
    return encoding.encode_ordinary


def _tokenizers(ours: gpt2.Tokenizer, folder: Path) -> Encoder:
    from tokenizers import Tokenizer, models, pre_tokenizers

    bpe = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: tokenizer.encode(text).ids


def _llama(ours: gpt2.Tokenizer, folder: Path) -> Encoder:
    import llama_cpp as llama
    from readers import _llama_model

    config = GPT2Config(
        n_vocab=ours.n_vocab, n_ctx=8, n_embd=32, n_head=1, n_layer=1
    )
    path = folder / "model.gguf"
    write_gguf(path, gpt2.GPT2(config), ours, "f32")
    model = _llama_model(path, True)
    vocab = llama.llama_model_get_vocab(model)
    room = (llama.llama_token * 16)()

    def encode(text: str) -> list[int]:
        data = text.encode()
        found = llama.llama_tokenize(
            vocab, data, len(data), room, len(room), False, False
        )
        return list(room[:found])

    return encode


ENCODERS: dict[str, Callable[[gpt2.Tokenizer, Path], Encoder]] = {
    "gpt2": lambda ours, folder: ours.encode,
    "regex": _regex,
    "tiktoken": _tiktoken,
    "tokenizers": _tokenizers,
    "llama.cpp": _llama,
}


def kind(encode: Encoder, character: str) -> str:
    """Say to which run a character belongs."""
    found = [
        name
        for first, name in KINDS.items()
        if encode(first + character)[0] >= 256
    ]
    return " and ".join(found) or "none"


def differing(kinds: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the ranges of characters on which the programs differ.

    Args:
        kinds: For each program, the kind of each of `characters()`.
    """
    rows = [
        (ord(character), dict(zip(kinds, answers, strict=True)))
        for character, *answers in zip(
            characters(), *kinds.values(), strict=True
        )
        if len(set(answers)) > 1
    ]
    ranges = []
    for _, group in groupby(
        enumerate(rows), lambda row: (row[1][0] - row[0], row[1][1])
    ):
        members = [row for _, row in group]
        ranges.append(
            {
                "first": f"U+{members[0][0]:04X}",
                "last": f"U+{members[-1][0]:04X}",
                "kinds": members[0][1],
            }
        )
    return ranges


def counts(kinds: Iterable[str]) -> dict[str, int]:
    """Count the characters of each kind."""
    listed = list(kinds)
    return {name: listed.count(name) for name in dict.fromkeys(listed)}


def main() -> None:
    """Ask every tokenizer for every character."""
    ours, found = vocabulary(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours.write(folder)
        for program, make in ENCODERS.items():
            say(program)
            encode = make(ours, folder)
            found[program] = [kind(encode, c) for c in characters()]
    results = {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "characters": len(characters()),
        "counts": {name: counts(kinds) for name, kinds in found.items()},
        "differing": differing(found),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables.write()


if __name__ == "__main__":
    main()
