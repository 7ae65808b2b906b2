from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2.data import (
    DataError,
    Tokens,
    checksum,
    draw_batch,
    first_documents,
    pad,
    read_tokens,
    write_tokens,
)

END = 0
DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
ROW = [0, 5, 6, 7, 0, 8, 0, 9, 10, 11, 12, 0, 13, 14, 0]
STARTS = [0, 4, 6, 11, 14]


def ended(documents: list[list[int]]) -> Iterator[list[int]]:
    return ([*document, END] for document in documents)


@pytest.fixture
def corpus(tmp_path: Path) -> Tokens:
    return write_tokens(tmp_path / "c.bin", ended(DOCUMENTS), 17, END)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_ends_of_text_stand_before_between_and_behind(
    corpus: Tokens, tmp_path: Path
) -> None:
    assert corpus.ids.tolist() == ROW
    assert corpus.starts.tolist() == STARTS
    assert len(corpus) == len(ROW)
    assert names(tmp_path) == ["c.bin", "c.json", "c.starts"]
    again = read_tokens(tmp_path / "c.bin")
    assert again.ids.tolist() == ROW
    assert again.starts.tolist() == STARTS
    assert again.n_vocab == 17


def test_is_mapped_and_not_read_into_memory(corpus: Tokens) -> None:
    assert isinstance(corpus.ids, np.memmap)
    assert isinstance(corpus.starts, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        corpus.ids[0] = 1


@pytest.mark.parametrize("cuts", [[], [1], [4], [3, 4, 9], [4, 4]])
def test_pieces_may_be_cut_anywhere(tmp_path: Path, cuts: list[int]) -> None:
    edges = [1, *(1 + cut for cut in cuts), len(ROW)]
    chunks = [ROW[a:b] for a, b in pairwise(edges)]
    tokens = write_tokens(tmp_path / "c.bin", chunks, 17, END)
    assert tokens.ids.tolist() == ROW
    assert tokens.starts.tolist() == STARTS


@pytest.mark.parametrize(
    ("n_vocab", "size"), [(65_536, 2), (65_537, 4), (100_000, 4)]
)
def test_ids_take_as_many_bytes_as_they_need(
    tmp_path: Path, n_vocab: int, size: int
) -> None:
    ids = [1, n_vocab - 1, n_vocab // 2]
    tokens = write_tokens(tmp_path / "c.bin", [ids, [END]], n_vocab, END)
    assert tokens.ids.tolist() == [END, *ids, END]
    assert (tmp_path / "c.bin").stat().st_size == 5 * size
    row, _ = draw_batch(tokens, 0, 1, 5)
    assert row.tolist() == [[END, *ids, END]]


def test_writing_and_reading_take_no_more_memory_for_a_longer_corpus(
    tmp_path: Path,
) -> None:
    write_tokens(tmp_path / "warm-up.bin", ended(DOCUMENTS), 17, END)
    n_chunks, length = 1000, 2000
    pulled: list[int] = []

    def chunks() -> Iterator[list[int]]:
        for i in range(n_chunks):
            pulled.append(i)
            yield [1 + i % 16] * (length - 1) + [END]

    tracemalloc.start()
    tokens = write_tokens(tmp_path / "c.bin", chunks(), 17, END)
    tokens = read_tokens(tmp_path / "c.bin")
    draw_batch(tokens, 0, 4, 32, windows="documents")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pulled) == n_chunks
    assert len(tokens) == n_chunks * length + 1  # 4 MB
    assert peak < 2_500_000  # of which a block to check takes one million


def test_pieces_are_written_as_they_come(tmp_path: Path) -> None:
    """When a chunk is requested, all but the last one are in the file."""
    ahead: list[int] = []

    def chunks() -> Iterator[list[int]]:
        for i in range(50):
            written = sum(
                path.stat().st_size for path in tmp_path.rglob("c.bin")
            )
            ahead.append(10_000 * i - written // 2)
            yield [1] * 10_000

    write_tokens(tmp_path / "c.bin", chunks(), 17, END)
    assert max(ahead) <= 10_000


@pytest.mark.parametrize("bad", [17, -1, 70_000])
def test_refuses_an_id_out_of_range_and_writes_nothing(
    tmp_path: Path, bad: int
) -> None:
    with pytest.raises(DataError, match=rf"\b16\b.*{bad}\b"):
        write_tokens(tmp_path / "c.bin", [[1, 2], [bad]], 17, END)
    assert names(tmp_path) == []


@pytest.mark.parametrize("chunks", [[], [[]], [[END]], [[END], [END]]])
def test_refuses_a_corpus_without_text(
    tmp_path: Path, chunks: list[list[int]]
) -> None:
    with pytest.raises(DataError, match="expected text"):
        write_tokens(tmp_path / "c.bin", chunks, 17, END)
    assert names(tmp_path) == []


def test_what_breaks_off_leaves_the_corpus_before_it(
    corpus: Tokens, tmp_path: Path
) -> None:
    def broken() -> Iterator[list[int]]:
        yield [1, 2, 3]
        raise OSError("no more of it")

    with pytest.raises(OSError, match="no more"):
        write_tokens(tmp_path / "c.bin", broken(), 17, END)
    assert read_tokens(tmp_path / "c.bin").ids.tolist() == ROW
    assert names(tmp_path) == ["c.bin", "c.json", "c.starts"]


def test_what_a_killed_one_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".c.bin.saving" / "new"
    left.mkdir(parents=True)
    (left / "c.bin").write_bytes(b"left over")
    tokens = write_tokens(tmp_path / "c.bin", ended(DOCUMENTS), 17, END)
    assert tokens.ids.tolist() == ROW
    assert names(tmp_path) == ["c.bin", "c.json", "c.starts"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["c.bin", "c.starts", "c.json"])
@pytest.mark.parametrize(
    "damage", [flip, shorten, lengthen, empty, Path.unlink]
)
def test_refuses_a_damaged_corpus_by_name(
    corpus: Tokens, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    del corpus
    damage(tmp_path / name)
    with pytest.raises(DataError, match=r"/c\.(bin|json)"):
        read_tokens(tmp_path / "c.bin")


def test_damage_anywhere_is_detected_or_changes_nothing(
    corpus: Tokens, tmp_path: Path
) -> None:
    """Flip, cut off, remove and insert bytes, in each of the files."""
    rng = random.Random(0)
    for name in ("c.bin", "c.starts", "c.json"):
        path = tmp_path / name
        before = path.read_bytes()
        for _ in range(80):
            place = rng.randrange(len(before))
            head, tail = before[:place], before[place:]
            flipped = bytes([tail[0] ^ 1 << rng.randrange(8)]) + tail[1:]
            changed = [flipped, b"", tail[rng.randrange(1, 9) :]]
            changed.append(rng.randbytes(rng.randrange(1, 9)) + tail)
            path.write_bytes(head + rng.choice(changed))
            try:
                found = read_tokens(tmp_path / "c.bin")
            except DataError as error:
                assert str(tmp_path / "c.") in str(error)
            else:
                assert found.ids.tolist() == corpus.ids.tolist()
                assert found.starts.tolist() == corpus.starts.tolist()
                assert found.fingerprint == corpus.fingerprint
        path.write_bytes(before)


def test_refuses_another_vocabulary(corpus: Tokens, tmp_path: Path) -> None:
    del corpus
    path = tmp_path / "c.json"
    path.write_text(path.read_text().replace("17", "16"))
    with pytest.raises(DataError, match=r"/c\.bin\b"):
        read_tokens(tmp_path / "c.bin")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "list"),
        ("{}", "'n_tokens'"),
        ('{"n_tokens": []}', "'n_tokens'.*list"),
        ('{"n_tokens": true}', "'n_tokens'.*True"),
        ('{"n_tokens": 15.0}', r"'n_tokens'.*15\.0"),
        ('{"n_tokens": 0}', r"'n_tokens'.*\b1\b.*\b0$"),
        ('{"n_tokens": -15}', r"'n_tokens'.*\b1\b.*-15$"),
        (f'{{"n_tokens": {10**19}}}', f"'n_tokens'.*{10**19}$"),
        pytest.param(
            f'{{"n_tokens": 1{"0" * 5000}}}', r"\b5,001\b", id="long"
        ),
        ('{"n_tokens": 15, "n_vocab": "17"}', "'n_vocab'.*'17'"),
        (f'{{"n_tokens": 15, "n_vocab": {2**40}}}', f"'n_vocab'.*{2**40}$"),
        ('{"n_tokens": 15, "n_vocab": 17}', "'checksum'"),
        ('{"n_tokens": 15, "n_tokens": 15}', "'n_tokens'"),
        pytest.param("[" * 100_000, "nested", id="deep"),
    ],
)
def test_refuses_facts_that_are_none(
    corpus: Tokens, tmp_path: Path, text: str, message: str
) -> None:
    del corpus
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=rf"c\.json.*{message}"):
        read_tokens(tmp_path / "c.bin")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.bin", [17] * 15, r"c\.bin .*\b17\b"),
        ("c.starts", [0, 4, 4, 11, 14], r"/c\.starts .*\b14$"),
        ("c.starts", [-1, 4, 6, 11, 14], r"/c\.starts .*\b14$"),
        ("c.starts", [0, 4, 6, 11, 15], r"/c\.starts .*\b14$"),
        ("c.starts", [], r"/c\.bin\b"),
    ],
)
def test_what_makes_no_sense_is_refused_though_the_checksum_is_right(
    corpus: Tokens,
    tmp_path: Path,
    name: str,
    content: list[int],
    message: str,
) -> None:
    del corpus
    dtype = "<u2" if name == "c.bin" else "<i8"
    (tmp_path / name).write_bytes(np.array(content, dtype).tobytes())
    paths = tmp_path / "c.bin", tmp_path / "c.starts"
    facts = json.loads((tmp_path / "c.json").read_text())
    facts["checksum"] = checksum(*paths, begin=17)
    (tmp_path / "c.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=message):
        read_tokens(tmp_path / "c.bin")


def test_the_fingerprint_tells_corpora_apart(tmp_path: Path) -> None:
    def write(name: str, ids: list[int]) -> int:
        tokens = write_tokens(tmp_path / name, [ids, [END]], 17, END)
        return tokens.fingerprint

    long = [1] * 100_000
    changed = long.copy()
    changed[50_000] = 2  # far from both ends
    assert write("a", long) == write("b", long)
    assert write("a", long) != write("b", changed)
    assert write("a", long) != write("b", [*long, 1])


# Splitting.


def test_split_cuts_where_a_document_begins(corpus: Tokens) -> None:
    first, last = corpus.split(0.35)  # 5 of 15 are asked for
    assert first.ids.tolist() == ROW[:12]
    assert first.starts.tolist() == [0, 4, 6, 11]
    assert last.ids.tolist() == ROW[11:]
    assert last.starts.tolist() == [0, 3]
    assert last.n_vocab == first.n_vocab == 17
    prints = {corpus.fingerprint, first.fingerprint, last.fingerprint}
    assert len(prints) == 3
    assert corpus.split(0.5)[0].fingerprint not in prints


def test_split_cuts_through_one_long_document(tmp_path: Path) -> None:
    ids = [1 + i % 16 for i in range(998)]
    tokens = write_tokens(tmp_path / "c.bin", [ids, [END]], 17, END)
    first, last = tokens.split(0.1)
    assert first.ids.tolist() == [END, *ids][:900]
    assert last.ids.tolist() == [*ids[899:], END]
    assert first.starts.tolist() == [0]
    assert last.starts.tolist() == [99]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_split_refuses_what_is_no_share(
    corpus: Tokens, fraction: float
) -> None:
    with pytest.raises(ValueError, match=f"fraction .*{fraction}$"):
        corpus.split(fraction)


# Drawing.


def test_a_batch_hangs_on_seed_and_step_alone(corpus: Tokens) -> None:
    def draw(step: int, seed: int = 0) -> list[list[int]]:
        rows, _ = draw_batch(corpus, step, 8, 4, seed=seed)
        return rows.tolist()

    before = draw(3)
    np.random.seed(1)
    torch.manual_seed(1)
    assert draw(3) == before
    others = [draw(4), draw(3, seed=1), draw(0, seed=3), draw(1, seed=2)]
    assert before not in others
    assert len({str(rows) for rows in others}) == len(others)


def test_rows_are_pieces_of_the_corpus(corpus: Tokens) -> None:
    rows, mask = draw_batch(corpus, 0, 50, 4)
    assert mask.all()
    assert mask.shape == rows.shape
    assert rows.dtype == torch.int64
    assert rows.shape == (50, 4)
    windows = [ROW[i : i + 4] for i in range(len(ROW) - 3)]
    assert all(row in windows for row in rows.tolist())


def test_anywhere_is_uniform(tmp_path: Path) -> None:
    ids = list(range(1, 11))
    tokens = write_tokens(tmp_path / "c.bin", [ids, [END]], 17, END)
    n_rows, n_places = 8000, 12 - 3 + 1
    rows, _ = draw_batch(tokens, 0, n_rows, 3)
    counts = rows[:, 0].bincount()  # the first id says where a row begins
    assert len(counts) == n_places
    expected = n_rows / n_places
    deviation = (expected * (1 - 1 / n_places)) ** 0.5
    assert (counts - expected).abs().max() < 4 * deviation


@pytest.mark.parametrize("longest", [9, 5])
def test_rows_of_documents_are_documents(corpus: Tokens, longest: int) -> None:
    """Each with its ends of text, cut off where it is too long."""
    rows, mask = draw_batch(corpus, 0, 200, longest, windows="documents")
    drawn = [row[real].tolist() for row, real in zip(rows, mask, strict=True)]
    edges = [i for i, token in enumerate(ROW) if token == END]
    documents = [ROW[a : b + 1][:longest] for a, b in pairwise(edges)]
    assert [row for row in drawn if row not in documents] == []
    for document in documents:  # each as often as the others
        assert 25 < drawn.count(document) < 75
    assert sorted(map(len, drawn)) == list(map(len, drawn))


def test_the_last_row_that_fits_is_drawn(corpus: Tokens) -> None:
    whole, _ = draw_batch(corpus, 0, 2, len(ROW))
    assert whole.tolist() == [ROW, ROW]
    last, _ = draw_batch(corpus, 0, 99, 1)
    assert [ROW[-1]] in last.tolist()


def test_refuses_rows_longer_than_the_corpus(corpus: Tokens) -> None:
    with pytest.raises(DataError, match=r"\b15 tokens.*\b16\b"):
        draw_batch(corpus, 0, 1, 16)


# Padding.


@pytest.mark.parametrize(
    ("side", "tokens", "mask"),
    [
        ("right", [[1, 2, 3], [4, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[1, 2, 3], [9, 9, 4]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_padding(
    side: str, tokens: list[list[int]], mask: list[list[int]]
) -> None:
    padded, real = pad([[1, 2, 3], [4]], padding=9, side=side)
    assert padded.tolist() == tokens
    assert real.tolist() == torch.tensor(mask).bool().tolist()
    assert padded.dtype == torch.int64
    assert real.dtype == torch.bool


def test_padding_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pad([])


def test_first_documents(corpus: Tokens) -> None:
    rows, mask = first_documents(corpus, 3, 4)
    assert rows.tolist() == [[0, 5, 6, 7], [0, 8, 0, 0], [0, 9, 10, 11]]
    assert mask.sum(dim=1).tolist() == [4, 3, 4]
    rows, mask = first_documents(corpus, 99, 99)
    assert mask.sum(dim=1).tolist() == [5, 3, 6, 4]
    assert rows[2].tolist() == [0, 9, 10, 11, 12, 0]


def test_a_corpus_shows_its_sizes_and_not_its_ids(corpus: Tokens) -> None:
    for part, n_tokens, n_documents in (
        (corpus, 15, 4),
        (corpus.split(0.35)[1], 4, 1),
    ):
        shown = f"n_tokens={n_tokens}, n_documents={n_documents}, n_vocab=17"
        assert repr(part) == f"Tokens({shown})"


def test_a_part_that_was_split_off_has_whole_documents(
    corpus: Tokens,
) -> None:
    for part, lengths in zip(
        corpus.split(0.35), ([5, 3, 6], [4]), strict=True
    ):
        _, mask = first_documents(part, 99, 99)
        assert mask.sum(dim=1).tolist() == lengths
