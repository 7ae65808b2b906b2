"""The two kinds of files that hold a vocabulary, each read on its own."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2.files.reading import (
    MOST_BYTES,
    field,
    is_there,
    read_bytes,
    read_json_object,
)
from gpt2.tokenizer.bpe import LONGEST_TOKEN, TokenizerError
from gpt2.tokenizer.configuration import ADDED, Added, Configuration
from gpt2.tokenizer.pipeline import read_finding, read_settings
from gpt2.tokenizer.settings import Finding, Settings

FILE_NAMES = (
    ("tokenizer.json", "tokenizer.json"),
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
)


@dataclass(frozen=True)
class Contents:
    """What one kind of file says of a vocabulary."""

    ids_path: Path
    merges_path: Path
    added_path: Path
    ids: dict[str, int]
    merges: list[tuple[str, str]]
    """The place of each merge in its file, and the merge."""
    added: dict[str, Added]
    settings: Settings


def read_one(path: Path) -> Contents:
    """Read a `tokenizer.json`.

    A merge is written as "a b" or, since 2024, as ["a", "b"].
    """
    whole = read_json_object(path, TokenizerError)
    model = field(whole, "model", dict, path, TokenizerError)
    if (kind := model.get("type", "BPE")) != "BPE":
        raise TokenizerError(
            f"{path}: expected a BPE model, got {kind!r:.80}; encode the text "
            f"with the tokenizers library, and pass the ids to gpt2.generate"
        )
    ids = field(model, "vocab", dict, path, TokenizerError)
    _check_entries(ids, path)
    merges = []
    listed = field(model, "merges", list, path, TokenizerError)
    for number, merge in enumerate(listed, 1):
        parts = [merge] if isinstance(merge, str) else merge
        if not isinstance(parts, list) or not all(
            isinstance(part, str) for part in parts
        ):
            raise TokenizerError(
                f"{path}, merge {number}: {merge!r:.80} is not two tokens"
            )
        merges.append((f"merge {number}", " ".join(parts)))
    return Contents(
        ids_path=path,
        merges_path=path,
        added_path=path,
        ids=ids,
        merges=merges,
        added=_read_added(whole, path),
        settings=read_settings(whole, path),
    )


def _read_added(whole: Mapping[str, Any], path: Path) -> dict[str, Added]:
    """Read the tokens added to a `tokenizer.json`."""
    added: dict[str, Added] = {}
    if whole.get("added_tokens") is not None:
        listed = field(whole, "added_tokens", list, path, TokenizerError)
        for number, token in enumerate(listed, 1):
            place = f"{path}, added token {number}"
            if not isinstance(token, dict):
                raise TokenizerError(
                    f"{place} must be an object, got {token!r:.80}"
                )
            name = field(token, "content", str, place, TokenizerError)
            if name in added:
                raise TokenizerError(f"{place}: {name!r:.80} is repeated")
            added[name] = Added(
                field(token, "id", int, place, TokenizerError),
                token.get("special", True),
                read_finding(token, place),
            )
    _check_entries({n: t.token_id for n, t in added.items()}, path)
    return added


def read_two(
    ids_path: Path,
    merges_path: Path,
    folder: Path,
    configuration: Configuration,
) -> Contents:
    """Read ids and merges from two files, and the tokens added to them."""
    added = dict(configuration.added)
    if is_there(folder / ADDED):
        for name, token_id in _read_ids(folder / ADDED).items():
            special = name in configuration.special
            how = Finding(normalized=not special)
            added.setdefault(name, Added(token_id, special, how))
    return Contents(
        ids_path=ids_path,
        merges_path=merges_path,
        added_path=folder / ADDED,
        ids=_read_ids(ids_path),
        merges=_read_merges(merges_path),
        added=added,
        settings=Settings(),
    )


def _read_ids(path: Path) -> dict[str, int]:
    """Read a JSON object that maps tokens to ids."""
    ids = read_json_object(path, TokenizerError)
    _check_entries(ids, path)
    return ids


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """Read merges, one on each line; the first line may state a version.

    Returns:
        The place of each merge in the file, and the merge.
    """
    data = read_bytes(path, TokenizerError, MOST_BYTES)
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} cannot be read: {error}") from error
    if lines[0].startswith("#version"):
        lines[0] = ""  # skipped, but the others keep their line numbers
    return [(f"line {i}", line) for i, line in enumerate(lines, 1) if line]


def _check_entries(ids: Mapping[str, Any], path: Path) -> None:
    """Check that tokens have a sane length and that ids are integers."""
    for token, token_id in ids.items():
        if not token or type(token_id) is not int:
            raise TokenizerError(
                f"{path}: expected a token and its integer id, got "
                f"{token!r:.80} with id {token_id!r:.80}"
            )
        if len(token) > LONGEST_TOKEN:
            raise TokenizerError(
                f"{path}: the token {token!r:.30} has {len(token):,} "
                f"characters, more than {LONGEST_TOKEN:,}"
            )


def warn_of_others(contents: Contents, folder: Path) -> None:
    """Warn of an older vocabulary beside a `tokenizer.json`."""
    for ids_name, merges_name in FILE_NAMES[1:]:
        ids_path, merges_path = folder / ids_name, folder / merges_name
        if not (is_there(ids_path) and is_there(merges_path)):
            continue
        known = contents.ids | {
            name: token.token_id for name, token in contents.added.items()
        }
        same = _read_ids(ids_path).items() <= known.items() and [
            merge for _, merge in _read_merges(merges_path)
        ] == [merge for _, merge in contents.merges]
        if not same:
            warnings.warn(
                f"{folder}: {ids_name} and {merges_name} hold another "
                f"vocabulary than tokenizer.json, which is read, as "
                f"transformers does; remove the two if they are outdated",
                stacklevel=2,
            )
