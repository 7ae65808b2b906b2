"""Read a vocabulary from files: ours, Hugging Face's and OpenAI's.

A vocabulary is kept as two things: the id of every token, spelled with one
printable character for each byte, and the merges in the order in which they
were learned. `vocab.json` and `merges.txt` hold one each; OpenAI called them
`encoder.json` and `vocab.bpe`; `tokenizer.json` holds both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2.files.reading import (
    MOST_BYTES,
    SETTINGS_BYTES,
    field,
    is_there,
    read_bytes,
    read_json_object,
)
from gpt2.files.whole import check_whole, read_whole
from gpt2.tokenizer.bpe import (
    BYTE_TO_CHARACTER,
    CHARACTER_TO_BYTE,
    LONGEST_TOKEN,
    Pair,
    TokenizerError,
    is_forestalled,
    split_text,
    unspell,
)

FILE_NAMES = (
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
    ("tokenizer.json", "tokenizer.json"),
)
_ADDED, _SETTINGS = "added_tokens.json", "tokenizer_config.json"


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
        if is_there(folder / ids):
            return folder / ids, folder / merges
    return None


def vocabulary_files(folder: Path) -> list[Path]:
    """List the files in a folder that `read_vocabulary` reads."""
    found = find_vocabulary(folder)
    if found is None:
        return []
    files = dict.fromkeys(found)  # once where they are one
    if len(files) > 1:
        files |= {folder / _ADDED: None}
    files |= {folder / _SETTINGS: None}
    return [path for path in files if is_there(path)]


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
    return read_whole(folder, lambda: _read(folder), TokenizerError)


def _read(folder: Path) -> Vocabulary:
    """Read the vocabulary in a folder to which nobody saves meanwhile."""
    check_whole(folder, TokenizerError)
    found = find_vocabulary(folder)
    if found is None:
        names = ", ".join(" and ".join(dict.fromkeys(n)) for n in FILE_NAMES)
        raise TokenizerError(f"{folder}: expected one of {names}")
    ids_path, merges_path = found
    if ids_path == merges_path:
        added_path = ids_path
        ids, added, merges = _read_both(ids_path)
    else:
        added_path = folder / _ADDED
        ids, merges = _read_ids(ids_path), _read_merges(merges_path)
        added = _read_ids(added_path) if is_there(added_path) else {}
    for name in added:
        ids.pop(name, None)
    for byte, character in BYTE_TO_CHARACTER.items():
        if character not in ids:
            raise TokenizerError(f"{ids_path}: no token for byte {byte:#04x}")
    files = dict.fromkeys(ids, ids_path) | dict.fromkeys(added, added_path)
    _check_order(ids | added, files)
    ranks = _take_ranks(ids, merges, merges_path)
    return Vocabulary(ranks, ids | added, _asks_for_bos(folder / _SETTINGS))


def _read_ids(path: Path) -> dict[str, int]:
    """Read a map from tokens to ids."""
    ids = read_json_object(path, TokenizerError)
    _check_entries(ids, path)
    return ids


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """Read merges, one in each line; the first may state a version.

    Returns:
        Where each of them stands, and the merge.
    """
    data = read_bytes(path, TokenizerError, MOST_BYTES)
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} cannot be read: {error}") from error
    if lines[0].startswith("#version"):
        lines[0] = ""  # lines keep their numbers
    return [(f"line {i}", line) for i, line in enumerate(lines, 1) if line]


def _read_both(
    path: Path,
) -> tuple[dict[str, int], dict[str, int], list[tuple[str, str]]]:
    """Read a `tokenizer.json`: ids, added special tokens, and merges.

    A merge is written as "a b" or, since 2024, as ["a", "b"].
    """
    whole = read_json_object(path, TokenizerError)
    model = field(whole, "model", dict, path, TokenizerError)
    if (kind := model.get("type", "BPE")) != "BPE":
        raise TokenizerError(f"{path}: expected a BPE model, got {kind!r:.80}")
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
    added: dict[str, int] = {}
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
                raise TokenizerError(f"{place}: {name!r:.80} comes twice")
            added[name] = field(token, "id", int, place, TokenizerError)
    _check_entries(added, path)
    return ids, added, merges


def _asks_for_bos(path: Path) -> bool:
    """Read whether a prompt should begin with an end of text."""
    if not is_there(path):
        return False
    settings = read_json_object(path, TokenizerError, SETTINGS_BYTES)
    kinds = (bool, type(None))
    asked = {"add_bos_token": None} | settings
    return bool(field(asked, "add_bos_token", kinds, path, TokenizerError))


def _check_entries(ids: Mapping[str, Any], path: Path) -> None:
    """Refuse what is not a map from tokens of a sane length to ids."""
    for token, token_id in ids.items():
        if not token or type(token_id) is not int:
            raise TokenizerError(
                f"{path}: {token!r:.80} has id {token_id!r:.80}"
            )
        if len(token) > LONGEST_TOKEN:
            raise TokenizerError(
                f"{path}: the token {token!r:.30} has {len(token):,} "
                f"characters, more than {LONGEST_TOKEN:,}"
            )


def _check_order(ids: Mapping[str, int], files: Mapping[str, Path]) -> None:
    """Refuse ids that are not each number from 0 on, once."""
    by_id = sorted(ids.items(), key=lambda entry: entry[1])
    for expected, (token, token_id) in enumerate(by_id):
        if token_id != expected:
            raise TokenizerError(
                f"{files[token]}: {token!r:.80} has id {token_id}; expected "
                f"each id from 0 to {len(ids) - 1} once, and {expected} next"
            )


def _take_ranks(
    ids: dict[str, int], merges: Iterable[tuple[str, str]], path: Path
) -> dict[bytes, int]:
    """Move the bytes, and what the merges make, out of the ids."""
    alphabet = BYTE_TO_CHARACTER.items()
    ranks = {bytes([byte]): ids.pop(char) for byte, char in alphabet}
    halves: dict[bytes, Pair] = {}
    highest = -1
    for place, merge in merges:
        where = f"{path}, {place}: {merge!r:.80}"
        parts = merge.split(" ")
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
        if is_forestalled(first, second, ranks, halves):
            raise TokenizerError(f"{where} is forestalled by earlier lines")
        ranks[first + second] = highest = rank
        halves[first + second] = first, second
    for token in ids:
        if _is_one_piece(token):
            raise TokenizerError(
                f"{path}: no line makes the token {token!r:.80}"
            )
    return ranks


def _is_one_piece(spelled: str) -> bool:
    """Tell whether merges could make a token, as they cannot cross pieces."""
    if not set(spelled) <= CHARACTER_TO_BYTE.keys():
        return False
    return len(split_text(unspell(spelled).decode(errors="replace"))) == 1
