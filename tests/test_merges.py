"""Learning merges: the same as counting all over again, but faster.

Nothing is learned while this file is imported, so that a mistake in learning
makes these tests fail.
"""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.tokenizer.bpe import TokenList, count_pieces, learn_merges, unspell

# No deadline: a busy machine may be slow.
unhurried = settings(deadline=None)


def naive_merges(pieces: dict[bytes, int], n_merges: int) -> list:
    words = {piece: [bytes([byte]) for byte in piece] for piece in pieces}
    merges = []
    for _ in range(n_merges):
        counts: Counter = Counter()
        for piece, word in words.items():
            for pair in pairwise(word):
                counts[pair] += pieces[piece]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for word in words.values():
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == best:
                    word[at : at + 2] = [b"".join(best)]
                at += 1
    return merges


SMALL_BYTES = st.lists(st.sampled_from(b"abc"), min_size=1).map(bytes)
PIECES = st.dictionaries(SMALL_BYTES, st.integers(1, 9))


@unhurried
@given(PIECES, st.integers(0, 40))
def test_counting_only_what_changed_is_counting_all_again(pieces, n_merges):
    merges = learn_merges(pieces, n_merges)
    assert merges == naive_merges(pieces, n_merges)
    results = [first + second for first, second in merges]
    assert len(set(results)) == len(results)


@pytest.mark.parametrize("letters", ["acgt", "ab", "a"])
def test_the_work_grows_with_the_length_of_a_piece(letters, monkeypatch):
    """Each visit of a place is a bounded amount of work."""
    merge, visits = TokenList.merge, []

    def counted(self, at, pair):
        visits.append(at)
        return merge(self, at, pair)

    monkeypatch.setattr(TokenList, "merge", counted)
    rng = random.Random(0)
    numbers = []
    for length in (2_000, 4_000, 8_000):
        visits.clear()
        piece = "".join(rng.choices(letters, k=length)).encode()
        learn_merges({piece: 1}, 300)
        assert len(visits) < 2 * length
        numbers.append(len(visits))
    assert numbers[2] < 2.5 * numbers[1] < 6.25 * numbers[0]


def test_ties_are_broken_as_the_docstring_says():
    """Hugging Face's ids of bytes are in the order of their characters."""
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.ByteLevelBPETokenizer()
    # A line break is the first byte, but its character, U+010A, is behind b.
    other.train_from_iterator(["\n\n bb"], 258, min_frequency=0)
    theirs = json.loads(other.to_str())["model"]["merges"]
    assert [unspell("".join(merge)) for merge in theirs] == [b"bb", b"\n\n"]
    ours = learn_merges(count_pieces(["\n\n bb"]), 2)
    assert ours == [(b"\n", b"\n"), (b" ", b"b")]
