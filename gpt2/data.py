"""From texts to batches of token ids, by way of a file that need not fit.

A corpus is tokenised once and kept as one long row of ids, in which
`<|endoftext|>` stands before, between and behind the documents. The file is
mapped into memory: what is not looked at is not read, so a corpus may be
larger than memory.

Which rows make up the batch of a step depends on the seed and on the step, and
on nothing else. So a run that goes on after a break needs only the number of
the step to find its place, and several processes agree on a batch without a
word.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

Windows = Literal["documents", "anywhere"]
"""Where the rows of a batch may begin."""


class DataError(ValueError):
    """A file of tokens is missing, damaged, or does not fit the model."""


@dataclass(frozen=True)
class Tokens:
    """A tokenised corpus, mapped from its file."""

    ids: np.ndarray
    """(N,), uint16 or uint32."""
    starts: np.ndarray
    """(D,) of int64: where each document's leading end-of-text stands."""
    n_vocab: int
    """Ids lie below this."""

    def __len__(self) -> int:
        """Return how many ids there are, ends of documents included."""
        return len(self.ids)

    @property
    def fingerprint(self) -> int:
        """A number that another corpus is unlikely to have."""
        edges = self.ids[:4096].tobytes() + self.ids[-4096:].tobytes()
        return crc32(edges, len(self))

    def split(self, fraction: float) -> tuple[Tokens, Tokens]:
        """Cut off the last `fraction`, at a document's start if there is one.

        Returns:
            What comes before and what comes after.
        """
        cut = int(len(self) * (1 - fraction))
        if (late := self.starts[self.starts >= cut]).size and late[0] > 0:
            cut = int(late[0])
        first = self.starts[self.starts < cut]
        return (
            Tokens(self.ids[: cut + 1], first, self.n_vocab),
            Tokens(self.ids[cut:], late - cut, self.n_vocab),
        )


def write_tokens(
    path: Path,
    chunks: Iterable[Sequence[int]],
    n_vocab: int,
    end_of_text: int,
) -> Tokens:
    """Write a corpus to a file of ids.

    Written whole or not at all, and never held in memory as a whole.

    Args:
        path: The file of ids; a `.starts` and a `.json` go beside it.
        chunks: Its ids, in pieces of any length, with an end of text behind
            each document. One is put before the first.
        n_vocab: Ids lie below this; up to 65,536 they take two bytes each.
        end_of_text: The id that ends a document.

    Returns:
        The corpus, mapped.

    Raises:
        DataError: There are no ids, or one is out of range.
        OSError: The file cannot be written.
    """
    dtype = np.dtype("<u2" if n_vocab <= 2**16 else "<u4")
    stage = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    stage.parent.mkdir(parents=True, exist_ok=True)
    stage.mkdir()
    n_tokens = n_documents = 0
    try:
        with (
            (stage / "ids").open("wb") as ids_file,
            (stage / "starts").open("wb") as starts_file,
        ):
            for chunk in chain([[end_of_text]], chunks):
                ids = np.array(chunk, dtype=np.int64)
                _check_range(ids, n_vocab)
                ends = np.flatnonzero(ids == end_of_text) + n_tokens
                ids_file.write(ids.astype(dtype).tobytes())
                starts_file.write(ends.astype("<i8").tobytes())
                n_tokens += len(ids)
                n_documents += len(ends)
        if n_tokens < 2:
            raise DataError("there is no text to make tokens of")
        facts = {
            "n_tokens": n_tokens,
            "n_documents": n_documents,
            "n_vocab": n_vocab,
        }
        (stage / "facts").write_text(json.dumps(facts, indent=2) + "\n")
        # The facts come last: without them there is no corpus.
        for name, place in zip(_PARTS, _places(path), strict=True):
            (stage / name).replace(place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return read_tokens(path)


_PARTS = ("ids", "starts", "facts")


def _places(path: Path) -> tuple[Path, Path, Path]:
    """Return where the three parts of a corpus lie."""
    return path, path.with_suffix(".starts"), path.with_suffix(".json")


def _check_range(ids: np.ndarray, n_vocab: int) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < n_vocab):
        raise DataError(
            f"token ids must lie between 0 and {n_vocab - 1}; "
            f"got {ids.min()} to {ids.max()}"
        )


