"""Read a vocabulary from files: this package's, Hugging Face's or OpenAI's.

A vocabulary has two parts: the id of every token, spelled with one printable
character for each byte, and the merges in the order in which they were
learned. `vocab.json` holds the ids and `merges.txt` the merges; OpenAI called
them `encoder.json` and `vocab.bpe`; `tokenizer.json` holds both, and settings.

A folder may have both kinds, because transformers 5 writes a `tokenizer.json`
and leaves an older `vocab.json` where it is. Transformers 5 reads the former,
as does version 4 except for its slow `GPT2Tokenizer`; so does this package,
and it warns where the two disagree.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpt2.files.reading import is_there
from gpt2.files.whole import check_whole, read_whole
from gpt2.tokenizer.bpe import (
    BYTE_TO_CHARACTER,
    CHARACTER_TO_BYTE,
    Pair,
    TokenizerError,
    is_forestalled,
    split_text,
    unspell,
)
from gpt2.tokenizer.configuration import (
    ADDED,
    NAMES,
    SETTINGS,
    Added,
    Configuration,
    check_class,
    read_configuration,
)
from gpt2.tokenizer.contents import (
    FILE_NAMES,
    Contents,
    read_one,
    read_two,
    warn_of_others,
)
from gpt2.tokenizer.settings import Finding, Settings

_FOREIGN = {
    "vocab.txt": "a WordPiece vocabulary, as of BERT",
    "tokenizer.model": "a SentencePiece model",
    "spiece.model": "a SentencePiece model",
    "sentencepiece.bpe.model": "a SentencePiece model",
    "tiktoken.model": "a vocabulary with another split pattern",
    "tekken.json": "a vocabulary with another split pattern",
}
"""Vocabularies that cannot be read, and that no other may stand in for."""


@dataclass(frozen=True)
class Vocabulary:
    """The contents of a tokenizer's files."""

    ranks: dict[bytes, int]
    """The id of each ordinary token."""
    special_tokens: dict[str, int]
    """The id of each special token, by its name."""
    settings: Settings
    """How the tokenizer differs from GPT-2's otherwise."""


def find_vocabulary(folder: Path) -> tuple[Path, Path] | None:
    """Find the vocabulary files in a folder.

    Returns:
        The path with the ids and the path with the merges, or None. Only the
        first is sure to exist. It may be a file that cannot be read, of
        another kind of tokenizer.
    """
    for ids, merges in (*FILE_NAMES, *((name, name) for name in _FOREIGN)):
        if is_there(folder / ids):
            return folder / ids, folder / merges
    return None


