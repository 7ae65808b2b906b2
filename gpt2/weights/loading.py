"""From the name of a checkpoint to a model that is ready to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.config import GPT2Config
from gpt2.files.reading import SETTINGS_BYTES, is_there, read_json_object
from gpt2.tokenizer.configuration import check_class
from gpt2.tokenizer.files import find_vocabulary
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.arrangement import common_dtype, parameters
from gpt2.weights.errors import CheckpointError
from gpt2.weights.formats import Weights, open_weights
from gpt2.weights.layout import (
    OUTPUT,
    TensorInfo,
    guess_config,
    match_names,
    parameter_shapes,
)
from gpt2.weights.locating import (
    Place,
    config_file,
    locate,
    read_consistently,
)
from gpt2.weights.unresized import fitted

if TYPE_CHECKING:  # `inspect` imports this module, and needs no torch
    import torch

    from gpt2.model import GPT2

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which a model can be loaded."""
PACKED_ONLY = ("int8", "int4")
"""The formats that only packed weights have."""


def load(
    source: str | Path,
    dtype: str | torch.dtype | None = "float32",
    device: str | torch.device = "cpu",
) -> tuple[GPT2, Tokenizer]:
    """Load a GPT-2 and its tokenizer, ready to run.

    Args:
        source: A preset (`story`, the small model that ships with the
            package; or `gpt2`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`,
            which are fetched), a folder, a file of weights, or a Hugging Face
            id such as `distilbert/distilgpt2`. They are tried in this order:
            write `./gpt2` for a folder with the name of a preset.
        dtype: `float32`, `bfloat16` or `float16`; None for the file's own, or
            float32 if its tensors have several.
        device: The device to load the model to.

    Returns:
        The model, in eval mode, and the tokenizer.

    Raises:
        CheckpointError: There is no such checkpoint, or it is not a GPT-2;
            the message names the file and the tensor, what it has and what
            was expected.
        TokenizerError: The tokenizer's files are damaged, or are missing and
            not available elsewhere.
        ValueError: The dtype is none of these.
    """
    name = _dtype_name(dtype)

    def read() -> tuple[GPT2, Tokenizer]:
        place = locate(source)
        model = _fill(place, name, device)
        return model, read_tokenizer(place.folder, model.config)

    return read_consistently(source, read)


def load_model(
    source: str | Path,
    dtype: str | torch.dtype | None = "float32",
    device: str | torch.device = "cpu",
) -> GPT2:
    """Load a GPT-2 without its tokenizer.

    Args:
        source: As for `load`.
        dtype: As for `load`.
        device: As for `load`.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: As for `load`.
        ValueError: As for `load`.
    """
    name = _dtype_name(dtype)
    return read_consistently(
        source, lambda: _fill(locate(source), name, device)
    )


def read_config(
    place: Place,
    infos: Mapping[str, TensorInfo],
    inner: Mapping[str, Any] | None = None,
) -> GPT2Config:
    """Read the config beside the weights or in their file, or infer it.

    It can be inferred for a published size only. If there are two configs, the
    one beside the file is taken, and their sizes must agree.

    Args:
        place: The checkpoint.
        infos: The tensors of the file, by the file's own names.
        inner: The config in the file itself, if it has one.

    Raises:
        CheckpointError: The config is damaged, differs from the preset's or
            from the one in the file, or is missing and cannot be inferred.
    """
    path, file = config_file(place.folder), str(place.weights)
    own = None if inner is None else parse_config(inner, None, file)
    if not is_there(path):
        return guess_config(infos, file) if own is None else own
    fields = read_json_object(path, CheckpointError, SETTINGS_BYTES)
    config = parse_config(fields, place.preset, str(path))
    for size in _SIZES if own is not None else ():
        if (here := getattr(config, size)) != (there := getattr(own, size)):
            raise CheckpointError(
                f"{path} has {size}={here}, and the config in {file} has "
                f"{size}={there}"
            )
    return config


_SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")


