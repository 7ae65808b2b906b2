"""Byte-pair encoding (BPE) on bytes: learning merges and applying them.

Text is bytes, so a vocabulary of the 256 byte values can spell any text. BPE
adds longer tokens: it repeatedly merges the most frequent pair of adjacent
tokens into one. Encoding applies the same merges in the order in which they
were learned.

Sources: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with
Subword Units", section 3.2; for the bytes and the split pattern openai/gpt-2,
src/encoder.py.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import regex  # type: ignore[import-untyped]

from gpt2.tokenizer.newer import as_of_unicode_16

END_OF_TEXT = "<|endoftext|>"

# A piece is an English contraction such as 's; or letters, digits or other
# symbols, with at most one space before them; or white space, without the
# space that belongs to the next word.
SPLIT_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)

LONGEST_TOKEN = 1_024
"""The most bytes in a token. GPT-2's longest token has 128; the time to find
the two halves of a token grows with the square of its length."""

Pair = tuple[bytes, bytes]


class TokenizerError(ValueError):
    """Text, ids or files are not valid for a tokenizer."""


def byte_alphabet() -> dict[int, str]:
    """Map each byte to the printable character that spells it in the files.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take
    the characters from U+0100 on, so a space is spelled `Ġ`. The keys are in
    the order of GPT-2's first 256 ids. openai/gpt-2, src/encoder.py,
    `bytes_to_unicode`.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {byte: chr(byte) for byte in visible}
    alphabet |= {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}
    return alphabet


BYTE_TO_CHARACTER = byte_alphabet()
CHARACTER_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """Spell a token with one printable character for each byte."""
    return "".join(BYTE_TO_CHARACTER[byte] for byte in token)


def unspell(spelled: str) -> bytes:
    """Return the token that `spell` spelled.

    Raises:
        KeyError: A character spells no byte.
    """
    return bytes(CHARACTER_TO_BYTE[character] for character in spelled)


def single_bytes(data: bytes) -> list[bytes]:
    """Split bytes into tokens of one byte each."""
    return [bytes([byte]) for byte in data]