def read_tokens(path: Path) -> Tokens:
    """Map a corpus that `write_tokens` wrote.

    Raises:
        DataError: It is not there whole.
    """
    ids_path, starts_path, facts_path = _places(path)
    try:
        facts = json.loads(facts_path.read_text())
        n_vocab = facts["n_vocab"]
        dtype = np.dtype("<u2" if n_vocab <= 2**16 else "<u4")
        ids = np.memmap(ids_path, dtype, "r")
        starts = np.memmap(starts_path, "<i8", "r")
        whole = (len(ids), len(starts)) == (
            facts["n_tokens"],
            facts["n_documents"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a corpus: {error}") from error
    if not whole:
        raise DataError(
            f"{path} holds {len(ids):,} ids and {len(starts):,} documents; "
            f"{facts_path.name} promises other numbers"
        )
    return Tokens(ids, starts, n_vocab)


def draw_batch(
    tokens: Tokens,
    step: int,
    n_rows: int,
    length: int,
    *,
    windows: Windows = "anywhere",
    seed: int = 0,
) -> Tensor:
    """Draw the rows of one training step.

    Args:
        tokens: The corpus.
        step: The number of the step, which with the seed decides all.
        n_rows: How many rows.
        length: How many ids in each; a model that reads T needs T + 1.
        windows: `documents` lets rows begin only with a document, at its
            leading end of text, so that no token lacks its context; a row runs
            on into the documents that follow. `anywhere` is for long texts.
        seed: Of the run.

    Returns:
        (n_rows, length) of int64.

    Raises:
        DataError: The corpus is shorter than a row.
    """
    last = len(tokens) - length
    if last < 0:
        raise DataError(
            f"the corpus has {len(tokens):,} tokens, and one row {length:,}; "
            f"take more text or a shorter context"
        )
    rng = np.random.default_rng((seed, step))
    n_starts = int(np.searchsorted(tokens.starts, last, side="right"))
    if windows == "documents" and n_starts:
        begins = tokens.starts[rng.integers(n_starts, size=n_rows)]
    else:
        begins = rng.integers(last + 1, size=n_rows)
    rows = np.stack([tokens.ids[b : b + length] for b in begins])
    return torch.from_numpy(rows.astype(np.int64))


def pad(
    sequences: Sequence[Sequence[int]],
    padding: int = 0,
    side: Literal["left", "right"] = "right",
) -> tuple[Tensor, Tensor]:
    """Put sequences of different lengths into one batch.

    Args:
        sequences: B lists of ids.
        padding: The id to fill up with; the mask says that it is not read.
        side: Where to put it.

    Returns:
        Tokens (B, T) of int64 and attention mask (B, T) of bool, where T is
        the length of the longest.
    """
    longest = max(map(len, sequences))
    tokens = torch.full((len(sequences), longest), padding)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        first = longest - len(sequence) if side == "left" else 0
        place = slice(first, first + len(sequence))
        tokens[row, place] = torch.tensor(sequence, dtype=torch.long)
        mask[row, place] = True
    return tokens, mask


def first_documents(
    tokens: Tokens, n_documents: int, longest: int
) -> tuple[Tensor, Tensor]:
    """Return the first documents of a corpus, one to a row.

    Args:
        tokens: The corpus.
        n_documents: How many; fewer if there are not so many.
        longest: At most so many ids of each.

    Returns:
        As from `pad`: each document with the end of text before it and the
        one behind it.
    """
    edges = tokens.starts[: n_documents + 1].tolist()
    return pad(
        [
            tokens.ids[begin : min(end + 1, begin + longest)].tolist()
            for begin, end in pairwise(edges)
        ]
    )
