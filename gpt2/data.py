"""Token files that may be larger than memory, and batches drawn from them.

A corpus is tokenized once and stored as one long row of ids, with
`<|endoftext|>` before, between and after the documents. The file is written
chunk by chunk and memory-mapped for reading, so a corpus may be larger than
memory.

The batch of a step depends only on the seed and the number of the step. So a
resumed run needs only the step to continue with the right batches, and several
processes agree on a batch without communicating.
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
"""Where the rows of a batch begin; see `draw_batch`."""


class DataError(ValueError):
    """A token file is missing, damaged or too short, or an id is invalid."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized corpus, memory-mapped from its file."""

    ids: np.ndarray
    """(N,) uint16 or uint32."""
    starts: np.ndarray
    """(D + 1,) int64: the positions of `<|endoftext|>`. Each but the last is
    where a document starts."""
    n_vocab: int
    """All ids are below this."""
    fingerprint: int
    """A checksum that tells corpora apart."""

    def __len__(self) -> int:
        """Return the number of ids, including every `<|endoftext|>`."""
        return len(self.ids)

    def __repr__(self) -> str:
        n_documents = max(0, len(self.starts) - 1)
        return (
            f"Tokens(n_tokens={len(self)}, n_documents={n_documents}, "
            f"n_vocab={self.n_vocab})"
        )

    def split(self, fraction: float) -> tuple[Tokens, Tokens]:
        """Split off the last `fraction` of the ids, between two documents.

        If the next document starts so late that less than half of that would
        be left, as in a text that is one long document, the split goes
        through a document.

        Args:
            fraction: The share to split off, between 0 and 1.

        Returns:
            The first part and the last part.

        Raises:
            ValueError: The fraction is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"fraction must lie between 0 and 1; got {fraction}"
            )
        n_last = round(len(self) * fraction)
        cut = end = len(self) - n_last
        later = self.starts[np.searchsorted(self.starts, cut) :]
        if later.size and len(self) - later[0] > n_last / 2:
            cut = int(later[0])
            end = cut + 1  # this end of text also ends the first part
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
    chunks: Iterable[Sequence[int] | np.ndarray],
    n_vocab: int,
    end_of_text: int,
) -> Tokens:
    """Write a corpus to a token file, all or nothing.

    Only one chunk is in memory at a time.

    Args:
        path: The file of ids; a `.starts` and a `.json` file go next to it.
        chunks: The ids, in chunks of any length, with `end_of_text` after each
            document. Another one is written before the first document.
        n_vocab: All ids are below this. Up to 65,536, an id takes two bytes;
            above, four.
        end_of_text: The id of `<|endoftext|>`.

    Returns:
        The corpus, memory-mapped.

    Raises:
        DataError: There is no text, or an id is not in the vocabulary.
        OSError: The files cannot be written.
    """
    # A reader looks for the facts first, so they are moved in last.
    first = [_places(path)[2].name]
    with replacing(path.parent, path.name, first=first) as stage:
        _write_parts(stage / path.name, chunks, n_vocab, end_of_text)
    return read_tokens(path)


def _write_parts(
    path: Path,
    chunks: Iterable[Sequence[int] | np.ndarray],
    n_vocab: int,
    end_of_text: int,
) -> None:
    """Write the three files of a corpus, chunk by chunk."""
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
        raise DataError(
            "expected text, but the corpus has no tokens except ends of text"
        )
    facts = {
        "n_tokens": n_tokens,
        "n_vocab": n_vocab,
        "checksum": checksum(ids_path, starts_path, begin=n_vocab),
    }
    facts_path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _places(path: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the ids, the starts and the facts of a corpus."""
    return path, path.with_suffix(".starts"), path.with_suffix(".json")


def _dtype(n_vocab: int) -> np.dtype[Any]:
    return np.dtype("<u2" if n_vocab <= 2**16 else "<u4")


def checksum(*paths: Path, begin: int = 0) -> int:
    """Return the CRC-32 of the contents of files, read block by block.

    Args:
        paths: The files, in order.
        begin: The value to start from.

    Raises:
        OSError: A file cannot be read.
    """
    value = begin
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value = crc32(block, value)
    return value


def _check_range(ids: np.ndarray, n_vocab: int) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < n_vocab):
        raise DataError(
            f"token ids must lie between 0 and {n_vocab - 1}; got ids from "
            f"{ids.min()} to {ids.max()}"
        )