def to_utf8(text: str) -> bytes:
    """Encode text as UTF-8.

    Raises:
        TokenizerError: The text contains a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            "expected text that UTF-8 can encode, got the lone surrogate "
            f"U+{ord(text[error.start]):04X}"
        ) from None


def split_text(text: str) -> list[str]:
    """Split text into pieces; no token crosses from one into the next.

    The pieces joined are the text.
    """
    return list(regex.findall(as_of_unicode_16(SPLIT_PATTERN), text))


def merge_piece(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merge the bytes of a piece into tokens, the lowest-ranked pair first.

    Two adjacent tokens can merge if their joined bytes are a token, whose rank
    is the rank of the pair. Of equal pairs, the leftmost merges first.
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
    """Tell whether earlier merges prevent two tokens from ever meeting.

    They do if they merge anything across the border of the two before both are
    complete. So undo the merges next to the border, the latest first; at each
    step, the two tokens that then touch there must not merge before the merge
    just undone. This is linear in the number of merges, whereas `merge_piece`
    is quadratic.

    Args:
        first: The token before the border.
        second: The token after it.
        ranks: The rank of every earlier token.
        halves: The two tokens that merge into each of them, except for single
            bytes.
    """
    limit = math.inf
    while ranks.get(first + second, math.inf) >= limit:
        last_of_first = ranks[first] if first in halves else -1
        last_of_second = ranks[second] if second in halves else -1
        if last_of_first > last_of_second:
            limit, first = last_of_first, halves[first][1]
        elif last_of_second >= 0:
            # Of equal pairs the leftmost merges first: the one at the border.
            limit, second = last_of_second + 1, halves[second][0]
        else:
            return False
    return True


def find_halves(
    token: bytes, ranks: Mapping[bytes, int], halves: Mapping[bytes, Pair]
) -> Pair:
    """Find the two tokens that merge into a token.

    Args:
        token: At least two bytes.
        ranks: The rank of every earlier token.
        halves: As for `is_forestalled`.

    Raises:
        TokenizerError: No two earlier tokens merge into this one.
    """
    for at in range(1, len(token)):
        first, second = token[:at], token[at:]
        if first not in ranks or second not in ranks:
            continue
        if not is_forestalled(first, second, ranks, halves):
            return first, second
    raise TokenizerError(f"no merge makes the token {token!r:.80}")


def count_pieces(texts: Iterable[str]) -> Counter[bytes]:
    """Count the pieces of texts, leaving out every `<|endoftext|>`.

    Raises:
        TokenizerError: A text contains a lone surrogate.
    """
    pieces: Counter[str] = Counter()
    for text in texts:
        for document in text.split(END_OF_TEXT):
            pieces.update(split_text(document))
    return Counter({to_utf8(piece): n for piece, n in pieces.items()})


class TokenList:
    """The tokens of all pieces in one linked list, an empty one after each.

    The place of a pair is that of its first token. Empty tokens only separate
    pieces; no merge has one.

    Attributes:
        tokens: The token at each place; empty also where one was merged.
        weights: The frequency of the piece at each place.
    """

    def __init__(self, pieces: Mapping[bytes, int]) -> None:
        """Take the frequency of each piece; split the pieces into bytes."""
        self.tokens, self.weights = [b""], [0]
        for piece, frequency in pieces.items():
            self.tokens += [*single_bytes(piece), b""]
            self.weights += [frequency] * (len(piece) + 1)
        self._previous = [at - 1 for at in range(len(self.tokens))]
        self._next = [at + 1 for at in range(len(self.tokens))]

    def merge(self, at: int, pair: Pair) -> list[tuple[int, Pair, int]]:
        """Merge a pair at a place, if it is still there.

        Returns:
            The place of each pair that is lost or made, the pair, and the
            change of its count.
        """
        tokens, weight, second = self.tokens, self.weights[at], self._next[at]
        if (tokens[at], tokens[second]) != pair:
            return []
        left, right = self._previous[at], self._next[second]
        before = pairwise((tokens[left], *pair, tokens[right]))
        changes = [(at, lost, -weight) for lost in before]
        tokens[at], tokens[second] = b"".join(pair), b""
        self._next[at], self._previous[right] = right, at
        changes.append((left, (tokens[left], tokens[at]), weight))
        changes.append((at, (tokens[at], tokens[right]), weight))
        return changes


def learn_merges(
    pieces: Mapping[bytes, int],
    n_merges: int,
    progress: Callable[[int], None] | None = None,
) -> list[Pair]:
    """Learn merges: merge the most frequent pair, count again, repeat.

    Merging a pair at one place changes only the counts of the pairs around it,
    and takes a token out of the list. So n bytes have fewer than n such
    places, and the time grows like n log n, however long the pieces are.

    Of equally frequent pairs, the first in byte order is merged, so the result
    depends only on the counts. Hugging Face's trainer takes the pair with the
    lowest id of the first token, then of the second, so its merges may differ
    from the first tie on; Sennrich et al. leave ties open.

    Args:
        pieces: How often each distinct piece occurs.
        n_merges: The number of merges.
        progress: Called with the number of merges learned, after each.

    Returns:
        The merged pairs in order; fewer than `n_merges` if no pair is left.
    """
    text = TokenList(pieces)
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, list[int]] = defaultdict(list)
    for at, pair in enumerate(pairwise(text.tokens)):
        if all(pair):
            counts[pair] += text.weights[at]
            places[pair].append(at)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)

    merges: list[Pair] = []
    while queue and len(merges) < n_merges:
        negative_count, best = heapq.heappop(queue)
        if counts[best] != -negative_count:
            continue  # outdated: the pair is also queued with its new count
        if len(best[0] + best[1]) > LONGEST_TOKEN:
            continue
        changes: Counter[Pair] = Counter()
        for at in sorted(places.pop(best)):
            for place, pair, change in text.merge(at, best):
                changes[pair] += change
                if change > 0:
                    places[pair].append(place)
        for pair, change in changes.items():
            counts[pair] += change
            if change and counts[pair] and all(pair):
                heapq.heappush(queue, (-counts[pair], pair))
        merges.append(best)
        if progress is not None:
            progress(len(merges))
    return merges
