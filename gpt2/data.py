"""From texts to batches of token ids, by way of a file that need not fit.

A corpus is tokenised once and kept as one long row of ids, in which
`<|endoftext|>` stands before, between and behind the documents. The file is
written bit by bit and mapped into memory for reading, so a corpus may be
larger than memory.

Which rows make up the batch of a step depends on the seed and on the step, and
on nothing else. So a run that goes on after a break needs only the number of
the step to find its place, and several processes agree on a batch without a
word.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
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
    """(D + 1,) of int64: where the ends of text stand, of which each but the
    last leads a document."""
    n_vocab: int
    """Ids lie below this."""
    fingerprint: int
    """A number that another corpus is unlikely to have."""

    def __len__(self) -> int:
        """Return how many ids there are, ends of documents included."""
        return len(self.ids)

    def split(self, fraction: float) -> tuple[Tokens, Tokens]:
        """Cut off the last `fraction`, where a document begins if one does.

        Where none begins soon enough to leave half of what was asked for, as
        in a text that is one long document, the cut goes through a document.

        Returns:
            What comes before and what comes after.

        Raises:
            ValueError: Nothing or everything is to be cut off.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"the share to cut off must lie between 0 and 1; got "
                f"{fraction}"
            )
        n_last = round(len(self) * fraction)
        cut = end = len(self) - n_last
        later = self.starts[np.searchsorted(self.starts, cut) :]
        if later.size and len(self) - later[0] > n_last / 2:
            cut = int(later[0])
            end = cut + 1  # its end of text also ends the document before
        return self._part(0, end), self._part(cut, len(self))

    def _part(self, begin: int, end: int) -> Tokens:
        first, last = np.searchsorted(self.starts, (begin, end))
        return Tokens(
            self.ids[begin:end],
            self.starts[first:last] - begin,
            self.n_vocab,
            crc32(f"{begin}:{end}".encode(), self.fingerprint),
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
        DataError: There is no text, or an id is out of range.
        OSError: The file cannot be written.
    """
    dtype = np.dtype("<u2" if n_vocab <= 2**16 else "<u4")
    stage = path.with_name(f".{path.name}.part")
    shutil.rmtree(stage, ignore_errors=True)  # left by one that was killed
    stage.mkdir(parents=True)
    n_tokens = n_ends = 0
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
                n_ends += len(ends)
        if n_tokens == n_ends:
            raise DataError("there is no text to make tokens of")
        facts = {
            "n_tokens": n_tokens,
            "n_vocab": n_vocab,
            "checksum": checksum(
                stage / "ids", stage / "starts", begin=n_vocab
            ),
        }
        (stage / "facts").write_text(json.dumps(facts, indent=2) + "\n")
        for name in _PARTS:
            with (stage / name).open(
                "rb+"
            ) as file:  # the data before the name
                os.fsync(file.fileno())
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


def checksum(*paths: Path, begin: int = 0) -> int:
    """Read files through, block by block, and return their checksum."""
    value = begin
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value = crc32(block, value)
    return value


def _check_range(ids: np.ndarray, n_vocab: int) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < n_vocab):
        raise DataError(
            f"token ids must lie between 0 and {n_vocab - 1}; "
            f"got {ids.min()} to {ids.max()}"
        )


def read_tokens(path: Path) -> Tokens:
    """Map a corpus that `write_tokens` wrote.

    It is read through once, to see that it is what was written.

    Raises:
        DataError: It is not there, or damaged.
    """
    ids_path, starts_path, facts_path = _places(path)
    try:
        facts = json.loads(facts_path.read_text())
        n_tokens, n_vocab = facts["n_tokens"], facts["n_vocab"]
        dtype = np.dtype("<u2" if n_vocab <= 2**16 else "<u4")
        size, expected = ids_path.stat().st_size, n_tokens * dtype.itemsize
        found = checksum(ids_path, starts_path, begin=n_vocab)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a corpus: {error}") from error
    if size != expected:
        raise DataError(
            f"{path} is damaged: it has {size:,} bytes, and {n_tokens:,} "
            f"tokens take {expected:,}"
        )
    if found != facts.get("checksum"):
        raise DataError(
            f"{path} is damaged, or a file beside it: together they do not "
            f"have the checksum that {facts_path.name} has"
        )
    ids = np.memmap(ids_path, dtype, "r")
    return Tokens(ids, np.memmap(starts_path, "<i8", "r"), n_vocab, found)


def draw_batch(
    tokens: Tokens,
    step: int,
    n_rows: int,
    length: int,
    *,
    windows: Windows = "anywhere",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draw the rows of one training step.

    Args:
        tokens: The corpus.
        step: The number of the step, which with the seed decides all.
        n_rows: How many rows.
        length: How many ids in each, at most; a model that reads T needs
            T + 1.
        windows: `documents` gives each row one document, with the end of text
            before it and the one behind it, and pads it: no token lacks its
            context, and none sees another document. Of a longer one, only the
            first `length` ids are ever seen. `anywhere` is for long
            texts: rows begin wherever they like, and are full.
        seed: Of the run.

    Returns:
        As from `pad`.

    Raises:
        DataError: The corpus is shorter than a row, or has no document.
    """
    rng = np.random.default_rng((seed, step))
    if windows == "documents":
        which = rng.integers(_n_documents(tokens), size=n_rows)
        # Like beside like: less padding, where the rows are cut into parts.
        lengths = tokens.starts[which + 1] - tokens.starts[which]
        which = which[lengths.argsort(kind="stable")]
        return _documents(tokens, which, length)
    last = len(tokens) - length
    if last < 0:
        raise DataError(
            f"the corpus has {len(tokens):,} tokens, and one row {length:,}; "
            f"take more text or a shorter context"
        )
    begins = rng.integers(last + 1, size=n_rows)
    return pad([tokens.ids[b : b + length] for b in begins])


def pad(
    sequences: Sequence[Sequence[int] | np.ndarray],
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

    Raises:
        ValueError: There are no sequences.
    """
    if not sequences:
        raise ValueError("there are no sequences to put into a batch")
    longest = max(map(len, sequences))
    tokens = torch.full((len(sequences), longest), padding)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        first = longest - len(sequence) if side == "left" else 0
        place = slice(first, first + len(sequence))
        tokens[row, place] = torch.as_tensor(np.asarray(sequence, np.int64))
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
    count = min(n_documents, _n_documents(tokens))
    return _documents(tokens, np.arange(count), longest)


def _n_documents(tokens: Tokens) -> int:
    """Count the documents, of which there has to be one."""
    count = len(tokens.starts) - 1
    if count < 1:
        raise DataError(
            "the corpus has no whole document, from one end of text to another"
        )
    return count


def _documents(
    tokens: Tokens, which: np.ndarray, longest: int
) -> tuple[Tensor, Tensor]:
    """Return documents, one to a row, with the ends of text about them."""
    begins, ends = tokens.starts[which], tokens.starts[which + 1]
    return pad(
        [
            tokens.ids[begin : min(end + 1, begin + longest)]
            for begin, end in zip(begins, ends, strict=True)
        ]
    )
