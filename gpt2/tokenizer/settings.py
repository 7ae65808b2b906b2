"""What is done to a text before its bytes are merged, and afterwards.

GPT-2 itself only splits the text. Other byte-level BPE tokenizers normalize
it, set a space before it, split off digits, find whole words in it, or put
tokens around it. Hugging Face's tokenizers library defines what each of these
steps does and their order; `gpt2.tokenizer.pipeline` reads them from its file.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import regex  # type: ignore[import-untyped]  # it has no type hints

from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.tokenizer.newer import as_of_unicode_16

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

# Unicode's, and the regular expressions'; `str.rstrip` would take more.
_WHITE_SPACE = (
    "".join(
        map(
            chr,
            [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)],
        )
    )
    + "\u2028\u2029\u202f\u205f\u3000"
)
_SPACES = regex.compile(r"\s*")


@dataclass(frozen=True)
class Finding:
    """How an added token is found in a text."""

    lstrip: bool = False
    """Whether it takes the white space before it."""
    rstrip: bool = False
    """Whether it takes the white space after it."""
    single_word: bool = False
    """Whether it is found only where no letter or digit touches it."""
    normalized: bool = False
    """Whether it is looked for after normalizing; by default, words are."""


@dataclass(frozen=True)
class Settings:
    """How a tokenizer differs from GPT-2's, but for its vocabulary."""

    normalizers: tuple[Form, ...] = ()
    """Unicode normalization forms, applied in turn."""
    digits: str = ""
    r"""The regular expression of digits that are split off, `\p{N}` for each
    by itself or `\p{N}+` for runs; empty: none are."""
    add_prefix_space: bool = False
    """Whether text that begins with another character gets a space first."""
    before: tuple[int, ...] = ()
    """The ids that go before the ids of a text."""
    after: tuple[int, ...] = ()
    """The ids that follow them."""
    bos: str = END_OF_TEXT
    """The special token that begins a text."""
    eos: str = END_OF_TEXT
    """The special token that ends one."""
    pad: str | None = None
    """The special token that fills up short rows of a batch, if any."""
    words: Mapping[str, int] = field(default_factory=dict)
    """The id of each added token that is not special; any text spells it."""
    finding: Mapping[str, Finding] = field(default_factory=dict)
    """How tokens are found that are not found in the default way."""

    def changes(self) -> dict[str, object]:
        """Return the settings that are not GPT-2's."""
        plain = Settings()
        names = [entry.name for entry in fields(self)]
        values = {name: getattr(self, name) for name in names}
        return {k: v for k, v in values.items() if v != getattr(plain, k)}

    def found(self, name: str) -> Finding:
        """Return how a token is found."""
        default = Finding(normalized=name in self.words)
        return self.finding.get(name, default)

    def normalize(self, text: str) -> str:
        """Apply the normalization forms.

        tokenizers 0.23 knows an older Unicode than Python: it leaves about 70
        characters as they are that came after Unicode 12.
        """
        for form in self.normalizers:
            text = unicodedata.normalize(form, text)
        return text

    def segments(self, text: str) -> list[str]:
        """Split off digits and set prefix spaces.

        Every segment gets a space of its own, including each digit, as in
        tokenizers (`ByteLevel::pre_tokenize`). Digits are those of Unicode 16;
        tokenizers 0.23 also splits off the 13 that Unicode 17 added.
        """
        parts = [text]
        if self.digits:
            # Splitting keeps what the group in the pattern matches.
            parts = regex.split(as_of_unicode_16(f"({self.digits})"), text)
        parts = [part for part in parts if part]
        if self.add_prefix_space:
            parts = [p if p.startswith(" ") else f" {p}" for p in parts]
        return parts


class Search:
    """Finds added tokens in text: at each place the longest."""

    def __init__(
        self, ids: Mapping[str, int], finding: Mapping[str, Finding]
    ) -> None:
        """Take the id of each token, and how each is found."""
        self.ids, self.finding = dict(ids), dict(finding)
        names = sorted(map(re.escape, ids), key=len, reverse=True)
        # Of names alone, `re` makes a pattern ten times as fast as `regex`.
        self._pattern = re.compile("|".join(names)) if names else None

    def split(self, text: str) -> Iterator[str | int]:
        """Yield the text between the tokens, and their ids, in order."""
        begin = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            how, (start, stop) = self.finding[match[0]], match.span()
            if how.single_word and _touches_a_word(text, start, stop):
                continue
            if how.lstrip:
                start = begin + len(text[begin:start].rstrip(_WHITE_SPACE))
            if how.rstrip:
                stop = _SPACES.match(text, stop).end()
            if begin < start:
                yield text[begin:start]
            yield self.ids[match[0]]
            begin = stop
        if begin < len(text):
            yield text[begin:]


def _touches_a_word(text: str, start: int, stop: int) -> bool:
    r"""Tell whether a character that is `\w` touches part of a text."""
    around = text[start - 1 : start] + text[stop : stop + 1]
    return regex.search(r"\w", around) is not None


class Preparation:
    """Applies settings to texts."""

    def __init__(
        self, settings: Settings, special_tokens: Mapping[str, int]
    ) -> None:
        """Take the settings and the special tokens of a tokenizer."""
        self._settings = settings
        self._searches = {
            allow_special: self._build(
                {**(special_tokens if allow_special else {}), **settings.words}
            )
            for allow_special in (False, True)
        }

    def _build(self, ids: Mapping[str, int]) -> tuple[Search, Search]:
        """Build the search before normalizing, and the one after it."""
        found = {name: self._settings.found(name) for name in ids}
        raw = {n: i for n, i in ids.items() if not found[n].normalized}
        normal = {n: i for n, i in ids.items() if found[n].normalized}
        rename = self._settings.normalize
        return Search(raw, found), Search(
            {rename(name): i for name, i in normal.items()},
            {rename(name): found[name] for name in normal},
        )

    def parts(self, text: str, allow_special: bool) -> Iterable[str | int]:
        """Yield the text to merge, and the ids of added tokens, in order."""
        raw, normal = self._searches[allow_special]
        for part in raw.split(text):
            if isinstance(part, int):
                yield part
                continue
            for piece in normal.split(self._settings.normalize(part)):
                if isinstance(piece, int):
                    yield piece
                else:
                    yield from self._settings.segments(piece)
