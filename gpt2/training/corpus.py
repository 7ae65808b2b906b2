"""A run's corpus: stories or text files, as tokens.

The tokens are written once to the run's folder, with the tokenizer and a
recipe: a note of what they were made from.
"""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from gpt2.files.checksums import check_sums, write_sums
from gpt2.files.reading import read_json_object
from gpt2.files.writing import mend, replacing
from gpt2.progress import Advance, task, track
from gpt2.texts import find_texts, read_blocks
from gpt2.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

    from gpt2.data import Tokens

# Stories to train on and held-out stories are drawn from different seeds.
_HELD_OUT_STORIES = 5_000
_TRAINING_SEED, _HELD_OUT_SEED = 1, 2
_TOKENIZER_CHARACTERS = 10_000_000

# The files of tokens carry checksums of their own.
_SUMMED = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    "recipe.json",
)


TokenizerName = Literal["own", "gpt2", "bytes"]


@dataclass(frozen=True)
class Source:
    """What to train on, and which tokenizer to use."""

    files: tuple[Path, ...] | None = None
    """Text files in UTF-8, and folders of them; None: stories. Of a folder,
    each file that `gpt2.texts.find_texts` finds is a document of its own."""
    n_stories: int = 400_000
    """How many stories to generate, if there are no files."""
    held_out: float = 0.05
    """Share of the files to hold out, from 0 up to but not 1."""
    tokenizer: TokenizerName = "own"
    """`own`: trained on the texts, or that of `model`; `gpt2`: OpenAI's;
    `bytes`: no merges."""
    n_vocab: int = 1440
    """Vocabulary size of a tokenizer that is trained."""
    model: str | None = None
    """A checkpoint to fine-tune, whose tokenizer is used."""


@dataclass(frozen=True)
class Data:
    """What a run trains on and is measured on."""

    tokens: Tokens
    held_out: Tokens | None
    tokenizer: Tokenizer


def prepare(source: Source, folder: Path, *, resume: bool = False) -> Data:
    """Make the tokenizer and the files of tokens, unless they are there.

    If their recipe has changed, they are made again.

    Args:
        source: What to make them from.
        folder: The run's folder; they go into its subfolder `data`.
        resume: The run resumes, so the recipe must not have changed.

    Raises:
        ResumeError: The recipe has changed in a run that resumes, or the files
            are damaged.
        ValueError: A folder `data` is there that no run has made, the texts
            changed while they were read, a file is empty or not UTF-8, or a
            folder of texts has none.
        OSError: A text cannot be read, or a file cannot be written.
    """
    from gpt2.training.checkpoint import ResumeError

    place = folder / "data"
    if source.files is not None:
        files = find_texts(source.files, leave_out=folder)
        source = replace(source, files=tuple(files))
    recipe = _recipe(source)
    note = place / "recipe.json"
    mend(place)  # a run that was killed may have left it half moved
    made_from = read_json_object(note, ResumeError) if note.exists() else {}
    if made_from != recipe:
        if made_from and resume:
            raise ResumeError(
                f"{folder} holds a run on other data: "
                f"{_differences(made_from, recipe)}"
            )
        if place.exists() and not made_from:
            raise ValueError(
                f"{place} exists, and no run has made it; choose another "
                f"folder to train in"
            )
        with replacing(place, leaves=lambda name: True) as stage:
            _make_data(source, stage)
            if _recipe(source) != recipe:
                raise ValueError("the texts changed while they were read")
            (stage / note.name).write_text(json.dumps(recipe), "utf-8")
            write_sums(stage, [n for n in _SUMMED if (stage / n).exists()])
    check_sums(place, _SUMMED, ResumeError)
    return _read_data(source, place)


def _read_data(source: Source, place: Path) -> Data:
    """Read what `_make_data` has made."""
    from gpt2.data import read_tokens

    tokenizer = Tokenizer.load(place)
    tokens = read_tokens(place / "train.bin")
    if source.files is None:
        return Data(tokens, read_tokens(place / "held-out.bin"), tokenizer)
    if source.held_out == 0:
        return Data(tokens, None, tokenizer)
    return Data(*tokens.split(source.held_out), tokenizer)


def _recipe(source: Source) -> dict[str, Any]:
    """Return everything that determines the tokenizer and the tokens."""
    from gpt2.data import checksum

    recipe: dict[str, Any] = {
        "model": source.model,
        "tokenizer": source.tokenizer,
    }
    if source.model is None and source.tokenizer == "own":
        recipe["n_vocab"] = source.n_vocab
    if source.files is None:
        examples = "\n".join(_stories(_TRAINING_SEED, 20))
        recipe["stories"] = source.n_stories
        recipe["grammar"] = f"{crc32(examples.encode()):08x}"
    files = source.files or ()
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty")
    return recipe | {
        "data": [f"{path.name} ({checksum(path):08x})" for path in files]
    }


