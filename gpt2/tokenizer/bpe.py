"""Byte-pair encoding on bytes (BPE): how it is learned and how it is applied.

Text is bytes, so a vocabulary of the 256 byte values can spell anything. BPE
adds longer tokens: the most frequent pair of neighbours becomes one token,
again and again. Encoding makes the same merges in the order they were learned.

Sources: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with
Subword Units"; for bytes and pattern openai/gpt-2, src/encoder.py.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

import regex  # type: ignore[import-untyped]  # it has no type hints

END_OF_TEXT = "<|endoftext|>"

# A piece is an ending such as 's; or letters, digits or other signs, with at
# most one space before them; or white space up to the next word's own space.
SPLIT_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)

LONGEST_TOKEN = 1_024
"""Bytes in a token, at most: GPT-2's longest has 128, and the time to find the
two halves of one grows with the square of its length."""

Pair = tuple[bytes, bytes]


class TokenizerError(ValueError):
    """Report text, ids or files that a tokenizer cannot use."""


def byte_alphabet() -> dict[int, str]:
    """Give each byte the printable character that spells it in the files.

    Visible Latin-1 characters spell themselves; the other 68 bytes borrow the
    characters from U+0100 on, so a space is written `Ġ`. The dictionary's
    order is that of GPT-2's first 256 ids.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {byte: chr(byte) for byte in visible}
    alphabet |= {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}
    return alphabet


BYTE_TO_CHARACTER = byte_alphabet()
CHARACTER_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """Write a token with one printable character for each byte."""
    return "".join(BYTE_TO_CHARACTER[byte] for byte in token)


def unspell(spelled: str) -> bytes:
    """Read a token that `spell` wrote."""
    return bytes(CHARACTER_TO_BYTE[character] for character in spelled)


def single_bytes(data: bytes) -> list[bytes]:
    """Cut bytes into tokens of one byte each."""
    return [bytes([byte]) for byte in data]


def to_utf8(text: str) -> bytes:
    """Encode text as UTF-8, which has no form for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            "expected text that UTF-8 can encode, got the lone surrogate "
            f"U+{ord(text[error.start]):04X}"
        ) from None


def split_text(text: str) -> list[str]:
    """Split text into pieces that no token crosses, with nothing lost."""
    return list(regex.findall(SPLIT_PATTERN, text))


def merge_piece(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merge a piece's bytes into tokens, the lowest-ranked pair first.

    Two neighbours may merge when their joined bytes are a token; its rank is
    the pair's rank, and of equal pairs the leftmost goes first.
    """
    parts = single_bytes(piece)
    while True:
        found = [ranks.get(a + b, math.inf) for a, b in pairwise(parts)]
        lowest = min(found, default=math.inf)
        if lowest == math.inf:
            return parts
        at = found.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def is_forestalled(
    first: bytes,
    second: bytes,
    ranks: Mapping[bytes, int],
    halves: Mapping[bytes, Pair],
) -> bool:
    """Tell whether earlier merges keep two tokens from being neighbours.

    They do if they join anything across the border before both tokens are
    made. So the merges at the border are undone, the latest first, and each
    time the two that touch there must not merge before the one undone. That
    takes as many steps as there are merges, where `merge_piece` takes the
    square.

    Args:
        first: The token before the border.
        second: The token behind it.
        ranks: The rank of every token that there is so far.
        halves: The two tokens of which each of them was made, but for bytes.
    """
    limit = math.inf
    while ranks.get(first + second, math.inf) >= limit:
        last_of_first = ranks[first] if first in halves else -1
        last_of_second = ranks[second] if second in halves else -1
        if last_of_first > last_of_second:
            limit, first = last_of_first, halves[first][1]
        elif last_of_second >= 0:
            # Of equal pairs the leftmost goes first: the one at the border.
            limit, second = last_of_second + 1, halves[second][0]
        else:
            return False
    return True


def find_halves(
    token: bytes, ranks: Mapping[bytes, int], halves: Mapping[bytes, Pair]
) -> Pair:
    """Find the two tokens that merge into a token.

    Args:
        token: Two bytes or more.
        ranks: The rank of every earlier token.
        halves: As for `is_forestalled`.

    Raises:
        TokenizerError: There are none.
    """
    for at in range(1, len(token)):
        first, second = token[:at], token[at:]
        if first not in ranks or second not in ranks:
            continue
        if not is_forestalled(first, second, ranks, halves):
            return first, second
    raise TokenizerError(f"no merge makes the token {token!r:.80}")


def count_pieces(texts: Iterable[str]) -> Counter[bytes]:
    """Count the pieces of texts, without the `<|endoftext|>` in them."""
    pieces: Counter[str] = Counter()
    for text in texts:
        for document in text.split(END_OF_TEXT):
            pieces.update(split_text(document))
    return Counter({to_utf8(piece): n for piece, n in pieces.items()})


def join_pair(parts: list[bytes], pair: Pair) -> list[bytes]:
    """Join every occurrence of a pair, from left to right."""
    joined: list[bytes] = []
    at = 0
    while at < len(parts):
        width = 2 if tuple(parts[at : at + 2]) == pair else 1
        joined.append(b"".join(parts[at : at + width]))
        at += width
    return joined


def learn_merges(pieces: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Learn merges: join the most frequent pair, count again, repeat.

    Of equally frequent pairs the first in byte order wins, so the result
    hangs on the counts alone. After a merge, only pieces that held the pair
    are counted again.

    Args:
        pieces: How often each distinct piece occurs.
        n_merges: The number of merges; fewer come back when no pair is left.
    """
    words = [single_bytes(piece) for piece in pieces]
    frequencies = list(pieces.values())
    counts: Counter[Pair] = Counter()
    homes: defaultdict[Pair, set[int]] = defaultdict(set)  # words with a pair
    for home, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += frequencies[home]
            homes[pair].add(home)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)

    merges: list[Pair] = []
    while queue and len(merges) < n_merges:
        negative_count, best = heapq.heappop(queue)
        if counts[best] != -negative_count:
            continue  # outdated: the pair was queued again at its new count
        if len(best[0] + best[1]) > LONGEST_TOKEN:
            continue
        merges.append(best)
        changes: Counter[Pair] = Counter()
        for home in homes.pop(best):
            for pair in pairwise(words[home]):
                changes[pair] -= frequencies[home]
            words[home] = join_pair(words[home], best)
            for pair in pairwise(words[home]):
                changes[pair] += frequencies[home]
                homes[pair].add(home)
        for pair, change in changes.items():
            counts[pair] += change
            if change and counts[pair]:
                heapq.heappush(queue, (-counts[pair], pair))
    return merges
