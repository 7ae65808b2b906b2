"""Turn text into token ids and back, with one vocabulary.

`gpt2.tokenizer.bpe` says what byte-pair encoding is. Here it is put to use:
encoding runs through `tiktoken`, which does the same merges fast.
"""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Self

import regex  # type: ignore[import-untyped]  # it has no type hints
import tiktoken

from gpt2.files.writing import replacing
from gpt2.tokenizer.bpe import (
    BYTE_TO_CHARACTER,
    END_OF_TEXT,
    SPLIT_PATTERN,
    Pair,
    TokenizerError,
    count_pieces,
    find_halves,
    learn_merges,
    merge_piece,
    single_bytes,
    spell,
    split_text,
    to_utf8,
)
from gpt2.tokenizer.files import find_vocabulary, read_vocabulary

# Where `\s+(?!\S)` steps back from about a million spaces, tiktoken 0.14 gives
# up with "Max stack size exceeded for backtracking". So white space at the end
# has its own branch, which never steps back, and `encode` cuts a long run that
# a word follows where its piece ends. No piece changes.
_TIKTOKEN_PATTERN = r"\s+$|" + SPLIT_PATTERN
_LONGEST_RUN = 100_000

# tiktoken makes one regular expression of all special tokens; one of 20 MB
# takes half a minute.
_MOST_SPECIAL_BYTES = 1_000_000

OTHER_TOKENIZER_FILES = frozenset(
    {
        *("tokenizer.json", "added_tokens.json", "special_tokens_map.json"),
        *("tokenizer.model", "tiktoken.model", "tekken.json"),
        "chat_template.jinja",
    }
)
"""What transformers reads before `vocab.json`, or along with it."""


class Tokenizer:
    """Encode text as token ids, and decode ids, with one vocabulary.

    Attributes:
        ranks: The id of each ordinary token. Ids rise in the order in which
            tokens were learned, so they are the ranks by which pairs merge.
        special_tokens: The id of each token that no text spells unless
            asked to, such as `<|endoftext|>`.
        add_bos_token: Whether a prompt should begin with `<|endoftext|>`, as
            for a model that has only seen texts from their beginning on. It
            has Hugging Face's name; `encode` itself never adds a token.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        add_bos_token: bool = False,
    ) -> None:
        """Hold a vocabulary; the class methods below are the usual way in."""
        if END_OF_TEXT not in special_tokens:
            raise TokenizerError(f"expected the special token {END_OF_TEXT}")
        self.ranks, self.special_tokens = dict(ranks), dict(special_tokens)
        self.add_bos_token = add_bos_token
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
        size = sum(map(len, tokens[len(ranks) :]))
        if size > _MOST_SPECIAL_BYTES:
            raise TokenizerError(
                f"the {len(special_tokens):,} special tokens have {size:,} "
                f"bytes, more than {_MOST_SPECIAL_BYTES:,}"
            )
        try:
            self._encoding = tiktoken.Encoding(
                "gpt2-like",
                pat_str=_TIKTOKEN_PATTERN,
                mergeable_ranks=self.ranks,
                special_tokens=self.special_tokens,
            )
        except ValueError as error:
            raise TokenizerError(
                f"tiktoken cannot take the {len(special_tokens):,} special "
                f"tokens, of {size:,} bytes: {error}"
            ) from error

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
        """Find the files with the ids and with the merges in a folder.

        Returns:
            Both paths, of which only the first is sure to exist, or None.
        """
        return find_vocabulary(Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load `vocab.json` and `merges.txt`, or what stands for them.

        That is `encoder.json` and `vocab.bpe`, or `tokenizer.json`; see
        `gpt2.tokenizer.files`.

        Raises:
            TokenizerError: If a file is missing or wrong, with what and why.
        """
        vocabulary = read_vocabulary(Path(folder))
        try:
            return cls(
                vocabulary.ranks,
                vocabulary.special_tokens,
                vocabulary.add_bos_token,
            )
        except TokenizerError as error:
            found = find_vocabulary(Path(folder))
            raise TokenizerError(f"{found and found[0]}: {error}") from None

    def save(self, folder: Path | str) -> None:
        """Write the files that `load` and transformers read, all or none.

        Other kinds of files with another tokenizer, which would be read
        before these, leave the folder in the same step.

        Raises:
            OSError: They cannot be written, and nothing has changed.
        """
        with replacing(
            Path(folder),
            leaves=OTHER_TOKENIZER_FILES.__contains__,
            first=["vocab.json"],
        ) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the files of `save`, one by one, into a folder of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        ids = {spell(token): rank for token, rank in self.ranks.items()}
        ids |= self.special_tokens
        ids = dict(sorted(ids.items(), key=itemgetter(1)))
        others = [name for name in self.special_tokens if name != END_OF_TEXT]
        config: dict[str, object] = {
            "tokenizer_class": "GPT2Tokenizer",
            "extra_special_tokens": others,
        }
        if self.add_bos_token:
            config["add_bos_token"] = True
        merges = [f"{spell(a)} {spell(b)}\n" for a, b in self.merges]
        contents = {
            "vocab.json": json.dumps(ids),
            "merges.txt": "#version: 0.2\n" + "".join(merges),
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        }
        for name, content in contents.items():
            (folder / name).write_text(content, "utf-8", newline="\n")

    @cached_property
    def merges(self) -> list[Pair]:
        """The pairs in merge order: each token as earlier merges leave it."""
        earlier = {t: i for t, i in self.ranks.items() if len(t) == 1}
        halves: dict[bytes, Pair] = {}
        for token, rank in sorted(self.ranks.items(), key=itemgetter(1)):
            if len(token) > 1:
                halves[token] = find_halves(token, earlier, halves)
                earlier[token] = rank
        return list(halves.values())

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
        # Zero-width: before the last white space of a run, if a word follows.
        end_of_run = rf"(?=\s\S)(?<=\s{{{_LONGEST_RUN}}})"
        for part in regex.split(end_of_run, text):
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