def _differences(was: dict[str, Any], now: dict[str, Any]) -> str:
    """Say how two recipes differ; of the files, name only those that do."""
    from gpt2.training.checkpoint import differences

    before, after = was.get("data"), now["data"]
    if isinstance(before, list):
        gone = [file for file in before if file not in after]
        new = [file for file in after if file not in before]
        if gone or new:  # else only their order has changed
            was, now = was | {"data": gone}, now | {"data": new}
    return differences(was, now)


def _make_data(source: Source, place: Path) -> None:
    """Make the tokenizer, and encode the texts with it."""
    from gpt2.data import write_tokens

    tokenizer = _tokenizer(source)
    # Rows of stories begin with an end of text, so prompts should, too.
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
    """Return the entropy of the held-out stories, in nats per token.

    It follows from the probabilities of the language, and no model can have a
    lower loss except by chance.

    Args:
        n_rows: How many stories the held-out loss is measured on.
        tokenizer: Which encodes them.
        context: Tokens per row.

    Returns:
        -log p of the stories over their number of tokens; or None if one does
        not fit the context: then the loss is measured on beginnings, which
        are less predictable than the rest.
    """
    from gpt2 import stories

    n_texts = min(n_rows, _HELD_OUT_STORIES)
    texts = list(_stories(_HELD_OUT_SEED, n_texts))
    lengths = [len(_ended(tokenizer, text)) for text in texts]
    if max(lengths) > context:
        return None
    parsed = track(texts, "Computing the entropy", n_texts, "stories")
    return -sum(map(stories.log_probability, parsed)) / sum(lengths)


def _tokenizer(source: Source) -> Tokenizer:
    if source.model is not None:
        from gpt2.weights import loading
        from gpt2.weights.formats import open_weights
        from gpt2.weights.locating import locate

        place = locate(source.model)
        weights = open_weights(place.weights)
        config = loading.read_config(place, weights.infos, weights.fields)
        return loading.read_tokenizer(place.folder, config)
    if source.tokenizer == "gpt2":
        return Tokenizer.gpt2()
    if source.tokenizer == "bytes":
        return Tokenizer.bytes_only()
    texts = _texts(source) if source.files else _stories(_TRAINING_SEED, 20000)
    some = _up_to(texts, _TOKENIZER_CHARACTERS)
    n_merges = source.n_vocab - 257
    with task("Learning the vocabulary", n_merges, "merges") as advance:
        return Tokenizer.train(some, source.n_vocab, lambda n: advance(1))


def _stories(seed: int, count: int) -> Iterator[str]:
    from gpt2 import stories  # which `generate`, for instance, never needs

    rng = random.Random(seed)
    return (stories.sample(rng) for _ in range(count))


def _up_to(texts: Iterator[str], most: int) -> Iterator[str]:
    """Yield texts until they have `most` characters."""
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return


def _texts(source: Source) -> Iterator[str]:
    """Read the files in blocks, so that none has to fit into memory."""
    for path in source.files or ():
        yield from read_blocks(path)


def _chunks(
    source: Source, tokenizer: Tokenizer
) -> Iterator[Sequence[int] | np.ndarray]:
    """Encode the training texts, with an end of text after each document."""
    what, count = "Encoding the texts", source.n_stories
    if source.files is None:
        texts = _stories(_TRAINING_SEED, count)
        for text in track(texts, what, count, "stories"):
            yield _ended(tokenizer, text)
        return
    n_bytes = sum(path.stat().st_size for path in source.files)
    with task(what, n_bytes, "B") as advance:
        for path in source.files:
            blocks = _counted(read_blocks(path), advance)
            yield from _encoded(blocks, tokenizer)
            yield [tokenizer.end_of_text]


def _counted(blocks: Iterable[str], advance: Advance) -> Iterator[str]:
    """Yield blocks of text, and report the bytes of each."""
    for block in blocks:
        advance(len(block.encode()))
        yield block


def _encoded(
    blocks: Iterable[str], tokenizer: Tokenizer
) -> Iterator[np.ndarray]:
    """Encode blocks of text on all processor cores, in order.

    While tiktoken encodes, other threads can run. Only a few blocks per core
    are in memory at a time.
    """
    n_cores = os.cpu_count() or 1
    waiting: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(n_cores) as pool:
        for block in blocks:
            waiting.append(pool.submit(tokenizer.encode_to_numpy, block, True))
            if len(waiting) > 2 * n_cores:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _ended(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.end_of_text]
