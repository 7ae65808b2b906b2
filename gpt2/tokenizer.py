"""Turn text into token ids and back: byte-level byte-pair encoding (BPE).

Text is bytes, so a vocabulary of the 256 byte values can spell anything. BPE
adds longer tokens: the most frequent pair of neighbours becomes one token,
again and again. Encoding makes the same merges in the order they were learned.

Sources: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with
Subword Units"; for bytes, pattern and files openai/gpt-2, src/encoder.py.
"""

import codecs
import heapq
import json
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Self

import regex  # type: ignore[import-untyped]
import tiktoken

END_OF_TEXT = "<|endoftext|>"
FILE_NAMES = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]

# A piece is an ending such as 's; or letters, digits or other signs, with at
# most one space before them; or white space up to the next word's own space.
SPLIT_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)

# tiktoken crashes where `\s+(?!\S)` steps back from about a million spaces.
# So white space at the end has its own branch, which never steps back, and
# `encode` cuts a very long run where its piece ends. No piece changes.
_TIKTOKEN_PATTERN = r"\s+$|" + SPLIT_PATTERN
_LONG_RUN_END = regex.compile(r"(?=\s\S)(?<=\s{100000})")

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


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Read a JSON object from spelled tokens to ids."""
    try:
        vocabulary = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error
    if not isinstance(vocabulary, dict):
        raise TokenizerError(f"{path}: expected an object of tokens and ids")
    for token, token_id in vocabulary.items():
        if not token or type(token_id) is not int:
            raise TokenizerError(f"{path}: {token!r} has id {token_id!r}")
    for byte, character in BYTE_TO_CHARACTER.items():
        if character not in vocabulary:
            raise TokenizerError(f"{path}: no token for byte {byte:#04x}")
    return vocabulary


def _take_ranks(vocabulary: dict[str, int], path: Path) -> dict[bytes, int]:
    """Move the bytes, and what a file's merges make, out of a vocabulary."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error
    alphabet = BYTE_TO_CHARACTER.items()
    ranks = {bytes([byte]): vocabulary.pop(char) for byte, char in alphabet}
    highest = -1
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        where = f"{path}, line {number}: {line!r}"
        parts = line.split(" ")
        try:
            first, second = (unspell(part) for part in parts)
        except (KeyError, ValueError):
            raise TokenizerError(f"{where} is not two tokens") from None
        if first not in ranks or second not in ranks:
            raise TokenizerError(f"{where} joins what no earlier line makes")
        rank = vocabulary.pop("".join(parts), None)
        if rank is None:
            raise TokenizerError(f"{where} makes a token that has no id left")
        # A rank is looked up by the joined bytes alone, so the order of the
        # ids must be that of the lines, and no other pair may give this token.
        if rank < highest:
            raise TokenizerError(f"{where} has id {rank}, after {highest}")
        if merge_piece(first + second, ranks) != [first, second]:
            raise TokenizerError(f"{where} is forestalled by earlier lines")
        ranks[first + second] = highest = rank
    for token in vocabulary:
        if _is_one_piece(token):
            raise TokenizerError(f"{path}: no line makes the token {token!r}")
    return ranks


def _is_one_piece(spelled: str) -> bool:
    """Tell whether merges could make a token, as they cannot cross pieces."""
    if not set(spelled) <= CHARACTER_TO_BYTE.keys():
        return False
    return len(split_text(unspell(spelled).decode(errors="replace"))) == 1