def read_tokens(path: Path) -> Tokens:
    """Memory-map a corpus that `write_tokens` wrote, and verify its checksum.

    Raises:
        DataError: A file is missing or damaged.
    """
    check_whole(path.parent, DataError, path.name)
    ids_path, starts_path, facts_path = _places(path)
    n_tokens, n_vocab, expected = _read_facts(facts_path)
    dtype = _dtype(n_vocab)
    try:
        size = ids_path.stat().st_size
        if size != n_tokens * dtype.itemsize:
            raise DataError(
                f"{path} is damaged: expected "
                f"{n_tokens * dtype.itemsize:,} bytes for {n_tokens:,} tokens "
                f"({facts_path.name}), got {size:,}"
            )
        found = checksum(ids_path, starts_path, begin=n_vocab)
        if found != expected:
            raise DataError(
                f"{path} or {starts_path.name} is damaged: expected the "
                f"checksum {expected} ({facts_path.name}), got {found}"
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
            f"{starts_path} is damaged: the starts of documents must "
            f"increase and be from 0 to {n_tokens - 1:,}"
        )
    if (highest := int(ids.max())) >= n_vocab:
        raise DataError(
            f"{path} is damaged: expected ids below {n_vocab}, got {highest}"
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
    """Draw the batch of one training step.

    Args:
        tokens: The corpus.
        step: The number of the step; it and the seed determine the batch.
        n_rows: The number of rows, B.
        length: The most ids in a row: T + 1 for a model that reads T.
        windows: With `documents`, each row is one document, padded, with the
            `<|endoftext|>` before it and the one after it. So every token has
            its whole context, and none sees another document. Of a longer
            document, only the first `length` ids are used. With `anywhere`,
            for long texts, rows start at any position and are full.
        seed: The seed of the run.

    Returns:
        Tokens (B, T) int64 and attention mask (B, T) bool, as from `pad`.

    Raises:
        DataError: The corpus is shorter than a row, or has no document.
    """
    rng = np.random.default_rng((seed, step))
    if windows == "documents":
        which = rng.integers(_n_documents(tokens), size=n_rows)
        # Sorted by length, the parts of a split batch need less padding.
        lengths = tokens.starts[which + 1] - tokens.starts[which]
        which = which[lengths.argsort(kind="stable")]
        return _documents(tokens, which, length)
    last = len(tokens) - length
    if last < 0:
        raise DataError(
            f"the corpus has {len(tokens):,} tokens, and a row needs "
            f"{length:,}; use more text or a shorter context"
        )
    begins = rng.integers(last + 1, size=n_rows)
    return pad([tokens.ids[b : b + length] for b in begins])


def pad(
    sequences: Sequence[Sequence[int] | np.ndarray],
    padding: int = 0,
    side: Literal["left", "right"] = "right",
) -> tuple[Tensor, Tensor]:
    """Pad sequences of different lengths to one batch.

    Args:
        sequences: B sequences of ids.
        padding: The id to pad with; any will do, since the mask hides it.
        side: The side to pad on.

    Returns:
        Tokens (B, T) int64, and an attention mask (B, T) bool that is false at
        padding. T is the length of the longest sequence.

    Raises:
        ValueError: There are no sequences.
    """
    if not sequences:
        raise ValueError("expected at least one sequence, got none")
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
    """Return the first documents of a corpus, one per row.

    Args:
        tokens: The corpus.
        n_documents: The most documents to return.
        longest: The most ids of each.

    Returns:
        Tokens (B, T) int64 and attention mask (B, T) bool, as from `pad`: each
        document with the `<|endoftext|>` before it and the one after it.

    Raises:
        DataError: The corpus has no document.
    """
    count = min(n_documents, _n_documents(tokens))
    return _documents(tokens, np.arange(count), longest)


def _n_documents(tokens: Tokens) -> int:
    """Count the documents, and raise `DataError` if there are none."""
    count = len(tokens.starts) - 1
    if count < 1:
        raise DataError(
            "expected a whole document, between two ends of text; the corpus "
            "has none"
        )
    return count


def _documents(
    tokens: Tokens, which: np.ndarray, longest: int
) -> tuple[Tensor, Tensor]:
    """Return documents, one per row, each between its two ends of text."""
    begins, ends = tokens.starts[which], tokens.starts[which + 1]
    return pad(
        [
            tokens.ids[begin : min(end + 1, begin + longest)]
            for begin, end in zip(begins, ends, strict=True)
        ]
    )
