"""Byte-level BPE: training, files, and two encoders that must agree."""

import hashlib
import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import torch
from fuzzing import damaged_tokenizer, outcome
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2.tokenizer import tokenizer as module
from gpt2.tokenizer.bpe import (
    BYTE_TO_CHARACTER,
    END_OF_TEXT,
    TokenizerError,
    byte_alphabet,
    count_pieces,
    find_halves,
    is_forestalled,
    learn_merges,
    merge_piece,
    spell,
    split_text,
    unspell,
)
from gpt2.tokenizer.newer import as_of_unicode_16
from gpt2.tokenizer.tokenizer import Tokenizer

TEXT = (
    "The cat that sat on the mat saw the other cat, and the other cat sat.\n"
    "  It's 1234 o'clock; they'll say: 'we're the cats that you've fed'!\n"
    "Größe, naïve café, 日本語の文字, привет мир, 😀😃😄😀, 👩‍👩‍👧 ...\n\n"
    "    indented = [the, that, then, than, thaw]  # ##########\n"
) * 3
OWN = Tokenizer.train(TEXT, 400)
BYTES = Tokenizer.bytes_only()

FRAGMENTS = [
    *["<|endoftext|>", "'ll", "'S", "the", " that", "aaaa", "123", "½", "٣"],
    *[" ", "   ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c"],
    *["\x00", "\x85", "\ufeff", "\ufffd", "\u200d", "e\u0301", "é", "ß"],
    *["日本", "😀", "👩‍👩‍👧", "\U0010ffff", "مرحبا", "Ġ", "Ā", "!?", "_"],
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text()).map("".join)


def border_tokenizer() -> Tokenizer:
    """Show each border of pieces: across any other place, tokens merge."""
    tokens = [bytes([byte]) for byte in BYTE_TO_CHARACTER]
    tokens += [bytes([a, b]) for a in b"a1! \n'" for b in range(256)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return Tokenizer(ranks, {END_OF_TEXT: len(tokens)})


BORDERS = border_tokenizer()

# No deadline: a busy machine may be slow.
unhurried = settings(deadline=None)


@pytest.fixture(scope="session")
def real() -> Tokenizer:
    try:
        return Tokenizer.gpt2()
    except TokenizerError as error:
        pytest.skip(str(error))


# Encoding


def test_pieces_follow_the_pattern():
    assert split_text("Hello, it's  2 dogs\n\n x ") == [
        *["Hello", ",", " it", "'s", " ", " 2", " dogs", "\n\n", " x", " "],
    ]


@pytest.mark.parametrize("name", [r"\p{L}", r"\p{N}", r"\s"])
def test_both_libraries_know_the_same_characters(name):
    """On every code point: the versions of Unicode they know differ."""
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    encoding = tiktoken.Encoding(
        "one class",
        pat_str=name,  # what does not match is not encoded
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    known = bytes(encoding.encode_ordinary(every)).decode()
    found = regex.findall(as_of_unicode_16(name), every)
    assert known == "".join(found)
    newer = regex.findall(name, every)
    assert set(found) <= set(newer)


NEWER = "\U000323da\u9019"  # a letter since 2025, and one of 1991


def test_a_letter_newer_than_unicode_16_is_none():
    assert split_text(NEWER) == list(NEWER)


def test_newer_letters_have_tiktokens_ids(real):
    assert real.encode(NEWER) == real.encode_slowly(NEWER)
    assert real.encode(NEWER)[-3:] == [248, 34460, 247]


def test_merging_takes_the_lowest_rank_and_then_the_leftmost():
    ranks = {b"bc": 256, b"ab": 257, b"aa": 258, b"bcd": 259}
    assert merge_piece(b"abc", ranks) == [b"a", b"bc"]
    assert merge_piece(b"abbc", ranks) == [b"ab", b"bc"]
    assert merge_piece(b"aaa", ranks) == [b"aa", b"a"]
    assert merge_piece(b"abcd", ranks) == [b"a", b"bcd"]
    assert merge_piece(b"", ranks) == []


MERGES = st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=12)


@unhurried
@given(MERGES, st.sampled_from([b"a", b"ab", b"abc"]), st.booleans())
def test_forestalled_is_what_merging_does_not_find(
    merges, letters, bytes_last
):
    """For any vocabulary, with any ids of the bytes."""
    first_id = 1000 if bytes_last else 0
    ranks = {bytes([byte]): first_id + byte for byte in letters}
    halves = {}
    for i, j in merges:
        tokens = list(ranks)
        first, second = tokens[i % len(tokens)], tokens[j % len(tokens)]
        token = first + second
        if token in ranks:
            continue
        found = merge_piece(token, ranks) == [first, second]
        assert is_forestalled(first, second, ranks, halves) is not found
        if found:
            assert find_halves(token, ranks, halves) == (first, second)
            ranks[token], halves[token] = 300 + len(halves), (first, second)


def test_of_equal_pairs_only_the_leftmost_forestalls():
    ranks = {b"a": 0, b"aa": 256}
    halves = {b"aa": (b"a", b"a")}
    for first, second, forestalled in (
        (b"a", b"aa", True),
        (b"aa", b"a", False),
        (b"aa", b"aa", False),
    ):
        assert is_forestalled(first, second, ranks, halves) is forestalled


def test_a_token_without_halves_is_an_error():
    with pytest.raises(TokenizerError, match="b'abc'"):
        find_halves(b"abc", {b"a": 0, b"b": 1, b"c": 2}, {})


def test_no_token_is_learned_that_would_not_load(tmp_path, monkeypatch):
    text = f"{'ab' * 16} {'ab' * 16} {'ba' * 9}"
    assert max(map(len, Tokenizer.train(text, 262).ranks)) == 32
    for name in ("gpt2.tokenizer.bpe", "gpt2.tokenizer.contents"):
        monkeypatch.setattr(f"{name}.LONGEST_TOKEN", 13)
    tokenizer = Tokenizer.train(text, 262)
    assert max(map(len, tokenizer.ranks)) in range(8, 14)
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).ranks == tokenizer.ranks


