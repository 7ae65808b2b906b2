"""The small files beside a vocabulary that name tokens and settings.

transformers writes `tokenizer_config.json`; before version 5, also
`special_tokens_map.json` and `added_tokens.json`. The model's `config.json`
may give the ids of its first and last token, and the kind of its tokenizer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2.files.reading import (
    SETTINGS_BYTES,
    field,
    is_there,
    read_json_object,
)
from gpt2.tokenizer.bpe import END_OF_TEXT, TokenizerError
from gpt2.tokenizer.pipeline import read_finding
from gpt2.tokenizer.settings import Finding

ADDED, SETTINGS = "added_tokens.json", "tokenizer_config.json"
NAMES, CONFIG = "special_tokens_map.json", "config.json"

# In the order in which transformers gives ids to those that have none.
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_CLASSES = (
    *("GPT2Tokenizer", "GPT2TokenizerFast"),
    *("PreTrainedTokenizerFast", "TokenizersBackend"),
)
"""The classes that read `vocab.json` and `merges.txt` as GPT-2's does."""


@dataclass(frozen=True)
class Added:
    """A token added to a vocabulary."""

    token_id: int
    special: bool
    finding: Finding


@dataclass(frozen=True)
class Configuration:
    """What the small files say."""

    path: Path
    """The `tokenizer_config.json`, which may be missing."""
    roles: Mapping[str, str]
    """The special token in each role, such as `eos`."""
    special: tuple[str, ...]
    """The special tokens, in the order of their roles, and all others."""
    added: Mapping[str, Added]
    """The added tokens that `tokenizer_config.json` lists."""
    flags: Mapping[str, bool | None]
    """`add_prefix_space`, `add_bos_token` and `add_eos_token`, where given."""
    ids: Mapping[str, int]
    """The ids of `bos` and `eos` in the model's `config.json`."""

    def choose(self, role: str, special_tokens: Mapping[str, int]) -> str:
        """Return the special token in a role, `bos` or `eos`.

        The tokenizer's files and the model's config may disagree, because
        programs write `<|endoftext|>` where nobody has chosen anything. So a
        choice goes before that default.

        Returns:
            The token's name; "" if none is known.
        """
        names = {i: name for name, i in special_tokens.items()}
        chosen = [self.roles.get(role), names.get(self.ids.get(role, -1))]
        for name in [name for name in chosen if name] + [END_OF_TEXT]:
            if name != END_OF_TEXT:
                return name
        return END_OF_TEXT if END_OF_TEXT in special_tokens else ""


def tokenizer_class(folder: Path) -> tuple[Path, str] | None:
    """Return the tokenizer's class, if a file names one, and that file."""
    for name in (SETTINGS, CONFIG):
        kind = _read(folder / name).get("tokenizer_class")
        if isinstance(kind, str):
            return folder / name, kind
    return None


def check_class(folder: Path) -> None:
    """Refuse files without a `tokenizer.json` that another class reads.

    Raises:
        TokenizerError: The class is not GPT-2's, or a file is damaged.
    """
    found = tokenizer_class(folder)
    if found is not None and found[1] not in _CLASSES:
        path, kind = found
        raise TokenizerError(
            f"{path}: the tokenizer_class is {kind!r:.80}, which splits text "
            f"in another way than GPT2Tokenizer. Encode the text with "
            f"transformers, and pass the ids to gpt2.generate"
        )


def read_configuration(folder: Path) -> Configuration:
    """Read the small files beside a vocabulary.

    Raises:
        TokenizerError: A file is damaged; the message names it.
    """
    path = folder / SETTINGS
    settings = _read(path)
    whole: dict[str, Any] = {}
    places: dict[str, Path] = {}
    # As in transformers: the older file counts where the newer one does not
    # list the added tokens.
    newer = settings.get("added_tokens_decoder") is not None
    for place in (path,) if newer else (path, folder / NAMES):
        entries = settings if place == path else _read(place)
        whole |= entries
        places |= dict.fromkeys(entries, place)
    roles = {}
    for role in _ROLES:
        key = f"{role}_token"
        if whole.get(key) is not None:
            roles[role] = _name(whole[key], places[key], key)
    others = [
        name
        for key in _EXTRA
        if whole.get(key) is not None
        for name in _names(whole[key], places[key], key)
    ]
    special = tuple(dict.fromkeys([*roles.values(), *others]))
    flags = {
        key: _flag(settings, key, path)
        for key in ("add_prefix_space", "add_bos_token", "add_eos_token")
    }
    config = _read(folder / CONFIG)
    ids = {role: _first_id(config, role) for role in ("bos", "eos")}
    return Configuration(
        path=path,
        roles=roles,
        special=special,
        added=_read_decoder(settings, path),
        flags=flags,
        ids={role: i for role, i in ids.items() if i is not None},
    )


def _read(path: Path) -> dict[str, Any]:
    """Read an object of settings; of a file that is missing, an empty one."""
    if not is_there(path):
        return {}
    return read_json_object(path, TokenizerError, SETTINGS_BYTES)


def _flag(settings: Mapping[str, Any], key: str, path: Path) -> bool | None:
    """Return true, false, or None if the settings do not say."""
    if key not in settings:
        return None
    kinds = (bool, type(None))
    flag: bool | None = field(settings, key, kinds, path, TokenizerError)
    return flag


def _first_id(config: Mapping[str, Any], role: str) -> int | None:
    """Return the id of a role, or the first of several."""
    found = config.get(f"{role}_token_id")
    found = found[:1] if isinstance(found, list) else [found]
    return next((i for i in found if type(i) is int), None)


def _name(token: Any, path: Path, key: str) -> str:
    """Return the name of a token, written as a string or as an object."""
    name = token.get("content") if isinstance(token, dict) else token
    if not isinstance(name, str) or not name:
        raise TokenizerError(
            f"{path}: expected a token for {key!r}, got {token!r:.80}"
        )
    return name


def _names(listed: Any, path: Path, key: str) -> Iterator[str]:
    """Yield the names in a list, or in an object from roles to names."""
    if isinstance(listed, dict):
        listed = list(listed.values())
    if not isinstance(listed, list):
        raise TokenizerError(
            f"{path}: expected a list for {key!r}, got {listed!r:.80}"
        )
    for token in listed:
        yield _name(token, path, key)


def _read_decoder(settings: Mapping[str, Any], path: Path) -> dict[str, Added]:
    """Read `added_tokens_decoder`, an object from ids to tokens."""
    key = "added_tokens_decoder"
    if settings.get(key) is None:
        return {}
    added = {}
    listed = field(settings, key, dict, path, TokenizerError)
    for number, token in listed.items():
        place = f"{path}, {key} {number!r:.40}"
        if not isinstance(token, dict) or not number.isdecimal():
            raise TokenizerError(f"{place}: {token!r:.80} is no token's id")
        name = field(token, "content", str, place, TokenizerError)
        added[name] = Added(
            int(number[:40]),
            token.get("special", False),
            read_finding({"special": False} | token, place),
        )
    return added