def parse_config(
    fields: Mapping[str, Any], preset: str | None, file: str
) -> GPT2Config:
    """Parse a config's fields, and compare its sizes with the preset's.

    Args:
        fields: As for `GPT2Config.from_dict`.
        preset: The preset that the config belongs to, if any.
        file: The file's name, for messages.

    Raises:
        CheckpointError: It is not a GPT-2's, or not the preset's.
    """
    try:
        config = GPT2Config.from_dict(fields)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if preset is None:
        return config
    published = GPT2Config.from_name(preset)
    for size in _SIZES:
        if (came := getattr(config, size)) != getattr(published, size):
            raise CheckpointError(
                f"{file} has {size}={came}, and {preset} was published with "
                f"{getattr(published, size)}"
            )
    return config


def read_tokenizer(folder: Path, config: GPT2Config) -> Tokenizer:
    """Read the tokenizer beside the weights; by default take GPT-2's own.

    Raises:
        TokenizerError: The files are damaged; or there are none, and GPT-2's
            vocabulary does not fit the model or is not available.
        CheckpointError: The vocabulary has more ids than the model. Special
            tokens, such as a `[PAD]` that was added without resizing the
            model, may be beyond it; the tokenizer refuses to encode them.
    """
    if find_vocabulary(folder) is None and config.n_vocab in _GPT2_ROWS:
        check_class(folder)
        return Tokenizer.gpt2()
    tokenizer = Tokenizer.load(folder)
    return fitted(tokenizer, config.n_vocab, f"the tokenizer in {folder}")


# The tokens of GPT-2, and the same padded as nanoGPT does.
_GPT2_ROWS = (50257, 50304)


def _fill(place: Place, dtype: str | None, device: str | torch.device) -> GPT2:
    """Build the model without allocating it, and give it the file's tensors.

    Args:
        place: The checkpoint.
        dtype: One of `DTYPES`, or None for the file's own.
        device: The device to load it to.
    """
    import torch

    from gpt2.model import GPT2

    weights = open_weights(place.weights)
    config = read_config(place, weights.infos, weights.fields)
    names = match_names(weights.infos, config, str(place.weights))
    weights.verify()
    if OUTPUT in names:
        _check_tied(weights, names.pop(OUTPUT), names["wte.weight"])
    kind = getattr(torch, dtype or common_dtype(names, weights.infos))
    tensors = {}
    shapes = parameter_shapes(config)
    _check_finite(weights, names.values())
    for ours, tensor in parameters(weights, names, shapes):
        tensors[ours] = tensor.to(device=device, dtype=kind)
    with torch.device("meta"):
        model = GPT2(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _dtype_name(dtype: str | torch.dtype | None) -> str | None:
    """Return the name of a dtype; refuse one that no model is loaded in."""
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name in PACKED_ONLY:
        raise ValueError(
            f"a model cannot be loaded as {name}; load it as float32, and "
            f'call gpt2.for_inference(model, "{name}")'
        )
    if name not in DTYPES:
        raise ValueError(
            f"dtype must be one of {', '.join(DTYPES)}; got {dtype}"
        )
    return name


def _check_finite(weights: Weights, names: Iterable[str]) -> None:
    """Refuse NaNs and infinities, with only a piece of the file in memory.

    They make a sum NaN or infinite, as overflow does, which is told apart.
    """
    for name in names:
        for piece in weights.read(name).view(-1).split(_PIECE):
            if not piece.sum().isfinite() and not piece.isfinite().all():
                raise CheckpointError(
                    f"{weights.path}: tensor {name!r:.80} holds numbers that "
                    f"are not finite; the model's training has diverged, or "
                    f"the file is damaged"
                )
            weights.release(name)


def _check_tied(weights: Weights, output: str, embedding: str) -> None:
    """Refuse a file whose output matrix is not the token embedding."""
    first, last = (
        weights.read(name).view(-1).split(_PIECE)
        for name in (embedding, output)
    )
    for one, other in zip(first, last, strict=True):
        if not (one == other).all():  # in the wider of their dtypes
            raise CheckpointError(
                f"{weights.path}: tensor {output!r:.80} differs from "
                f"{embedding!r:.80}; in GPT-2 the output is the token "
                f"embedding"
            )
        weights.release(embedding)
        weights.release(output)


_PIECE = 1 << 22
"""How many numbers of a file are in memory to be checked."""