@unhurried
@given(TEXTS)
def test_any_text_round_trips(text):
    for tokenizer in (OWN, BYTES, BORDERS):
        for ids in (tokenizer.encode(text), tokenizer.encode_slowly(text)):
            assert tokenizer.decode(ids) == text
            assert all(0 <= i < tokenizer.end_of_text for i in ids)
        assert tokenizer.encode_bytes(text.encode()) == tokenizer.encode(text)


@unhurried
@given(TEXTS)
def test_both_encoders_agree(text):
    for tokenizer in (OWN, BYTES, BORDERS):
        assert tokenizer.encode(text) == tokenizer.encode_slowly(text)


@unhurried
@given(st.text(), st.sampled_from("a1! \n'"))
def test_both_encoders_see_the_same_borders(text, before):
    text = "".join(before + character for character in text)
    assert BORDERS.encode(text) == BORDERS.encode_slowly(text)


@unhurried
@given(TEXTS)
def test_both_encoders_agree_on_gpt2s_vocabulary(real, text):
    ids = real.encode(text)
    assert ids == real.encode_slowly(text)
    assert ids == tiktoken.get_encoding("gpt2").encode_ordinary(text)
    assert real.decode(ids) == text


@unhurried
@given(st.data())
def test_both_encoders_agree_on_any_trained_vocabulary(data):
    texts = st.text("ab \u00e9", min_size=1) | TEXTS
    pieces = count_pieces(data.draw(st.lists(texts)))
    size = 257 + len(learn_merges(pieces, data.draw(st.integers(0, 60))))
    corpus = [piece.decode() for piece in pieces.elements()]
    tokenizer = Tokenizer.train(corpus, size)
    text = data.draw(texts)
    assert tokenizer.encode(text) == tokenizer.encode_slowly(text)


@unhurried
@given(st.binary() | TEXTS.map(str.encode).map(lambda data: data[1:-1]))
@example(b"\xed\xb2\x80 a CESU surrogate \xf0\x9f\x98 cut emoji \xff\xfe")
def test_any_bytes_round_trip(data):
    for tokenizer in (OWN, BYTES):
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_known_gpt2_ids(real):
    known = {
        "Hello world": [15496, 995],
        "Hello, my": [15496, 11, 616],
        "The dog": [464, 3290],
        "Data visualization empowers users to": [
            *[6601, 32704, 795, 30132, 2985, 284],
        ],
        "John and Mary went to the": [7554, 290, 5335, 1816, 284, 262],
    }
    for text, ids in known.items():
        assert real.encode(text) == real.encode_slowly(text) == ids
    assert (real.n_vocab, real.end_of_text) == (50257, 50256)


@pytest.mark.parametrize(
    "method", ["encode", "encode_slowly", "encode_to_numpy"]
)
def test_a_lone_surrogate_is_an_error(method):
    with pytest.raises(TokenizerError, match=r"U\+D83D"):
        getattr(OWN, method)("smile \ud83d")
    with pytest.raises(TokenizerError, match=r"U\+DE00"):
        Tokenizer.train("smile \ude00", 257)


# On a million spaces before a word, tiktoken 0.14 raises ValueError, "Max
# stack size exceeded for backtracking". These tests check that no such text
# reaches it.