def vocabulary_files(folder: Path) -> list[Path]:
    """List the files in a folder that `read_vocabulary` reads.

    The model's config is left out, of which it reads only a few fields.
    """
    if find_vocabulary(folder) is None:
        return []
    kinds = [name for names in FILE_NAMES for name in dict.fromkeys(names)]
    names = (*kinds, ADDED, NAMES, SETTINGS)
    return [folder / name for name in names if is_there(folder / name)]


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary in a folder.

    An entry that is neither a byte nor the result of a merge is a special
    token, with any id, if `split_text` splits it, as it splits
    `<|endoftext|>`. If it is a single piece, a merge could have made it, so
    the file has lost a line. The ids of merged tokens must increase in the
    order of the merges.

    Raises:
        TokenizerError: A file is missing or invalid, or a setting cannot be
            followed; the message names the file and the fault.
    """
    return read_whole(folder, lambda: _read(folder), TokenizerError)


def _read(folder: Path) -> Vocabulary:
    """Read the vocabulary in a folder that no other process is saving to."""
    check_whole(folder, TokenizerError)
    found = find_vocabulary(folder)
    if found is None:
        check_class(folder)
        names = ", ".join(" and ".join(dict.fromkeys(n)) for n in FILE_NAMES)
        raise TokenizerError(f"{folder}: expected one of {names}, found none")
    if kind := _FOREIGN.get(found[0].name):
        raise TokenizerError(
            f"{found[0]} is {kind}, which is not byte-level BPE. Encode the "
            f"text with the library that it is for, and pass the ids to "
            f"gpt2.generate"
        )
    configuration = read_configuration(folder)
    if found[0] == found[1]:
        contents = read_one(found[0])
        warn_of_others(contents, folder)
    else:
        check_class(folder)
        contents = read_two(*found, folder, configuration)
    return _assemble(contents, configuration)


def _assemble(contents: Contents, configuration: Configuration) -> Vocabulary:
    """Put the parts of a vocabulary together, and check them."""
    added = _with_named(contents, configuration)
    ids = _without_added(contents, added)
    added_ids = {name: token.token_id for name, token in added.items()}
    known = ids | added_ids
    files = dict.fromkeys(ids, contents.ids_path)
    files |= dict.fromkeys(added, contents.added_path)
    _check_order(known, files)
    ranks = _take_ranks(ids, contents.merges, contents.merges_path)
    special = [name for name, token in added.items() if token.special]
    special += configuration.special
    special_tokens = ids | {name: known[name] for name in special}
    words = {n: i for n, i in added_ids.items() if n not in special_tokens}
    settings = replace(
        contents.settings,
        words=words,
        finding={
            name: token.finding
            for name, token in added.items()
            if token.finding != Finding(normalized=name in words)
        },
    )
    settings = _configured(settings, contents, configuration, special_tokens)
    return Vocabulary(ranks, special_tokens, settings)


def _with_named(
    contents: Contents, configuration: Configuration
) -> dict[str, Added]:
    """Return the added tokens, and the named tokens that have no id yet.

    As in transformers, these get the next ids, in the order of their roles.
    """
    added = dict(contents.added)
    in_use = [token.token_id for token in added.values()]
    next_id = max([-1, *in_use, *contents.ids.values()]) + 1
    for name in configuration.special:
        if name not in contents.ids and name not in added:
            added[name] = Added(next_id, True, Finding())
            next_id += 1
    return added


def _without_added(
    contents: Contents, added: Mapping[str, Added]
) -> dict[str, int]:
    """Return the ids of the vocabulary without those of added tokens.

    An added token that merges make, too, stays: it is found whole where the
    text has it, and made by merges within other pieces.
    """
    ids = dict(contents.ids)
    made = {"".join(merge.split(" ")) for _, merge in contents.merges}
    made |= CHARACTER_TO_BYTE.keys()
    for name, token in added.items():
        if ids.get(name, token.token_id) != token.token_id:
            raise TokenizerError(
                f"{contents.added_path}: {name!r:.80} has id "
                f"{token.token_id}, and id {ids[name]} in the vocabulary"
            )
        if name not in made:
            ids.pop(name, None)
    return ids


def _configured(
    settings: Settings,
    contents: Contents,
    configuration: Configuration,
    special_tokens: Mapping[str, int],
) -> Settings:
    """Add what the small files say of the settings.

    Raises:
        TokenizerError: No token ends a text, or two files disagree.
    """
    eos = configuration.choose("eos", special_tokens)
    if not eos:
        raise TokenizerError(
            f"{contents.ids_path}: no token is known to end a text, neither "
            f"<|endoftext|> nor an eos_token; the special tokens are "
            f"{reprlib.repr(list(special_tokens))}. Write which one does to "
            f'{configuration.path}, such as {{"eos_token": "</s>"}}'
        )
    bos = configuration.choose("bos", special_tokens) or eos
    pad = configuration.roles.get("pad")
    settings = replace(settings, bos=bos, eos=eos, pad=pad)
    flags = configuration.flags
    spaced = flags["add_prefix_space"]
    in_pipeline = contents.ids_path == contents.merges_path
    if spaced is not None and spaced != settings.add_prefix_space:
        if in_pipeline:
            _disagree(contents, configuration, "add_prefix_space")
        settings = replace(settings, add_prefix_space=spaced)
    ends = {"add_bos_token": settings.before, "add_eos_token": settings.after}
    for (key, template), name in zip(ends.items(), (bos, eos), strict=True):
        around = (special_tokens[name],) if flags[key] else ()
        if flags[key] is not None and template != around:
            if template:
                _disagree(contents, configuration, key)
            ends[key] = around
    before, after = ends.values()
    return replace(settings, before=before, after=after)


def _disagree(
    contents: Contents, configuration: Configuration, key: str
) -> None:
    raise TokenizerError(
        f"{configuration.path} sets {key} to "
        f"{str(configuration.flags[key]).lower()}, and {contents.ids_path} "
        f"says otherwise, so that programs differ in which one they follow. "
        f"Make both say what the model was trained with, or remove {key}"
    )


def _check_order(ids: Mapping[str, int], files: Mapping[str, Path]) -> None:
    """Check that the ids are the numbers from 0 on, each once."""
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
    """Move the bytes and the merged tokens out of the ids.

    What is left in `ids` are the special tokens. Bytes may be missing.
    """
    alphabet = BYTE_TO_CHARACTER.items()
    ranks = {bytes([b]): ids.pop(char) for b, char in alphabet if char in ids}
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
            raise TokenizerError(f"{where} joins tokens not made before it")
        rank = ids.pop("".join(parts), None)
        if rank is None:
            raise TokenizerError(
                f"{where} makes a token that has no id or was already made"
            )
        # A rank is looked up by the joined bytes alone. So the ids must be in
        # the order of the merges, and no other pair may make the same token.
        if rank < highest:
            raise TokenizerError(
                f"{where} has id {rank}, but an earlier merge has {highest}"
            )
        if is_forestalled(first, second, ranks, halves):
            raise TokenizerError(f"{where} is forestalled by earlier merges")
        ranks[first + second] = highest = rank
        halves[first + second] = first, second
    for token in ids:
        if _is_one_piece(token):
            raise TokenizerError(
                f"{path}: no merge makes the token {token!r:.80}"
            )
    return ranks


def _is_one_piece(spelled: str) -> bool:
    """Tell whether a token is within one piece, so that merges can make it."""
    if not set(spelled) <= CHARACTER_TO_BYTE.keys():
        return False
    return len(split_text(unspell(spelled).decode(errors="replace"))) == 1
