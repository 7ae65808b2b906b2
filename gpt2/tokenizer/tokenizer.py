"""Encode text as token ids and decode ids, with one vocabulary.

`gpt2.tokenizer.bpe` implements byte-pair encoding readably. `Tokenizer.encode`
calls `tiktoken`, which applies the same merges much faster.
"""

from __future__ import annotations

import codecs
import operator
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import regex  # type: ignore[import-untyped]  # it has no type hints
import tiktoken

from gpt2.files.writing import replacing
from gpt2.tokenizer.bpe import (
    BYTE_TO_CHARACTER,
    CHARACTER_TO_BYTE,
    END_OF_TEXT,
    SPLIT_PATTERN,
    Pair,
    TokenizerError,
    count_pieces,
    find_halves,
    learn_merges,
    merge_piece,
    single_bytes,
    split_text,
    to_utf8,
    unspell,
)
from gpt2.tokenizer.files import find_vocabulary, read_vocabulary
from gpt2.tokenizer.saving import file_contents
from gpt2.tokenizer.settings import Preparation, Settings

if TYPE_CHECKING:  # for a type only
    import numpy as np

# For speed, contractions share their apostrophe, and quantifiers that need
# not give back what they matched are possessive (`++`). On a run of about a
# million spaces, `\s+(?!\S)`, which must give back, makes tiktoken 0.14 fail
# with "Max stack size exceeded for backtracking". So trailing white space has
# its own branch, which never backtracks, and `encode` splits a long run before
# a word at the boundary of its piece. The pieces stay the same.
_TIKTOKEN_PATTERN = (
    SPLIT_PATTERN.replace("'s|'t|'re|'ve|'m|'ll|'d", "'(?:[stmd]|re|ve|ll)")
    .replace("}+", "}++")
    .replace("]+", "]++")
    .replace(r"|\s+(?!", r"|\s++$|\s+(?!")
)
_LONGEST_RUN = 100_000

# All added tokens become one regular expression, so there must be an end.
_MOST_SPECIAL_BYTES = 1_000_000