@unhurried
@given(st.text(" \n\u3000ax", max_size=20))
def test_cutting_long_runs_changes_no_piece(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LONGEST_RUN", 2)
        assert OWN.encode(text) == OWN.encode_slowly(text)


def test_what_splits_is_white_space_to_python_too():
    """So a glance with `isspace` overlooks no long run."""
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    spaces = regex.findall(r"\s", every)
    assert len(spaces) > 20
    assert all(map(str.isspace, spaces))


@pytest.mark.parametrize("before", range(30))
def test_a_long_run_is_found_wherever_it_begins(monkeypatch, before):
    monkeypatch.setattr(module, "_LONGEST_RUN", 10)
    text = before * "a" + 11 * " " + "b"
    assert module._split_long_runs(text) == [text[:-2], " b"]


@pytest.mark.parametrize("method", ["encode", "encode_to_numpy"])
@pytest.mark.parametrize("space", [" ", "\n", "\u3000"])
def test_tiktoken_gets_no_longer_run_than_it_can_take(
    monkeypatch, space, method
):
    """A run at the end may be longer: there is no backtracking."""
    seen = []

    class Spy:
        def encode_ordinary(self, text):
            seen.append(text)
            return OWN._encoding.encode_ordinary(text)

        def encode_to_numpy(self, text, disallowed_special):
            return np.array(self.encode_ordinary(text))

    tokenizer = Tokenizer(OWN.ranks, OWN.special_tokens)
    monkeypatch.setattr(tokenizer, "_encoding", Spy())
    assert 50_000 <= module._LONGEST_RUN <= 500_000  # it can take 900,000
    monkeypatch.setattr(module, "_LONGEST_RUN", 10)
    run = space * 11
    text = f"a{run}b  c{run}"
    assert [*getattr(tokenizer, method)(text)] == OWN.encode_slowly(text)
    assert seen == ["a" + space * 10, f"{space}b  c{run}"]


@pytest.mark.parametrize("allow_special", [False, True])
@pytest.mark.parametrize(
    "text",
    ["", "a", END_OF_TEXT, f"a b{END_OF_TEXT}\n{END_OF_TEXT}c", "na\u00efve"],
)
def test_an_array_of_ids_holds_the_same_ids(text, allow_special):
    array = OWN.encode_to_numpy(text, allow_special)
    assert (array.dtype, array.ndim) == (np.uint32, 1)
    assert array.tolist() == OWN.encode(text, allow_special)


# Special tokens


def test_special_tokens_are_text_unless_asked_for():
    text = f"a{END_OF_TEXT}b"
    plain = OWN.encode(text)
    assert OWN.end_of_text not in plain
    assert OWN.decode(plain) == text
    asked = OWN.encode(text, allow_special=True)
    assert asked == [*OWN.encode("a"), 399, *OWN.encode("b")]
    assert OWN.decode(asked) == text
    assert OWN.special_tokens == {END_OF_TEXT: 399}


def test_special_tokens_may_have_any_id(tmp_path):
    specials = {"<pad>": 0, END_OF_TEXT: 1, "<a b>": OWN.n_vocab + 1}
    ranks = {token: rank + 2 for token, rank in OWN.ranks.items()}
    Tokenizer(ranks, specials).save(tmp_path)
    written = json.loads((tmp_path / "vocab.json").read_text())
    assert list(written.values()) == list(range(len(ranks) + 3))
    moved = Tokenizer.load(tmp_path)
    assert moved.special_tokens == specials
    assert moved.ranks == ranks
    assert moved.merges == OWN.merges
    shifted = [token_id + 2 for token_id in OWN.encode(TEXT)]
    assert moved.encode(TEXT) == moved.encode_slowly(TEXT) == shifted
    asked = moved.encode("<a b><pad>", allow_special=True)
    assert asked == [OWN.n_vocab + 1, 0]
    assert moved.decode(asked) == "<a b><pad>"


# Decoding


@pytest.mark.parametrize("token_id", [-1, 400, 10**30])
def test_an_unknown_id_is_an_error(token_id):
    message = rf"\b399\b, got {token_id}\b"
    with pytest.raises(TokenizerError, match=message):
        OWN.decode([0, token_id])
    with pytest.raises(TokenizerError, match=message):
        list(OWN.stream([0, token_id]))


def test_token_bytes_is_the_inverse_of_the_ranks():
    for tokenizer in (OWN, BYTES):
        for token, rank in tokenizer.ranks.items():
            assert tokenizer.token_bytes(rank) == token
        end = tokenizer.token_bytes(tokenizer.end_of_text)
        assert end == END_OF_TEXT.encode()


class Array:
    """What NumPy, PyTorch and others have in common."""

    def __init__(self, values):
        self.values, self.shape = values, np.shape(values)

    def tolist(self):
        return self.values


@pytest.mark.parametrize("make", [Array, np.array, torch.tensor])
def test_decode_takes_what_generate_returns(make):
    text = "the cat 😀"
    ids = OWN.encode(text)
    for values in (ids, [ids]):
        assert OWN.decode(make(values)) == text
        assert OWN.decode_bytes(make(values)) == text.encode()
    assert OWN.decode(make([[]])) == OWN.decode(iter([])) == ""


def test_streaming_takes_one_token_at_a_time_as_a_tensor():
    tokens = torch.tensor(OWN.encode("the cat 😀"))
    for given_one_by_one in (tokens, tokens.split(1)):
        assert "".join(OWN.stream(given_one_by_one)) == "the cat 😀"


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1, 1, 3), (3, 1), ()])
def test_more_than_one_row_is_decoded_row_by_row(make, shape):
    several = make(np.zeros(shape, int))
    with pytest.raises(TokenizerError, match="row by row") as caught:
        OWN.decode(several)
    assert str(tuple(several.shape)) in str(caught.value)


