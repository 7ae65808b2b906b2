"""What a run learns from: stories or text files, as tokens.

The tokens are written once into the run's folder, with the tokenizer and a
note of what they were made from.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO
from zlib import crc32

from gpt2 import stories
from gpt2.files.checksums import check_sums, write_sums
from gpt2.files.reading import read_json_object
from gpt2.files.writing import mend, replacing
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.data import Tokens

# The first stories of a stream are learned from, this many are held out, and
# the streams begin at different seeds.
_HELD_OUT_STORIES = 5_000
_TRAINING_SEED, _HELD_OUT_SEED = 1, 2
_TOKENIZER_CHARACTERS = 10_000_000
_BLOCK_CHARACTERS = 1 << 20

# The files of tokens have checksums of their own.
_SUMMED = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    "recipe.json",
)


TokenizerName = Literal["own", "gpt2", "bytes"]


@dataclass(frozen=True)
class Source:
    """What is learned from, and how it is cut into tokens."""

    files: tuple[Path, ...] | None = None
    """Text files, in UTF-8; None: stories."""
    n_stories: int = 400_000
    """How many stories to write, where there are no files."""
    held_out: float = 0.05
    """How much of the files to keep for measuring, from 0 up to but not 1."""
    tokenizer: TokenizerName = "own"
    """`own`: learned from the texts, or that of `model`; `gpt2`: OpenAI's;
    `bytes`: no merges."""
    n_vocab: int = 1440
    """Entries of a tokenizer that is learned."""
    model: str | None = None
    """A checkpoint that a run goes on from, whose tokenizer it needs."""


@dataclass(frozen=True)
class Data:
    """What a run is trained and measured on."""

    tokens: Tokens
    held_out: Tokens | None
    tokenizer: Tokenizer


def prepare(
    source: Source,
    folder: Path,
    *,
    resume: bool = False,
    preparing: Callable[[], object] = lambda: None,
) -> Data:
    """Make the tokenizer and the files of tokens, or find them made.

    They are kept with a note of what they were made from, and made anew if
    that has changed.

    Args:
        source: What they are made from.
        folder: The run's; they go into its folder `data`.
        resume: The run is to go on, so nothing may have changed.
        preparing: Called before they are made, which takes a while.

    Raises:
        ResumeError: They belong to a run that is to go on, and have changed;
            or they are damaged.
        ValueError: There is a folder `data` that no run has made, or the texts
            changed while they were read.
    """
    from gpt2.data import read_tokens
    from gpt2.training.checkpoint import ResumeError, differences

    place = folder / "data"
    recipe = _recipe(source)
    note = place / "recipe.json"
    mend(place)  # which a run may have left that was killed
    made_from = read_json_object(note, ResumeError) if note.exists() else {}
    if made_from != recipe:
        if made_from and resume:
            raise ResumeError(
                f"{folder} holds a run on other data: "
                f"{differences(made_from, recipe)}"
            )
        if place.exists() and not made_from:
            raise ValueError(
                f"{place} is there, and no run has made it; choose another "
                f"folder to train in"
            )
        preparing()
        with replacing(place, leaves=lambda name: True) as stage:
            _make_data(source, stage)
            if _recipe(source) != recipe:
                raise ValueError("the data changed while they were read")
            (stage / note.name).write_text(json.dumps(recipe), "utf-8")
            write_sums(stage, [n for n in _SUMMED if (stage / n).exists()])
    check_sums(place, _SUMMED, ResumeError)
    tokenizer = Tokenizer.load(place)
    tokens = read_tokens(place / "train.bin")
    if source.files is None:
        return Data(tokens, read_tokens(place / "held-out.bin"), tokenizer)
    if source.held_out == 0:
        return Data(tokens, None, tokenizer)
    return Data(*tokens.split(source.held_out), tokenizer)


def _recipe(source: Source) -> dict[str, Any]:
    """Return what decides the tokenizer and the tokens."""
    from gpt2.data import checksum

    recipe: dict[str, Any] = {
        "model": source.model,
        "tokenizer": source.tokenizer,
    }
    if source.model is None and source.tokenizer == "own":
        recipe["n_vocab"] = source.n_vocab
    if source.files is None:
        told = "\n".join(_stories(_TRAINING_SEED, 20))
        recipe["stories"] = source.n_stories
        recipe["grammar"] = f"{crc32(told.encode()):08x}"
    files = source.files or ()
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty")
    return recipe | {
        "data": [f"{path.name} ({checksum(path):08x})" for path in files]
    }


def _make_data(source: Source, place: Path) -> None:
    """Make the tokenizer, and the files of tokens with it."""
    from gpt2.data import write_tokens

    tokenizer = _tokenizer(source)
    # Where every row begins with a story, so should a prompt.
    tokenizer.add_bos_token = not source.files
    tokenizer.write(place)
    held_out = (
        _ended(tokenizer, text)
        for text in _stories(_HELD_OUT_SEED, _HELD_OUT_STORIES)
    )
    corpora = {"train.bin": _chunks(source, tokenizer)}
    if source.files is None:
        corpora["held-out.bin"] = held_out
    for name, chunks in corpora.items():
        write_tokens(
            place / name, chunks, tokenizer.n_vocab, tokenizer.end_of_text
        )


def entropy(n_rows: int, tokenizer: Tokenizer, context: int) -> float | None:
    """Return how surprising the stories are that the loss is measured on.

    In nats per token, by the stories' own odds: no model can do better but by
    luck. None if one is too long for the context, since then the loss is
    measured on beginnings, which are more surprising than the rest.
    """
    texts = list(_stories(_HELD_OUT_SEED, min(n_rows, _HELD_OUT_STORIES)))
    lengths = [len(_ended(tokenizer, text)) for text in texts]
    if max(lengths) > context:
        return None
    return -sum(map(stories.log_probability, texts)) / sum(lengths)


def _tokenizer(source: Source) -> Tokenizer:
    if source.model is not None:
        from gpt2.weights import loading
        from gpt2.weights.formats import open_weights

        place = loading.locate(source.model)
        infos = open_weights(place.weights).infos
        config = loading.read_config(place, infos)
        return loading.read_tokenizer(place.folder, config)
    if source.tokenizer == "gpt2":
        return Tokenizer.gpt2()
    if source.tokenizer == "bytes":
        return Tokenizer.bytes_only()
    texts = _texts(source) if source.files else _stories(_TRAINING_SEED, 20000)
    return Tokenizer.train(
        _up_to(texts, _TOKENIZER_CHARACTERS), source.n_vocab
    )


def _stories(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    return (stories.sample(rng) for _ in range(count))


def _up_to(texts: Iterator[str], most: int) -> Iterator[str]:
    """Pass texts on until they have `most` characters."""
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return


def _texts(source: Source) -> Iterator[str]:
    """Read the files block by block, so that none has to fit into memory."""
    for path in source.files or ():
        yield from _blocks(path)


# Up to the last place where white space follows a character that shows: from
# the one to the other, no token crosses.
_UP_TO_SEAM = re.compile(r".*\S(?=[ \n])", re.DOTALL)


def _blocks(path: Path) -> Iterator[str]:
    """Read a file in blocks, of which each can be encoded by itself.

    The tokens are those of the whole, unless a block has no place to cut it,
    being one word or nothing but white space: then a token may be cut.
    """
    rest = ""
    longest = len(END_OF_TEXT)
    with path.open(encoding="utf-8-sig") as file:
        while block := _read(file):
            rest += block
            found = _UP_TO_SEAM.match(rest)
            cut = max(found.end() if found else 0, rest.rfind(END_OF_TEXT))
            if cut <= 0 and len(rest) > 2 * longest:
                cut = len(rest) - longest  # never through an end of text
            if cut > 0:
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


def _read(file: TextIO) -> str:
    try:
        return file.read(_BLOCK_CHARACTERS)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8: {error}") from error


def _chunks(source: Source, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Encode the training texts, with an end of text behind each document."""
    if source.files is None:
        for text in _stories(_TRAINING_SEED, source.n_stories):
            yield _ended(tokenizer, text)
        return
    for path in source.files:
        for block in _blocks(path):
            yield tokenizer.encode(block, allow_special=True)
        yield [tokenizer.end_of_text]


def _ended(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.end_of_text]
