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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from gpt2.files.reading import field, read_json_object
from gpt2.files.whole import check_whole
from gpt2.files.writing import replacing

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
    # Without its facts, which come last, there is no corpus.
    first = [_places(path)[2].name]
    with replacing(path.parent, path.name, first=first) as stage:
        _write_parts(stage / path.name, chunks, n_vocab, end_of_text)
    return read_tokens(path)


def _write_parts(
    path: Path,
    chunks: Iterable[Sequence[int]],
    n_vocab: int,
    end_of_text: int,
) -> None:
    """Write the three parts of a corpus as the pieces of it come."""
    ids_path, starts_path, facts_path = _places(path)
    n_tokens = n_ends = 0
    with (
        ids_path.open("wb") as ids_file,
        starts_path.open("wb") as starts_file,
    ):
        for chunk in chain([[end_of_text]], chunks):
            ids = np.array(chunk, dtype=np.int64)
            _check_range(ids, n_vocab)
            ends = np.flatnonzero(ids == end_of_text) + n_tokens
            ids_file.write(ids.astype(_dtype(n_vocab)).tobytes())
            starts_file.write(ends.astype("<i8").tobytes())
            n_tokens += len(ids)
            n_ends += len(ends)
    if n_tokens == n_ends:
        raise DataError("there is no text to make tokens of")
    facts = {
        "n_tokens": n_tokens,
        "n_vocab": n_vocab,
        "checksum": checksum(ids_path, starts_path, begin=n_vocab),
    }
    facts_path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _places(path: Path) -> tuple[Path, Path, Path]:
    """Return where the three parts of a corpus lie."""
    return path, path.with_suffix(".starts"), path.with_suffix(".json")


def _dtype(n_vocab: int) -> np.dtype[Any]:
    return np.dtype("<u2" if n_vocab <= 2**16 else "<u4")


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

    It is read through, to see that it is what was written.

    Raises:
        DataError: It is not there, or damaged.
    """
    check_whole(path.parent, DataError, path.name)
    ids_path, starts_path, facts_path = _places(path)
    n_tokens, n_vocab, expected = _read_facts(facts_path)
    dtype = _dtype(n_vocab)
    try:
        size = ids_path.stat().st_size
        if size != n_tokens * dtype.itemsize:
            raise DataError(
                f"{path} is damaged: it has {size:,} bytes, and the "
                f"{n_tokens:,} tokens of which {facts_path.name} speaks take "
                f"{n_tokens * dtype.itemsize:,}"
            )
        found = checksum(ids_path, starts_path, begin=n_vocab)
        if found != expected:
            raise DataError(
                f"{path} is damaged, or a file beside it: together they have "
                f"the checksum {found}, and {facts_path.name} has {expected}"
            )
        ids = np.memmap(ids_path, dtype, "r")
        starts = np.memmap(starts_path, "<i8", "r")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a corpus: {error}") from error
    rising = bool((starts[1:] > starts[:-1]).all())
    if not (rising and starts[0] >= 0 and starts[-1] < n_tokens):
        raise DataError(
            f"{starts_path} is damaged: the places at which documents begin "
            f"must rise, and lie below {n_tokens:,}"
        )
    if (highest := int(ids.max())) >= n_vocab:
        raise DataError(
            f"{path} is damaged: it has the id {highest}, and a vocabulary of "
            f"{n_vocab}"
        )
    return Tokens(ids, starts, n_vocab, found)


def _read_facts(path: Path) -> tuple[int, int, int]:
    """Read the size, the vocabulary and the checksum of a corpus."""
    facts = read_json_object(path, DataError)
    found = []
    for name, least, most in (
        ("n_tokens", 1, 2**63),
        ("n_vocab", 1, 2**32),
        ("checksum", 0, 2**32 - 1),
    ):
        value = field(facts, name, int, path, DataError)
        if not least <= value <= most:
            raise DataError(
                f"{path}: field {name!r} must be from {least} to {most}, got "
                f"{value}"
            )
        found.append(value)
    n_tokens, n_vocab, expected = found
    return n_tokens, n_vocab, expected


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