@pytest.mark.parametrize("value", [1.0, "a", None, [1, 2], torch.tensor(1.5)])
def test_what_is_no_id_is_an_error_that_shows_it(value):
    with pytest.raises(TokenizerError, match=f"got {re.escape(repr(value))}"):
        OWN.decode([0, value])


def test_a_tensor_of_floats_holds_no_ids():
    with pytest.raises(TokenizerError, match=r"got 2\.0"):
        OWN.decode(torch.tensor([[2.0]]))


def test_bytes_that_are_not_utf8_are_shown_as_replaced():
    assert BYTES.decode(BYTES.encode_bytes(b"a\xffb\xf0\x9f")) == "a�b�"


def test_streaming_holds_back_unfinished_characters():
    ids = BYTES.encode("é😀!")
    assert len(ids) == 2 + 4 + 1
    assert list(BYTES.stream(ids)) == ["é", "😀", "!"]
    assert list(BYTES.stream(ids[:4])) == ["é", "�"]


def test_streaming_yields_each_character_as_soon_as_it_is_whole():
    given_so_far = []

    def ids():
        for token_id in BYTES.encode("a😀"):
            given_so_far.append(token_id)
            yield token_id

    stream = BYTES.stream(ids())
    assert (next(stream), len(given_so_far)) == ("a", 1)
    assert (next(stream), len(given_so_far)) == ("😀", 5)


@unhurried
@given(st.lists(st.integers(0, 399)))
def test_streaming_says_what_decoding_says(ids):
    parts = list(OWN.stream(ids))
    assert "".join(parts) == OWN.decode(ids)
    assert "" not in parts


@unhurried
@given(TEXTS.filter(lambda text: "\ufffd" not in text))
def test_streaming_never_shows_half_a_character(text):
    for tokenizer in (OWN, BYTES):
        parts = tokenizer.stream(tokenizer.encode(text))
        assert not any("\ufffd" in part for part in parts)


# Showing


def test_a_tokenizer_shows_its_sizes_in_one_line():
    more = {END_OF_TEXT: 399, **{f"<{i}>": 400 + i for i in range(1000)}}
    for tokenizer, special in (
        (OWN, "['<|endoftext|>']"),
        (Tokenizer(OWN.ranks, more), "['<|endoftext|>', '<0>',"),
    ):
        shown = repr(tokenizer)
        assert str(tokenizer.n_vocab) in shown
        assert f"={len(tokenizer.merges)}," in shown
        assert special in shown
        assert "\n" not in shown
        assert len(shown) < 150


# Training


