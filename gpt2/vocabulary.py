"""Read a vocabulary from files: ours, Hugging Face's and OpenAI's.

A vocabulary is kept as two things: the id of every token, spelled with one
printable character for each byte, and the merges in the order in which they
were learned. `vocab.json` and `merges.txt` hold one each; OpenAI called them
`encoder.json` and `vocab.bpe`; `tokenizer.json` holds both.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2.bpe import (
    BYTE_TO_CHARACTER,
    CHARACTER_TO_BYTE,
    TokenizerError,
    merge_piece,
    split_text,
    unspell,
)
from gpt2.files.writing import check_whole

FILE_NAMES = (
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("tokenizer.json", "tokenizer.json"),
)


@dataclass(frozen=True)
class Vocabulary:
    """What the files of a tokenizer say."""

    ranks: dict[bytes, int]
    """The id of each ordinary token."""
    special_tokens: dict[str, int]
    """The id of each token that no text spells."""
    add_bos_token: bool
    """Whether a prompt should begin with an end of text."""


def find_vocabulary(folder: Path) -> tuple[Path, Path] | None:
    """Find the files with the ids and with the merges in a folder.

    Returns:
        Both paths, of which only the first is sure to exist, or None.
    """
    for ids, merges in FILE_NAMES:
        if (folder / ids).exists():
            return folder / ids, folder / merges
    return None


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary in a folder.

    Entries that no byte or merge makes are special tokens, whatever their ids,
    if `split_text` would break them, as it does `<|endoftext|>`; an entry of
    one piece must have had a merge, so the file has lost a line. The ids of
    merged tokens must rise in the order of the merges.

    Raises:
        TokenizerError: A file is missing or wrong; the message says which,
            and what about it.
    """
    check_whole(folder, TokenizerError)
    found = find_vocabulary(folder)
    if found is None:
        names = ", ".join(" and ".join(dict.fromkeys(n)) for n in FILE_NAMES)
        raise TokenizerError(f"{folder}: expected one of {names}")
    ids_path, merges_path = found
    if ids_path == merges_path:
        ids, added, lines = _read_both(ids_path)
    else:
        ids, added = _read_json(ids_path), _read_added(folder)
        lines = _read_lines(merges_path)
    for name in added:
        ids.pop(name, None)
    _check_ids(ids | added, ids_path)
    ranks = _take_ranks(ids, lines, merges_path)
    settings = folder / "tokenizer_config.json"
    asked = _read_json(settings) if settings.exists() else {}
    add_bos_token = asked.get("add_bos_token") is True
    return Vocabulary(ranks, ids | added, add_bos_token)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: expected an object of tokens and ids")
    return value


def _read_lines(path: Path) -> list[str]:
    """Read merges, one in each line; the first may state a version."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error
    if lines[0].startswith("#version"):
        lines[0] = ""  # lines keep their numbers
    return lines


def _read_added(folder: Path) -> dict[str, int]:
    """Read the special tokens that were added to a published vocabulary."""
    path = folder / "added_tokens.json"
    return _read_json(path) if path.exists() else {}


def _read_both(path: Path) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """Read a `tokenizer.json`: ids, added special tokens, and merges.

    A merge is written as "a b" or, since 2024, as ["a", "b"].
    """
    try:
        whole = _read_json(path)
        model = whole["model"]
        kind = model.get("type", "BPE")
        ids = dict(model["vocab"])
        merges = [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in model["merges"]
        ]
        added = {
            token["content"]: token["id"]
            for token in whole.get("added_tokens") or ()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(
            f"{path}: expected a model with vocab and merges, and a list of "
            f"added_tokens; {type(error).__name__}: {error}"
        ) from error
    if kind != "BPE":
        raise TokenizerError(f"{path}: expected a BPE model, got {kind!r}")
    return ids, added, merges


def _check_ids(ids: Mapping[str, Any], path: Path) -> None:
    """Refuse what is not a map from spelled tokens, all bytes among them."""
    for token, token_id in ids.items():
        if not token or type(token_id) is not int:
            raise TokenizerError(f"{path}: {token!r} has id {token_id!r}")
    for byte, character in BYTE_TO_CHARACTER.items():
        if character not in ids:
            raise TokenizerError(f"{path}: no token for byte {byte:#04x}")


def _take_ranks(
    ids: dict[str, int], lines: Iterable[str], path: Path
) -> dict[bytes, int]:
    """Move the bytes, and what the merges make, out of the ids."""
    alphabet = BYTE_TO_CHARACTER.items()
    ranks = {bytes([byte]): ids.pop(char) for byte, char in alphabet}
    highest = -1
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        where = f"{path}, line {number}: {line!r}"
        parts = line.split(" ")
        try:
            first, second = (unspell(part) for part in parts)
        except (KeyError, ValueError):
            raise TokenizerError(f"{where} is not two tokens") from None
        if first not in ranks or second not in ranks:
            raise TokenizerError(f"{where} joins what no earlier line makes")
        rank = ids.pop("".join(parts), None)
        if rank is None:
            raise TokenizerError(f"{where} makes a token that has no id left")
        # A rank is looked up by the joined bytes alone, so the order of the
        # ids must be that of the lines, and no other pair may give this token.
        if rank < highest:
            raise TokenizerError(f"{where} has id {rank}, after {highest}")
        if merge_piece(first + second, ranks) != [first, second]:
            raise TokenizerError(f"{where} is forestalled by earlier lines")
        ranks[first + second] = highest = rank
    for token in ids:
        if _is_one_piece(token):
            raise TokenizerError(f"{path}: no line makes the token {token!r}")
    return ranks


def _is_one_piece(spelled: str) -> bool:
    """Tell whether merges could make a token, as they cannot cross pieces."""
    if not set(spelled) <= CHARACTER_TO_BYTE.keys():
        return False
    return len(split_text(unspell(spelled).decode(errors="replace"))) == 1
