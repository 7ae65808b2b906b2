"""A tokenizer as GGUF holds it, and what llama.cpp cannot do of it.

llama.cpp splits text as `tokenizer.ggml.pre` says, and then merges by the list
of merges, as every byte-level BPE does. So a vocabulary of one's own needs
nothing more than its tokens and its merges.

Source: ggml-org/llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpt2.tokenizer.bpe import spell
from gpt2.tokenizer.settings import Settings
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.errors import CheckpointError

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # llama.cpp's types of tokens

# Settings that GGUF can hold. The others change what text is encoded as.
_KNOWN = {"before", "after", "bos", "eos", "pad", "words"}

# How llama.cpp is to split text: as GPT-2, or digits one by one and the rest
# as GPT-2.
_GPT2, _DIGITS = "gpt-2", "starcoder"
_EACH_DIGIT = r"\p{N}"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a GGUF file."""

    tokens: list[str]
    """The spelling of each ordinary token, and the name of the others."""
    types: list[int]
    """llama.cpp's type of each."""
    merges: list[str]
    """The two tokens of each merge, with a space between them."""
    ids: dict[str, int]
    """The tokens with a role: `bos`, `eos` and maybe `padding`."""
    adds: dict[str, bool]
    """Whether `bos` goes before a text, and whether `eos` follows it."""
    splits_digits: bool
    """Whether every digit is a piece of its own."""
    notes: tuple[str, ...]
    """What the file has otherwise than the tokenizer."""

    def add_to(self, writer: Any) -> None:
        """Add the values to a `GGUFWriter`."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_DIGITS if self.splits_digits else _GPT2)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        # There must be a merge. This pair, a letter before a space, never
        # meets in a piece of text.
        writer.add_token_merges(self.merges or ["a \u0120"])
        for role, token_id in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", token_id)
        for role, value in self.adds.items():
            writer.add_bool(f"tokenizer.ggml.add_{role}_token", value)


def gguf_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return a tokenizer's vocabulary as GGUF holds it.

    Raises:
        CheckpointError: llama.cpp would encode text as other ids.
        TokenizerError: No merges make one of the tokens.
    """
    settings = tokenizer.settings
    _check_settings(settings)
    _check_overlaps(settings.words, tokenizer.special_tokens)
    merges, roles = tokenizer.merges, _roles(tokenizer)
    entries = [(i, spell(t), _NORMAL) for t, i in tokenizer.ranks.items()]
    for name, i in tokenizer.special_tokens.items():
        entries.append((i, name, _CONTROL))
    for name, i in settings.words.items():
        entries.append((i, name, _USER_DEFINED))
    entries.sort()
    beyond = [name for i, name, _ in entries if i >= tokenizer.n_vocab]
    entries = entries[: tokenizer.n_vocab]
    _check_tokens(tokenizer, [text for _, text, _ in entries])
    return Vocabulary(
        [text for _, text, _ in entries],
        [kind for *_, kind in entries],
        [f"{spell(first)} {spell(second)}" for first, second in merges],
        roles,
        _added(settings, roles),
        settings.digits == _EACH_DIGIT,
        tuple(
            f"the model has no row for {name!r:.80}, which is left out"
            for name in beyond
        ),
    )


def _check_settings(settings: Settings) -> None:
    """Refuse settings that GGUF cannot hold.

    Raises:
        CheckpointError: llama.cpp would encode text as other ids.
    """
    changes = {k: v for k, v in settings.changes().items() if k not in _KNOWN}
    if settings.digits == _EACH_DIGIT:
        del changes["digits"]
    # Without normalizers, it does not matter whether a name is normalized.
    changes["finding"] = {
        name: how
        for name, how in settings.finding.items()
        if how.lstrip or how.rstrip or how.single_word
    }
    if any(changes.values()):
        shown = [f"{k}={v!r:.80}" for k, v in changes.items() if v]
        raise CheckpointError(
            f"the tokenizer has {', '.join(shown)}, which GGUF cannot hold: "
            f"llama.cpp would encode text as other ids"
        )


def _check_tokens(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Refuse a vocabulary that llama.cpp cannot look up in.

    Raises:
        CheckpointError: A byte is missing, or two tokens are spelled alike.
    """
    missing = [b for b in range(256) if bytes([b]) not in tokenizer.ranks]
    if missing:
        raise CheckpointError(
            f"the tokenizer has no token for the byte {missing[0]:#04x}, "
            f"which llama.cpp would leave out of a text without an error; it "
            f"cannot be written as GGUF"
        )
    for name in tokenizer.special_tokens:
        if not name or "\0" in name:
            raise CheckpointError(
                f"the tokenizer has a special token named {name!r:.80}, which "
                f"llama.cpp cannot read"
            )
    ((twice, n_times),) = Counter(tokens).most_common(1)
    if n_times > 1:
        raise CheckpointError(
            f"the tokenizer has an added token whose name, {twice!r:.80}, is "
            f"the spelling of another token; llama.cpp cannot tell them apart"
        )


def _check_overlaps(words: Iterable[str], special: Iterable[str]) -> None:
    """Refuse added words of which llama.cpp finds another one in some text.

    It looks for the longest one first, and not for the one that comes first:
    of `cat` and `atlas`, it finds `atlas` in `catlas`.

    Raises:
        CheckpointError: A word overlaps with a longer one.
    """
    words = set(words)
    names = [*words, *special] if words else []
    starting: dict[str, list[str]] = {}
    for name in names:
        for end in range(1, len(name)):
            starting.setdefault(name[:end], []).append(name)
    for name in names:
        for at in range(1, len(name)):
            for other in starting.get(name[at:], ()):
                longer = len(other.encode()) >= len(name.encode())
                both = name[:at] + other
                plain = not words & {name, other} or both.startswith(other)
                if longer and not plain:
                    raise CheckpointError(
                        f"the tokenizer has the added words {name!r:.80} and "
                        f"{other!r:.80}; in {both!r:.80} it finds the first, "
                        f"and llama.cpp would find the second"
                    )


def _roles(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the id of each token with a role."""
    ids, pad = tokenizer.special_tokens, tokenizer.settings.pad
    roles = {"bos": tokenizer.start_of_text, "eos": tokenizer.end_of_text}
    if pad is not None and ids.get(pad, tokenizer.n_vocab) < tokenizer.n_vocab:
        roles["padding"] = ids[pad]
    return roles


def _added(settings: Settings, roles: dict[str, int]) -> dict[str, bool]:
    """Tell whether `bos` is to begin a text, and `eos` to end it.

    Raises:
        CheckpointError: Other tokens go around a text.
    """
    bos, eos = (roles["bos"],), (roles["eos"],)
    before, after = settings.before, settings.after
    if before not in ((), bos) or after not in ((), eos):
        raise CheckpointError(
            f"the tokenizer puts the ids {list(before)} before a text and "
            f"{list(after)} behind it; GGUF can say only that the token "
            f"{bos[0]} begins it and the token {eos[0]} ends it"
        )
    return {"bos": before == bos, "eos": after == eos}