OTHER_TOKENIZER_FILES = frozenset(
    {
        *("tokenizer.json", "added_tokens.json", "special_tokens_map.json"),
        *("vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
        *("tokenizer.model", "tiktoken.model", "tekken.json"),
        *("sentencepiece.bpe.model", "chat_template.jinja"),
    }
)
"""Files of a tokenizer that a save removes, unless it writes them."""


_PLAIN = Settings()


class Tokenizer:
    """Encode text as token ids and decode ids, with one vocabulary.

    Attributes:
        ranks: The id of each ordinary token. Ids increase in the order in
            which tokens were learned, so an id is also its token's merge rank.
        special_tokens: The id of each special token, such as
            `<|endoftext|>`. By default, no text is encoded as one.
        settings: How the tokenizer differs from GPT-2's otherwise.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        add_bos_token: bool = False,
        settings: Settings = _PLAIN,
    ) -> None:
        """Take a vocabulary; see `load`, `train`, `gpt2` and `bytes_only`.

        Raises:
            TokenizerError: The token that ends a text is missing, the ids are
                not 0 to `n_vocab - 1`, or an added token has a lone surrogate.
        """
        self.ranks, self.special_tokens = dict(ranks), dict(special_tokens)
        self.settings = settings
        added = {**special_tokens, **settings.words}
        for name in {settings.bos, settings.eos} - special_tokens.keys():
            raise TokenizerError(
                f"expected {name} among the special tokens, got "
                f"{reprlib.repr(list(special_tokens))}"
            )
        self._tokens = _in_order(self.ranks, added)
        for token_id in (*settings.before, *settings.after):
            self.token_bytes(token_id)  # refuses an unknown id
        _check_size(added)
        self._bytes = frozenset(b"".join(t for t in ranks if len(t) == 1))
        self._preparation = Preparation(settings, self.special_tokens)
        self._encoding = tiktoken.Encoding(
            "gpt2-like",
            pat_str=_TIKTOKEN_PATTERN,
            mergeable_ranks=self.ranks,
            # Without one, tiktoken's search for them stops at every character.
            special_tokens={END_OF_TEXT: len(self.ranks)},
        )
        if add_bos_token:
            self.add_bos_token = True

    def __repr__(self) -> str:
        n_merges = sum(len(token) > 1 for token in self.ranks)
        shown = {
            "n_vocab": self.n_vocab,
            "n_merges": n_merges,
            "special_tokens": list(self.special_tokens),
            **self.settings.changes(),
        }
        inside = ", ".join(f"{k}={reprlib.repr(v)}" for k, v in shown.items())
        return f"{type(self).__name__}({inside})"

    @classmethod
    def gpt2(cls) -> Self:
        """Load OpenAI's vocabulary from tiktoken's cache, or download it.

        Raises:
            TokenizerError: It is not in the cache and cannot be downloaded.
        """
        try:
            encoding = tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:
            raise TokenizerError(
                "GPT-2's vocabulary is not in tiktoken's cache and cannot be "
                "downloaded: connect to the network once, set "
                "TIKTOKEN_CACHE_DIR to a cache that has it, or call "
                "Tokenizer.load on a folder with vocab.json and merges.txt"
            ) from error
        end = encoding.eot_token
        token_bytes = encoding.decode_single_token_bytes
        ranks = {token_bytes(rank): rank for rank in range(end)}
        return cls(ranks, {END_OF_TEXT: end})

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        n_vocab: int,
        progress: Callable[[int], None] | None = None,
    ) -> Self:
        """Learn a vocabulary: 256 bytes, then merges, then `<|endoftext|>`.

        Args:
            text: One text, or an iterable of texts, which is read once.
            n_vocab: The size of the vocabulary, at least 257 tokens.
            progress: Called with the number of merges learned, after each.

        Raises:
            TokenizerError: `n_vocab` is below 257, the text has too few pairs
                to reach it, or the text contains a lone surrogate.
        """
        if n_vocab < 257:
            raise TokenizerError(f"expected n_vocab >= 257, got {n_vocab}")
        texts = [text] if isinstance(text, str) else text
        merges = learn_merges(count_pieces(texts), n_vocab - 257, progress)
        if len(merges) < n_vocab - 257:
            raise TokenizerError(
                f"expected text with enough pairs for n_vocab={n_vocab}, "
                f"got enough for {257 + len(merges)}"
            )
        tokens = single_bytes(bytes(BYTE_TO_CHARACTER))
        tokens += [first + second for first, second in merges]
        ranks = {token: rank for rank, token in enumerate(tokens)}
        return cls(ranks, {END_OF_TEXT: n_vocab - 1})

    @classmethod
    def bytes_only(cls) -> Self:
        """Make the smallest vocabulary: 256 bytes and `<|endoftext|>`."""
        return cls.train("", n_vocab=257)

    @staticmethod
    def find(folder: Path | str) -> tuple[Path, Path] | None:
        """Find the vocabulary files in a folder.

        Returns:
            The path with the ids and the path with the merges, or None. Only
            the first is sure to exist.
        """
        return find_vocabulary(Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load `vocab.json` and `merges.txt`, or an equivalent.

        `encoder.json` with `vocab.bpe`, or `tokenizer.json` alone, will do;
        see `gpt2.tokenizer.files`. Settings are read too, such as a prefix
        space or the token that ends a text, or refused by their names.

        Raises:
            TokenizerError: A file is missing or invalid, or has a setting
                that cannot be followed; the message names the file and the
                fault.
        """
        vocabulary = read_vocabulary(Path(folder))
        try:
            return cls(
                vocabulary.ranks,
                vocabulary.special_tokens,
                settings=vocabulary.settings,
            )
        except TokenizerError as error:
            found = find_vocabulary(Path(folder))
            raise TokenizerError(f"{found and found[0]}: {error}") from None

    def save(self, folder: Path | str) -> None:
        """Write the files that `load` and transformers read, all or none.

        They are `vocab.json`, `merges.txt` and `tokenizer_config.json`; or,
        with settings that these cannot say, a `tokenizer.json` instead of the
        first two. The same step removes a tokenizer's other files.

        Raises:
            OSError: The files cannot be written; the folder is unchanged.
            TokenizerError: No merges make one of the tokens.
        """
        with replacing(
            Path(folder),
            leaves=OTHER_TOKENIZER_FILES.__contains__,
            first=["tokenizer.json", "vocab.json"],
        ) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the files of `save` one by one; `save` calls this on a stage.

        Raises:
            OSError: A file cannot be written.
            TokenizerError: No merges make one of the tokens.
        """
        folder.mkdir(parents=True, exist_ok=True)
        contents = file_contents(
            self.ranks, self.merges, self.special_tokens, self.settings
        )
        for name, content in contents.items():
            (folder / name).write_text(content, "utf-8", newline="\n")

    @cached_property
    def merges(self) -> list[Pair]:
        """The merged pairs, in the order in which they were learned.

        Raises:
            TokenizerError: No merges make one of the tokens.
        """
        earlier = {t: i for t, i in self.ranks.items() if len(t) == 1}
        halves: dict[bytes, Pair] = {}
        for token in sorted(self.ranks, key=self.ranks.__getitem__):
            if len(token) > 1:
                halves[token] = find_halves(token, earlier, halves)
                earlier[token] = self.ranks[token]
        return list(halves.values())

    @property
    def n_vocab(self) -> int:
        """The number of tokens, including special tokens."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of the token that ends a text, `<|endoftext|>` by default."""
        return self.special_tokens[self.settings.eos]

    @property
    def start_of_text(self) -> int:
        """The id of the token that begins a text; often the same."""
        return self.special_tokens[self.settings.bos]

    @property
    def add_bos_token(self) -> bool:
        """Whether a prompt begins with `start_of_text`.

        So it should for a model that has only seen texts from their beginning.
        The name is Hugging Face's.
        """
        return self.settings.before == (self.start_of_text,)

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        before = (self.start_of_text,) if value else ()
        self.settings = replace(self.settings, before=before)

    def encode_prompt(
        self, text: str, allow_special: bool = False
    ) -> list[int]:
        """Encode a prompt: a text with the tokens that go around it.

        These are the tokens that `add_bos_token` or a template in
        `tokenizer.json` asks for. `encode` itself never adds a token. An
        empty prompt is `start_of_text`, because a model continues something.

        Args:
            text: As for `encode`.
            allow_special: As for `encode`.

        Raises:
            TokenizerError: As for `encode`.
        """
        ids = self.encode(text, allow_special)
        ids = [*self.settings.before, *ids, *self.settings.after]
        return ids or [self.start_of_text]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Encode text as token ids, with tiktoken.

        Args:
            text: Any text without lone surrogates, which UTF-8 cannot encode.
            allow_special: Encode the name of a special token as that token.
                By default it is ordinary text, which is safe for text from
                users.

        Raises:
            TokenizerError: The text contains a lone surrogate, or a byte that
                is not in the vocabulary.
        """
        ids: list[int] = []
        for part in self._parts(text, allow_special):
            if isinstance(part, int):
                ids.append(part)
                continue
            for piece in _split_long_runs(part):
                ids += self._encoding.encode_ordinary(piece)
        return ids

    def encode_to_numpy(
        self, text: str, allow_special: bool = False
    ) -> np.ndarray:
        """Encode text like `encode`, as an array: faster for long texts.

        Args:
            text: As for `encode`.
            allow_special: As for `encode`.

        Returns:
            (T,) of uint32.

        Raises:
            TokenizerError: As for `encode`.
        """
        import numpy as np

        encode = self._encoding.encode_to_numpy
        arrays = [np.empty(0, np.uint32)]
        for part in self._parts(text, allow_special):
            if isinstance(part, int):
                arrays.append(np.array([part], np.uint32))
                continue
            for piece in _split_long_runs(part):
                arrays.append(encode(piece, disallowed_special=()))
        return np.concatenate(arrays)

    def encode_slowly(
        self, text: str, allow_special: bool = False
    ) -> list[int]:
        """Encode text like `encode`, in readable steps.

        Raises:
            TokenizerError: As for `encode`.
        """
        ids: list[int] = []
        for part in self._parts(text, allow_special):
            if isinstance(part, int):  # an added token
                ids.append(part)
                continue
            for piece in split_text(part):
                tokens = merge_piece(to_utf8(piece), self.ranks)
                ids += [self.ranks[token] for token in tokens]
        return ids

    def _parts(self, text: str, allow_special: bool) -> Iterable[str | int]:
        """Return the parts of a text: added tokens' ids, and what to split.

        tiktoken would replace a lone surrogate, and not survive a byte that
        it has no token for, so both are refused here.

        Raises:
            TokenizerError: As for `encode`.
        """
        to_utf8(text)
        parts = list(self._preparation.parts(text, allow_special))
        for part in parts if len(self._bytes) < 256 else []:
            if isinstance(part, str):
                self._check_bytes(to_utf8(part))
        return parts

    def _check_bytes(self, data: bytes) -> None:
        """Refuse bytes that have no token."""
        for byte in sorted(set(data) - self._bytes):
            at = data.index(byte)
            near = data[max(0, at - 10) : at + 10].decode(errors="replace")
            raise TokenizerError(
                f"the vocabulary has no token for the byte {byte:#04x}, which "
                f"stands in {near!r}"
            )

    def encode_bytes(self, data: bytes) -> list[int]:
        """Encode bytes: UTF-8 like its text, every other byte as one token.

        Each stretch of text is prepared by itself, for instance with a prefix
        space.

        Raises:
            TokenizerError: A byte is not in the vocabulary.
        """
        ids: list[int] = []
        # surrogateescape turns a stray byte into a surrogate, which valid
        # UTF-8 never contains.
        text = data.decode("utf-8", "surrogateescape")
        for part in regex.findall(r"[\ud800-\udfff]|[^\ud800-\udfff]+", text):
            if "\ud800" <= part <= "\udfff":
                data = part.encode("utf-8", "surrogateescape")
                self._check_bytes(data)
                ids.append(self.ranks[data])
            else:
                ids += self.encode(part)
        return ids

    def token_bytes(self, token_id: SupportsIndex) -> bytes:
        """Return the bytes of a token; a special token's are its name's.

        Raises:
            TokenizerError: The id is not in the vocabulary.
        """
        try:
            index = operator.index(token_id)
        except TypeError:  # not an integer
            index = -1
        if not 0 <= index < self.n_vocab:
            why = ""
            if index >= self.n_vocab:
                why = (
                    f"; the tokenizer has {self.n_vocab:,} tokens, and rows "
                    f"that pad a model's table beyond them stand for none "
                    f"(generate(..., n_vocab=tokenizer.n_vocab) draws no such "
                    f"id)"
                )
            raise TokenizerError(
                f"expected an id from 0 to {self.n_vocab - 1}, got "
                f"{token_id!r:.80}{why}"
            )
        return self._tokens[index]

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        """Decode ids to exactly the bytes that were encoded.

        Args:
            ids: As for `decode`.

        Raises:
            TokenizerError: As for `decode`.
        """
        return b"".join(map(self.token_bytes, one_row(ids)))

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Decode ids to text, with U+FFFD for bytes that are not UTF-8.

        Args:
            ids: Token ids: a list or other iterable; or a tensor or an array
                of integers, (T,) or (1, T), such as `generate` returns.

        Raises:
            TokenizerError: An id is not in the vocabulary, or a tensor has
                more than one row.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self, ids: Iterable[SupportsIndex]) -> Iterator[str]:
        """Yield text as ids arrive, holding back incomplete characters.

        Args:
            ids: Token ids, each a whole number or a tensor of one element.

        Raises:
            TokenizerError: An id is not in the vocabulary.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id in ids:
            if text := decoder.decode(self.token_bytes(token_id)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text


def _split_long_runs(text: str) -> list[str]:
    """Split text within long runs of white space, where pieces end anyway.

    Searching for such a run takes a fifth of the time of encoding. But if
    there is one, every second piece of half its length that begins in it is
    nothing but white space, and mostly one look at a piece tells.
    """
    half = _LONGEST_RUN // 2
    starts = range(0, len(text), half)
    if not any(text[at : at + half].isspace() for at in starts):
        return [text]
    # Matches no characters, before the last space of a run before a word.
    end_of_run = rf"(?=\s\S)(?<=\s{{{_LONGEST_RUN}}})"
    return regex.split(end_of_run, text)


def _in_order(
    ranks: Mapping[bytes, int], added: Mapping[str, int]
) -> list[bytes]:
    """Return the bytes of all tokens in the order of their ids.

    An added token may be an ordinary token too, with the same id.

    Raises:
        TokenizerError: An id is missing or repeated.
    """
    entries = [(rank, token) for token, rank in ranks.items()]
    for name, token_id in added.items():
        ordinary = set(name) <= CHARACTER_TO_BYTE.keys()
        if not ordinary or ranks.get(unspell(name)) != token_id:
            entries.append((token_id, to_utf8(name)))
    entries.sort()
    for expected, (token_id, _) in enumerate(entries):
        if token_id != expected:
            raise TokenizerError(
                f"expected each id from 0 to {len(entries) - 1} once, "
                f"got {token_id} instead of {expected}"
            )
    return [token for _, token in entries]


def _check_size(added: Mapping[str, int]) -> None:
    """Refuse added tokens that take too long to compile.

    Raises:
        TokenizerError: They have too many bytes.
    """
    size = sum(len(to_utf8(name)) for name in added)
    if size > _MOST_SPECIAL_BYTES:
        raise TokenizerError(
            f"expected at most {_MOST_SPECIAL_BYTES:,} bytes of special and "
            f"other added tokens, got {len(added):,} of {size:,} bytes"
        )


def one_row(ids: Any) -> Iterable[SupportsIndex]:
    """Return ids as a sequence; of a tensor or an array, its only row.

    Args:
        ids: An iterable, which is returned as it is; or a tensor or an array,
            (T,) or (1, T).

    Raises:
        TokenizerError: A tensor has another shape.
    """
    if not hasattr(ids, "shape"):
        return ids
    match tuple(ids.shape):
        case (_,):
            return ids.tolist()
        case (1, _):
            return ids.tolist()[0]
        case shape:
            raise TokenizerError(
                f"expected ids of shape (T,) or (1, T), got {shape}; decode "
                "row by row: [tokenizer.decode(row) for row in ids]"
            )