class Tokenizer:
    """Encode text as token ids, and decode ids, with one vocabulary.

    Attributes:
        ranks: The id of each ordinary token. Ids rise in the order in which
            tokens were learned, so they are the ranks by which pairs merge.
        special_tokens: The id of each token that no text spells unless
            asked to, such as `<|endoftext|>`.
    """

    def __init__(
        self, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]
    ) -> None:
        """Hold a vocabulary; the class methods below are the usual way in."""
        if END_OF_TEXT not in special_tokens:
            raise TokenizerError(f"expected the special token {END_OF_TEXT}")
        self.ranks, self.special_tokens = dict(ranks), dict(special_tokens)
        tokens = [*ranks, *map(to_utf8, special_tokens)]
        ids = [*ranks.values(), *special_tokens.values()]
        by_id = sorted(zip(ids, tokens, strict=True))
        for expected, (token_id, _) in enumerate(by_id):
            if token_id != expected:
                raise TokenizerError(
                    f"expected each id from 0 to {len(ids) - 1} once, "
                    f"got {token_id} in place of {expected}"
                )
        self._tokens = [token for _, token in by_id]
        self._encoding = tiktoken.Encoding(
            "gpt2-like",
            pat_str=_TIKTOKEN_PATTERN,
            mergeable_ranks=self.ranks,
            special_tokens=self.special_tokens,
        )

    @classmethod
    def gpt2(cls) -> Self:
        """Get OpenAI's vocabulary from tiktoken's cache or the network."""
        try:
            encoding = tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:
            raise TokenizerError(
                "GPT-2's vocabulary is neither in tiktoken's cache nor to be "
                "downloaded: connect to the network once, set "
                "TIKTOKEN_CACHE_DIR to a cache that has it, or use "
                "Tokenizer.load on a folder with vocab.json and merges.txt"
            ) from error
        end = encoding.eot_token
        token_bytes = encoding.decode_single_token_bytes
        ranks = {token_bytes(rank): rank for rank in range(end)}
        return cls(ranks, {END_OF_TEXT: end})

    @classmethod
    def train(cls, text: str | Iterable[str], n_vocab: int) -> Self:
        """Learn a vocabulary: 256 bytes, then merges, then `<|endoftext|>`.

        Args:
            text: One text, or many that are read in turn and not kept.
            n_vocab: The number of tokens, 257 or more.

        Raises:
            TokenizerError: If the text has too few pairs to reach `n_vocab`.
        """
        if n_vocab < 257:
            raise TokenizerError(f"expected n_vocab >= 257, got {n_vocab}")
        texts = [text] if isinstance(text, str) else text
        merges = learn_merges(count_pieces(texts), n_vocab - 257)
        if len(merges) < n_vocab - 257:
            raise TokenizerError(
                f"expected text with pairs enough for n_vocab={n_vocab}, "
                f"got enough for {257 + len(merges)}"
            )
        tokens = single_bytes(bytes(BYTE_TO_CHARACTER))
        tokens += [first + second for first, second in merges]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        return cls(ranks, {END_OF_TEXT: n_vocab - 1})

    @staticmethod
    def find(folder: Path | str) -> tuple[Path, Path] | None:
        """Find the vocabulary and the merges in a folder.

        Returns:
            Both paths, of which only the first is sure to exist, or None.
        """
        for vocabulary, merges in FILE_NAMES:
            if Path(folder, vocabulary).exists():
                return Path(folder, vocabulary), Path(folder, merges)
        return None

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load `vocab.json`, `merges.txt`, or `encoder.json`, `vocab.bpe`.

        Entries that no byte or merge makes are special tokens, whatever their
        ids, if `split_text` would break them, as it does `<|endoftext|>`; an
        entry of one piece must have had a merge, so the file has lost a line.
        The ids of merged tokens must rise in the order of the merges.

        Raises:
            TokenizerError: If a file is missing or wrong, with what and why.
        """
        found = cls.find(folder)
        if found is None:
            raise TokenizerError(f"{folder}: expected the files {FILE_NAMES}")
        vocabulary_path, merges_path = found
        vocabulary = _read_vocabulary(vocabulary_path)
        ranks = _take_ranks(vocabulary, merges_path)
        try:
            return cls(ranks, special_tokens=vocabulary)
        except TokenizerError as error:
            raise TokenizerError(f"{vocabulary_path}: {error}") from None

    def save(self, folder: Path | str) -> None:
        """Write the files that `load` and transformers read, all or none."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ids = {spell(token): rank for token, rank in self.ranks.items()}
        ids |= self.special_tokens
        ids = dict(sorted(ids.items(), key=itemgetter(1)))
        others = [name for name in self.special_tokens if name != END_OF_TEXT]
        config = {
            "tokenizer_class": "GPT2Tokenizer",
            "extra_special_tokens": others,
        }
        merges = [f"{spell(a)} {spell(b)}\n" for a, b in self.merges]
        contents = {
            "vocab.json": json.dumps(ids),
            "merges.txt": "#version: 0.2\n" + "".join(merges),
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        }
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            for name, content in contents.items():
                path = Path(temporary, name)
                path.write_text(content, "utf-8", newline="\n")
            for name in contents:
                Path(temporary, name).replace(folder / name)

    @cached_property
    def merges(self) -> list[Pair]:
        """The pairs in merge order: each token as earlier merges leave it."""
        earlier: dict[bytes, int] = {}
        pairs: list[Pair] = []
        for token, rank in sorted(self.ranks.items(), key=itemgetter(1)):
            if len(token) > 1:
                first, second = merge_piece(token, earlier)
                pairs.append((first, second))
            earlier[token] = rank
        return pairs

    @property
    def n_vocab(self) -> int:
        """The number of tokens, special ones included."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of `<|endoftext|>`, which stands between documents."""
        return self.special_tokens[END_OF_TEXT]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Encode text, quickly, with tiktoken.

        Args:
            text: Any text that UTF-8 can encode: no lone surrogates.
            allow_special: Whether the name of a special token means that
                token. By default it is text, which is safe with strangers.
        """
        to_utf8(text)  # tiktoken would replace a lone surrogate in silence
        allowed = set(self.special_tokens) if allow_special else set()
        ids: list[int] = []
        for part in _LONG_RUN_END.split(text):
            ids += self._encoding.encode(
                part, allowed_special=allowed, disallowed_special=()
            )
        return ids

    def encode_slowly(self, text: str) -> list[int]:
        """Encode text like `encode`, in steps that can be read.

        Only characters too new for the Unicode tables of `regex` or tiktoken
        may be split elsewhere, as one sees a letter where the other does not.
        """
        ids: list[int] = []
        for piece in split_text(text):
            for token in merge_piece(to_utf8(piece), self.ranks):
                ids.append(self.ranks[token])
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Encode bytes: UTF-8 as its text, any other byte as its own token."""
        ids: list[int] = []
        # surrogateescape makes a stray byte a surrogate, never found in UTF-8.
        text = data.decode("utf-8", "surrogateescape")
        for part in regex.findall(r"[\ud800-\udfff]|[^\ud800-\udfff]+", text):
            if "\ud800" <= part <= "\udfff":
                ids.append(self.ranks[part.encode("utf-8", "surrogateescape")])
            else:
                ids += self.encode(part)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Look up a token's bytes; a special token's are those of its name."""
        if not 0 <= token_id < self.n_vocab:
            raise TokenizerError(
                f"expected an id from 0 to {self.n_vocab - 1}, got {token_id}"
            )
        return self._tokens[token_id]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Decode ids to bytes, exactly those that were encoded."""
        return b"".join(self.token_bytes(token_id) for token_id in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to text, with U+FFFD where bytes are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come, holding back unfinished characters."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id in ids:
            if text := decoder.decode(self.token_bytes(token_id)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    # Last, because below this line the name hides Python's own `bytes`.
    @classmethod
    def bytes(cls) -> Self:
        """Make the smallest vocabulary: 256 bytes and `<|endoftext|>`."""
        return cls.train("", n_vocab=257)