def test_merges_worked_by_hand():
    # aaabdaaabac: aa occurs 4 times. Then aa+a and a+b tie at 2, and a+b is
    # first in byte order. Then aa+ab, 2; then four pairs tie, a+c is first.
    tokenizer = Tokenizer.train("aaabdaaabac", 261)
    expected = [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab"), (b"a", b"c")]
    assert tokenizer.merges == expected
    assert tokenizer.ranks[b"aaab"] == 258
    d = tokenizer.ranks[b"d"]
    assert tokenizer.encode("aaabdaaabac") == [258, d, 258, 259]
    assert (tokenizer.n_vocab, tokenizer.end_of_text) == (261, 260)


def test_training_says_how_far_it_is():
    said = []
    Tokenizer.train(TEXT, 300, progress=said.append)
    assert said == list(range(1, 300 - 257 + 1))


def test_training_reads_texts_once_and_ignores_their_order():
    lines = TEXT.splitlines(keepends=True)
    forwards = Tokenizer.train(iter(lines), 350)
    backwards = Tokenizer.train(reversed(lines), 350)
    assert forwards.ranks == backwards.ranks
    assert len(forwards.merges) == 350 - 257


def test_the_separator_of_documents_is_not_learned():
    documents = ["the cat", " the cat", "sat"] * 3
    joined = Tokenizer.train(END_OF_TEXT.join(documents), 264)
    assert joined.ranks == Tokenizer.train(documents, 264).ranks


def test_too_few_pairs_is_an_error_that_says_how_many_there_are():
    with pytest.raises(TokenizerError, match=r"n_vocab=300\b.*\b260$"):
        Tokenizer.train("abc abc", 300)
    assert Tokenizer.train("abc", 259).merges == [(b"a", b"b"), (b"ab", b"c")]


@pytest.mark.parametrize("n_vocab", [256, 0, -1])
def test_a_vocabulary_needs_room_for_bytes_and_the_end(n_vocab):
    with pytest.raises(TokenizerError, match=rf"\b257\b.*{n_vocab}$"):
        Tokenizer.train(TEXT, n_vocab)


def test_the_smallest_vocabulary_is_bytes_and_the_end_of_text():
    assert (BYTES.n_vocab, BYTES.end_of_text) == (257, 256)
    assert BYTES.merges == []
    assert BYTES.encode("A é") == [32, 220, 127, 102]
    assert {BYTES.token_bytes(i)[0] for i in range(256)} == set(range(256))


# Files


def test_the_byte_alphabet_is_gpt2s():
    alphabet = byte_alphabet()
    assert sorted(alphabet) == list(range(256))
    assert len(set(alphabet.values())) == 256
    assert "".join(alphabet.values()).isprintable()
    assert " " not in alphabet.values()
    assert spell(b" \n\x00Az\xe9\xad") == "ĠĊĀAzéŃ"
    assert unspell("ĠĊĀAzéŃ") == b" \n\x00Az\xe9\xad"
    known = {"!": 0, "A": 32, "~": 93, "\x00": 188, "\n": 198, " ": 220}
    for char, token_id in known.items():  # these ids are GPT-2's own
        assert BYTES.encode(char) == [token_id]


@pytest.mark.parametrize("tokenizer", [OWN, BYTES], ids=["own", "bytes"])
def test_saving_and_loading_changes_nothing(tokenizer, tmp_path):
    folder = tmp_path / "new" / "folder"
    tokenizer.save(folder)
    loaded = Tokenizer.load(str(folder))
    assert loaded.ranks == tokenizer.ranks
    assert loaded.merges == tokenizer.merges
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    names = {path.name for path in folder.iterdir()}
    assert names == {"vocab.json", "merges.txt", "tokenizer_config.json"}


def test_openais_file_names_are_read_too(tmp_path):
    OWN.save(tmp_path)
    ours = tmp_path / "vocab.json", tmp_path / "merges.txt"
    theirs = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    assert Tokenizer.find(tmp_path) == ours
    for path, new_path in zip(ours, theirs, strict=True):
        path.rename(new_path)
    assert Tokenizer.find(str(tmp_path)) == theirs
    assert Tokenizer.load(tmp_path).ranks == OWN.ranks


def test_windows_line_ends_are_read_too(tmp_path):
    OWN.save(tmp_path)
    path = tmp_path / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.load(tmp_path).ranks == OWN.ranks


def test_gpt2s_files_are_written_byte_for_byte(real, tmp_path):
    real.save(tmp_path)
    published = {
        "vocab.json": "196139668be63f3b5d6574427317ae82"
        "f612a97c5d1cdaf36ed2256dbf636783",
        "merges.txt": "1ce1664773c50f3e0cc8842619a93edc"
        "4624525b728b188a9e0be33b7726adc5",
    }
    for name, expected in published.items():
        content = (tmp_path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
    assert Tokenizer.load(tmp_path).ranks == real.ranks


def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch):
    BYTES.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_text = Path.write_text

    def fail_at_the_config(path, *args, **kwargs):
        if path.name == "tokenizer_config.json":
            raise OSError("no space left on device")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", fail_at_the_config)
    with pytest.raises(OSError, match="no space"):
        OWN.save(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before


def test_without_cache_and_network_the_error_says_what_to_do(
    tmp_path, monkeypatch
):
    def no_network(path):
        raise OSError("no route to host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", no_network)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    with pytest.raises(TokenizerError, match="TIKTOKEN_CACHE_DIR"):
        Tokenizer.gpt2()


# Hostile files


def change_vocabulary(**changes):
    """Rewrite vocab.json; a token with the id None is removed."""

    def change(folder):
        path = folder / "vocab.json"
        entries = (json.loads(path.read_text()) | changes).items()
        kept = {key: value for key, value in entries if value is not None}
        path.write_text(json.dumps(kept))

    return change


def write(name, content):
    def change(folder):
        (folder / name).write_bytes(content)

    return change


def write_merges(*lines):
    text = "".join(f"{line}\n" for line in ("#version: 0.2", *lines))
    return write("merges.txt", text.encode())


def remove(name):
    return lambda folder: (folder / name).unlink()


def make_folder(name):
    def change(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


# The vocabulary under attack: merges "a b" (256), "b c" (257), "ab c" (258).
MERGED = {"ab": 256, "bc": 257, "abc": 258, END_OF_TEXT: 259}
IN_VOCABULARY = {
    "missing": (remove("vocab.json"), "tokenizer.json.*vocab.json"),
    "a folder": (make_folder("vocab.json"), "vocab.json.*folder"),
    "empty": (write("vocab.json", b""), "vocab.json"),
    "not JSON": (write("vocab.json", b"{1: 2"), "vocab.json"),
    "too deep": (write("vocab.json", b"[" * 10**6), "vocab.json.*nested"),
    "not UTF-8": (write("vocab.json", b'{"\xff": 1}'), "vocab.json.*utf-8"),
    "with a mark": (write("vocab.json", b"\xef\xbb\xbf{}"), "json.*BOM"),
    "a list": (write("vocab.json", b"[1, 2]"), "vocab.json.*list"),
    "a name twice": (write("vocab.json", b'{"a": 1, "a": 2}'), "json.*'a'"),
    "list id": (change_vocabulary(ab=[256]), r"json: .*'ab'.*\[256\]"),
    "long id": (change_vocabulary(ab=10**50), r"vocab.json.*\b51\b"),
    "long entry": (
        change_vocabulary(**{"a" * 2048: 260}),
        r"vocab.json: .*'aa.*\b2,048\b.*\b1,024\b",
    ),
    "text id": (change_vocabulary(ab="256"), "vocab.json: .*'ab'.*'256'"),
    "float id": (change_vocabulary(ab=256.0), r"json: .*'ab'.*\b256\.0"),
    "true id": (change_vocabulary(ab=True), "vocab.json: .*'ab'.*True"),
    "no name": (change_vocabulary(**{"": 260}), r"json: .*''.*\b260\b"),
    "id twice": (
        change_vocabulary(**{"<x>": 259}),
        r"vocab.json: '<x>'.*\b259;.*\b260\b",
    ),
    "id gap": (
        change_vocabulary(**{"<x>": 261}),
        r"vocab.json: '<x>'.*\b261;.*\b260 next",
    ),
    "id below 0": (
        change_vocabulary(**{"<x>": -1}),
        r"vocab.json: '<x>'.* -1;.*\b0 next",
    ),
    "no byte": (change_vocabulary(A=None), r"vocab.json: .*\b32 next"),
    "no end": (change_vocabulary(**{END_OF_TEXT: None}), "json: .*endoftext"),
    "lost bytes": (change_vocabulary(ðŁ=260), "merges.txt: .*'ðŁ'"),
    "surrogate": (change_vocabulary(**{"\ud800": 260}), "vocab.json: .*D800"),
}
IN_MERGES = {
    "missing": (remove("merges.txt"), "merges.txt"),
    "not UTF-8": (write("merges.txt", b"\xff"), "merges.txt.*utf-8"),
    "with a mark": (
        write("merges.txt", b"\xef\xbb\xbf#version: 0.2\na b\n"),
        r"merges.txt, line 1: '\\ufeff#version: 0\.2'.*two",
    ),
    "other line ends": (write("merges.txt", b"a b\rb c"), "line 1: 'a b.*two"),
    "a long line": (
        write_merges("a b", "a" * 5000),
        "merges.txt, line 3: 'a{79} .{,40}two",
    ),
    "one part": (write_merges("a b", "bc"), "merges.txt, line 3: 'bc'.*two"),
    "three parts": (write_merges("a b c"), "line 2: 'a b c'.*two"),
    "bad part": (write_merges("a 語"), "line 2: 'a 語'.*two"),
    "no part": (write_merges("a b", " c"), "line 3: ' c'.*joins"),
    "unknown part": (write_merges("ab c"), "line 2: 'ab c'.*joins"),
    "unknown end": (write_merges("c ab"), "line 2: 'c ab'.*joins"),
    "second header": (write_merges("#version: 0.2"), "line 2: '#ver.*joins"),
    "unknown result": (write_merges("a a"), r"line 2: 'a a'.*\bid\b"),
    "same line twice": (write_merges("a b", "a b"), r"line 3: 'a b'.*\bid\b"),
    "wrong order": (write_merges("b c", "a b"), r"line 3: .*\b256\b.*\b257"),
    "forestalled": (write_merges("a b", "b c", "a bc"), "line 4: .*forestall"),
    "lost line": (write_merges("a b", "b c"), "merges.txt: .*'abc'"),
}


@pytest.fixture
def folder(tmp_path):
    alphabet = BYTE_TO_CHARACTER.values()
    vocabulary = {char: token_id for token_id, char in enumerate(alphabet)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | MERGED))
    write_merges("a b", "b c", "ab c")(tmp_path)
    return tmp_path


def test_the_files_before_the_attacks_are_good(folder):
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("abc bc") == [258, tokenizer.ranks[b" "], 257]
    change_vocabulary(**{"<x>": 260, "a 語": 261})(folder)
    special = {END_OF_TEXT: 259, "<x>": 260, "a 語": 261}
    assert Tokenizer.load(folder).special_tokens == special


def load_after(attack, folder):
    change, message = attack
    change(folder)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("attack", IN_VOCABULARY)
def test_a_hostile_vocabulary_is_refused_by_name_and_reason(folder, attack):
    load_after(IN_VOCABULARY[attack], folder)


@pytest.mark.parametrize("attack", IN_MERGES)
def test_hostile_merges_are_refused_by_name_and_reason(folder, attack):
    load_after(IN_MERGES[attack], folder)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_merges_may_end_as_they_like(folder, end):
    path = folder / "merges.txt"
    path.write_bytes(b"#version: 0.2\r\na b\r\n\r\nb c\nab c" + end.encode())
    assert len(Tokenizer.load(folder).merges) == 3


def test_a_long_token_that_merges_make_is_refused(folder):
    """Finding its halves would take time quadratic in its length."""
    merges = ["a b", "b c", "ab c", "a a"]
    ids = {**MERGED, END_OF_TEXT: 271, "aa": 259}
    for i in range(1, 12):
        half = "a" * 2**i
        merges.append(f"{half} {half}")
        ids[half * 2] = 259 + i
    change_vocabulary(**ids)(folder)
    write_merges(*merges)(folder)
    load_after(
        (lambda folder: None, r"'aa.*\b2,048\b.*\b1,024\b"),
        folder,
    )


def test_files_are_read_up_to_a_size(folder, monkeypatch):
    monkeypatch.setattr("gpt2.tokenizer.contents.MOST_BYTES", 20)
    load_after(
        (write_merges("a b", "b c"), r"merges.txt.*\b20\b"),
        folder,
    )


FILES = ["vocab.json", "merges.txt", "added_tokens.json", "tokenizer.json"]


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
@pytest.mark.parametrize("name", [*FILES, "tokenizer_config.json"])
def test_a_pipe_is_not_waited_for(folder, name, make_pipe):
    (folder / name).unlink(missing_ok=True)
    if name == "tokenizer.json":
        (folder / "vocab.json").unlink()
    make_pipe(folder / name)
    load_after(
        (lambda folder: None, f"{name}.*pipe"),
        folder,
    )


SETTINGS = {
    "a number": (b'{"add_bos_token": 1}', "'add_bos_token'.*1$"),
    "a text": (b'{"add_bos_token": "true"}', "'add_bos_token'.*'true'$"),
    "twice": (
        b'{"add_bos_token": true, "add_bos_token": false}',
        "'add_bos_token'",
    ),
    "a list": (b"[]", "list"),
    "deep": (b'{"a":' * 99 + b"1" + b"}" * 99, "nested"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_odd_settings_are_refused(folder, name):
    content, message = SETTINGS[name]
    change = write("tokenizer_config.json", content)
    load_after((change, f"tokenizer_config.json.*{message}"), folder)


def test_settings_may_say_nothing_of_the_beginning(folder):
    for value, expected in (("null", False), ("false", False), ("true", True)):
        text = f'{{"add_bos_token": {value}, "model_max_length": {10**30}}}'
        (folder / "tokenizer_config.json").write_text(text)
        assert Tokenizer.load(folder).add_bos_token is expected


ADDED = {
    "beyond the end": (b'{"<pad>": 300}', r"'<pad>'.*\b300;.*\b260 next"),
    "below the start": (b'{"<pad>": -1}', r"'<pad>'.* -1;.*\b0 next"),
    "text id": (b'{"<pad>": "260"}', "'<pad>'.*'260'"),
    "no name": (b'{"": 260}', r"''.*\b260\b"),
    "long name": (b'{"' + b"<" * 2000 + b'": 260}', r"\b2,000\b"),
    "a list": (b"[260]", "list"),
    "deep": (b'{"a":' * 99 + b"1" + b"}" * 99, "nested"),
}


@pytest.mark.parametrize("name", ADDED)
def test_odd_added_tokens_are_refused_by_their_own_file(folder, name):
    content, message = ADDED[name]
    change = write("added_tokens.json", content)
    load_after((change, f"added_tokens.json.*{message}"), folder)


def test_an_added_token_has_one_id(folder):
    change = write("added_tokens.json", b'{"a": 260}')
    load_after((change, r"added_tokens.json: 'a'.*\b260\b.*\b64\b"), folder)


def test_too_many_special_tokens(monkeypatch):
    monkeypatch.setattr(module, "_MOST_SPECIAL_BYTES", 13)
    Tokenizer(BYTES.ranks, {END_OF_TEXT: 256})
    with pytest.raises(TokenizerError, match=r"\b13\b.*\b2\b.*\b14\b"):
        Tokenizer(BYTES.ranks, {END_OF_TEXT: 256, "x": 257})


def test_any_damage_is_refused_or_read_right(tmp_path):
    outcomes = Counter(
        outcome(damaged_tokenizer(random.Random(seed), tmp_path / "damaged"))
        for seed in range(300)
    )
    assert outcomes.keys() == {"refused", "loaded"}
    assert outcomes["refused"] > 100


def test_a_name_that_no_folder_can_have_is_an_error():
    with pytest.raises(TokenizerError, match=r"a{9}.*File name too"):
        Tokenizer.load("a" * 5000)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    assert Tokenizer.find(tmp_path / "nowhere") is None
    with pytest.raises(TokenizerError, match=r"nowhere: .*vocab\.json"):
        Tokenizer.load(tmp_path / "nowhere")


# Agreement with other libraries


def test_transformers_reads_the_same_tokens_from_the_files(tmp_path):
    transformers = pytest.importorskip("transformers")
    more = {**OWN.special_tokens, "<pad>": OWN.n_vocab}
    texts = [*FRAGMENTS, TEXT, f"a{END_OF_TEXT}b <pad> c", "  a  b\n\n c  "]
    for tokenizer in (OWN, BYTES, Tokenizer(OWN.ranks, more)):
        tokenizer.save(tmp_path)
        for name in ("AutoTokenizer", "GPT2Tokenizer", "GPT2TokenizerFast"):
            other = getattr(transformers, name).from_pretrained(tmp_path)
            assert len(other) == tokenizer.n_vocab
            assert other.eos_token_id == tokenizer.end_of_text
            for text in texts:
                ids = tokenizer.encode(text, allow_special=True)
                assert other(text)["input_ids"] == ids
                assert other.decode(ids) == text


def test_vocabularies_trained_by_tokenizers_load(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.ByteLevelBPETokenizer()
    other.train_from_iterator([TEXT], 420, special_tokens=["<s>", END_OF_TEXT])
    other.save_model(str(tmp_path))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_tokens == {"<s>": 0, END_OF_TEXT: 1}
    assert tokenizer.encode(TEXT) == other.encode(TEXT).ids


# One file with everything, as transformers writes it today


def test_transformers_own_file_loads(tmp_path):
    transformers = pytest.importorskip("transformers")
    OWN.save(tmp_path / "ours")
    other = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    other.add_special_tokens({"pad_token": "<pad>"})
    other.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.json").unlink(missing_ok=True)
    tokenizer = Tokenizer.load(tmp_path / "theirs")
    assert tokenizer.ranks == OWN.ranks
    assert tokenizer.special_tokens["<pad>"] == OWN.n_vocab
    assert tokenizer.n_vocab == OWN.n_vocab + 1 == len(other)
    text = f"{TEXT} <pad> {END_OF_TEXT}"
    assert tokenizer.encode(text, allow_special=True) == other.encode(text)


def one_file(**changes):
    """Write a tokenizer.json with the contents of the two files, changed."""

    def change(folder):
        ids = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().splitlines()[1:]
        model = {"type": "BPE", "vocab": ids, "merges": lines} | changes
        added = [{"id": 259, "content": END_OF_TEXT, "special": True}]
        whole = {"version": "1.0", "model": model, "added_tokens": added}
        whole["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
        }
        (folder / "tokenizer.json").write_text(json.dumps(whole))
        (folder / "vocab.json").unlink()

    return change


@pytest.mark.parametrize(
    "merges", [["a b", "b c", "ab c"], [["a", "b"], ["b", "c"], ["ab", "c"]]]
)
def test_both_ways_to_write_merges(folder, merges):
    one_file(merges=merges)(folder)
    (folder / "merges.txt").unlink()
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("abc bc") == [258, tokenizer.ranks[b" "], 257]
    assert tokenizer.special_tokens == {END_OF_TEXT: 259}


def added(*tokens):
    def change(folder):
        one_file()(folder)
        path = folder / "tokenizer.json"
        whole = json.loads(path.read_text()) | {"added_tokens": tokens}
        path.write_text(json.dumps(whole))

    return change


IN_ONE_FILE = {
    "other kind": (one_file(type="Unigram"), "BPE.*'Unigram'"),
    "no vocab": (one_file(vocab=None), "'vocab'.*None"),
    "pairs": (one_file(vocab=[["a", 0]]), "'vocab'.*list"),
    "no merges": (one_file(merges=3), r"'merges'.*\b3$"),
    "odd merge": (one_file(merges=[3]), "merge 1: 3 .*two"),
    "odd parts": (one_file(merges=[["a", 1]]), r"merge 1: \['a', 1\].*two"),
    "one part": (one_file(merges=[["a"]]), "merge 1: 'a'.*two"),
    "an object": (one_file(merges=[{}]), "merge 1: {}.*two"),
    "list type": (one_file(type=["BPE"]), r"BPE.*\['BPE'\]"),
    "long entry": (one_file(vocab={"a" * 1025: 0}), r"\b1,025\b"),
    "added number": (added(5), r"added token 1 .*\b5$"),
    "added null": (added(None), "added token 1 .*None$"),
    "added text id": (
        added({"content": "a", "id": "1"}),
        "token 1.*'id'.*'1'",
    ),
    "added true id": (added({"content": "a", "id": True}), "'id'.*True"),
    "added no id": (added({"content": "a"}), "added token 1.*'id'"),
    "added list": (added({"content": ["a"], "id": 1}), "'content'.*list"),
    "added twice": (
        added(*[{"content": "<x>", "id": 259}] * 2),
        "added token 2: '<x>'",
    ),
    "added beyond": (
        added({"content": END_OF_TEXT, "id": 999}),
        r"json: '<\|endoftext\|>'.*\b999,.*\b259\b",
    ),
    "lost merge": (one_file(merges=["a b", "b c"]), "tokenizer.json: .*'abc'"),
    "text id": (one_file(vocab={"a": "0"}), "'a'.*'0'"),
    "a list": (
        lambda folder: (
            remove("vocab.json")(folder),
            write("tokenizer.json", b"[]")(folder),
        ),
        "tokenizer.json.*list",
    ),
    "no model": (
        lambda folder: (
            remove("vocab.json")(folder),
            write("tokenizer.json", b"{}")(folder),
        ),
        "tokenizer.json.*'model'",
    ),
}


@pytest.mark.parametrize("attack", IN_ONE_FILE)
def test_a_hostile_tokenizer_json_is_refused(folder, attack):
    load_after(IN_ONE_FILE[attack], folder)


def test_tokens_added_beside_the_vocabulary(folder):
    """As in transformers, those are special that another file names."""
    added = {"<pad>": 260, "<sep>": 261}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    names = {"pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.special_tokens == {END_OF_TEXT: 259, "<pad>": 260}
    assert tokenizer.settings.words == {"<sep>": 261}
    assert tokenizer.encode("<pad>", allow_special=True) == [260]
    assert tokenizer.encode("<sep>") == tokenizer.encode_slowly("<sep>")
    assert tokenizer.encode("<sep>") == [261]
