"""Text files: blocks, documents, and what a folder holds."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2 import texts
from gpt2.texts import find_texts, read_blocks, split_documents
from gpt2.tokenizer.tokenizer import Tokenizer

# Blocks.


@pytest.fixture(scope="module")
def greedy() -> Tokenizer:
    """A vocabulary with long runs of white space, and many other merges."""
    words = (
        " a aa aaa b \n\n \n\n\n  \n    x\n\t  .. 's don't éé 中中 1 22 333 "
    )
    return Tokenizer.train(words * 20, 285)


@given(
    st.lists(
        st.sampled_from(
            [
                *("a", "aa", "x", "é", "中", "12", "..", "'s"),
                *(" ", "  ", "\n", "\n\n", "\t", "\u2003", "\x1c"),
                *("<|endoftext|>", "<|end"),
            ]
        ),
        max_size=60,
    )
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_file_in_blocks_has_the_tokens_of_the_whole(
    greedy: Tokenizer, tmp_path: Path, parts: list[str]
) -> None:
    """If there are words, and no more white space than a block."""
    text = "ab c " + "".join(parts)
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_BLOCK_CHARACTERS", 3)
        blocks = list(read_blocks(path))
    assert "".join(blocks) == text
    # A long stretch without such a place is cut anywhere.
    seamless = any(
        (before[-1].isspace() or after[0] not in " \n")
        and not after.startswith("<|endoftext|>")
        for before, after in pairwise(blocks)
    )
    ids = [
        i for block in blocks for i in greedy.encode(block, allow_special=True)
    ]
    if not seamless:
        assert ids == greedy.encode(text, allow_special=True)
    assert ids.count(greedy.end_of_text) == text.count("<|endoftext|>")


def test_blocks_end_where_words_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_BLOCK_CHARACTERS", 40)
    path = tmp_path / "text.txt"
    path.write_text("One day  a cat\n\n saw a dog.\n" * 40)
    blocks = list(read_blocks(path))
    assert len(blocks) > 20
    for before, after in pairwise(blocks):
        assert not before[-1].isspace()
        assert after[0] in " \n"


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("Müller".encode("latin-1"))
    with pytest.raises(ValueError, match=r"text\.txt is not UTF-8"):
        list(read_blocks(path))
    path.write_bytes("\ufeffone".encode())
    assert list(read_blocks(path)) == ["one"]


def test_a_block_without_a_seam_is_cut_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_BLOCK_CHARACTERS", 40)
    path = tmp_path / "text.txt"
    for text in ("x" * 1000, " " * 1000, "x" * 75 + "<|endoftext|>" * 40):
        path.write_text(text)
        blocks = list(read_blocks(path))
        assert "".join(blocks) == text
        assert max(map(len, blocks)) <= 80
        ends = sum(block.count("<|endoftext|>") for block in blocks)
        assert ends == text.count("<|endoftext|>")


# Documents.


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("", []),
        ("one", ["one"]),
        ("one<|endoftext|>two\n", ["one", "two\n"]),
        ("<|endoftext|>one<|endoftext|><|endoftext|>two<|endoftext|>",
         ["one", "two"]),
        ("<|endoftext|>", []),
        ("one <|end of text|>", ["one <|end of text|>"]),
    ],
)  # fmt: skip
def test_documents(text: str, documents: list[str]) -> None:
    assert split_documents(text) == documents


# Folders.


def test_a_folder_stands_for_the_text_files_below_it(tmp_path: Path) -> None:
    for name in (
        *("b.txt", "a/z.TXT", "a/b.md", "a.text", "a-b/c.txt"),
        *("c.py", "txt", ".hidden.txt", ".git/d.txt", "a/.e/f.txt"),
        *("run/merges.txt", "a/run/g.txt"),
    ):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    folder = tmp_path / "texts"
    (folder / "i.txt").mkdir()
    os.mkfifo(folder / "j.txt")
    found = find_texts([folder / "c.py", folder], leave_out=folder / "run")
    assert [path.relative_to(folder).as_posix() for path in found] == [
        *("c.py", "a/b.md", "a/run/g.txt", "a/z.TXT", "a-b/c.txt"),
        *("a.text", "b.txt"),
    ]
    assert folder / "run" / "merges.txt" in find_texts([folder])


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code.py").touch()
    with pytest.raises(ValueError, match=rf"{tmp_path} .* \.txt, .*\.md$"):
        find_texts([tmp_path])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "merges.txt").touch()
    with pytest.raises(ValueError, match=rf"outside {tmp_path / 'run'}"):
        find_texts([tmp_path], leave_out=tmp_path / "run")
    missing = tmp_path / "missing.txt"
    assert find_texts([missing]) == [missing]  # reading it says so
