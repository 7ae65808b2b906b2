"""The tensors of a GPT-2 checkpoint, and their names in different files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from gpt2.config import PRESETS, GPT2Config
from gpt2.weights.arrangement import arranged_shapes
from gpt2.weights.errors import CheckpointError
from gpt2.weights.foreign import foreign_tensors
from gpt2.weights.naming import find_prefixes, without_prefix
from gpt2.weights.raw import DTYPE_BYTES, WEIGHT_DTYPES


@dataclass(frozen=True)
class TensorInfo:
    """The description of a tensor in a file, without its data."""

    dtype: str
    """Its dtype, by safetensors' name: `F32`, `BF16`."""
    shape: tuple[int, ...]
    file: str
    """The name of the file that holds it."""

    @property
    def n_numbers(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """The size of its data; 0 if the dtype is unknown."""
        return self.n_numbers * DTYPE_BYTES.get(self.dtype, 0)


def parameter_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every parameter, in the model's order.

    A linear map is [in, out]; `c_attn` holds query, key and value side by
    side. The model has the same shapes, but building one takes torch, which
    `inspect` does without; a test compares the two.
    """
    width, inner = config.n_embd, config.inner_size
    layer: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.c_attn.weight": (width, 3 * width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "attn.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (width, inner),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (inner, width),
        "mlp.c_proj.bias": (width,),
    }
    return {
        "wte.weight": (config.n_vocab, width),
        "wpe.weight": (config.n_ctx, width),
        **{
            f"h.{i}.{name}": shape
            for i in range(config.n_layer)
            for name, shape in layer.items()
        },
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }


# Not parameters: the causal mask and the score of masked positions, which
# older versions of transformers saved with the weights.
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")

OUTPUT = "lm_head.weight"
"""The output matrix, which some files repeat; in GPT-2 it is `wte.weight`."""

_OPENAI_LAYER = re.compile(
    r"model/h(0|[1-9][0-9]*)/(ln_[12]/[gb]"
    r"|(?:attn/c_attn|attn/c_proj|mlp/c_fc|mlp/c_proj)/[wb])"
)
_OPENAI_OUTSIDE = {
    "model/wte": "wte.weight",
    "model/wpe": "wpe.weight",
    "model/ln_f/g": "ln_f.weight",
    "model/ln_f/b": "ln_f.bias",
}


def gpt2_name(tf_name: str) -> str | None:
    """Return the model's name for one of OpenAI's variables, or None.

    >>> gpt2_name("model/h0/attn/c_attn/w")
    'h.0.attn.c_attn.weight'
    """
    if match := _OPENAI_LAYER.fullmatch(tf_name):
        *path, kind = match[2].split("/")
        kind = "bias" if kind == "b" else "weight"
        return ".".join(["h", match[1], *path, kind])
    return _OPENAI_OUTSIDE.get(tf_name)


def our_name(name: str) -> str | None:
    """Return the model's name for a tensor that a file calls `name`.

    Hugging Face's `GPT2LMHeadModel` puts `transformer.` before every name,
    `GPT2Model` does not. OpenAI's names are like `model/h0/ln_1/g`.

    Returns:
        The name, or None for a buffer, which the model does not need.
    """
    if name.startswith("model/"):
        return gpt2_name(name) or name
    name = name.removeprefix("transformer.")
    if name == "lm_head.decoder.weight":  # DialoGPT's name for it
        return OUTPUT
    return None if _BUFFER.fullmatch(name) else name


def our_names(names: Iterable[str]) -> dict[str, str | None]:
    """Return the model's name for each of a file's, as `our_name` does.

    A prefix that they all have is taken off. If the file has no token
    embedding, its output matrix is the embedding.
    """
    plain = without_prefix(names)
    ours = {theirs: our_name(name) for theirs, name in plain.items()}
    if "wte.weight" not in ours.values():
        for theirs, name in ours.items():
            if name == OUTPUT:
                ours[theirs] = "wte.weight"
                break
    return ours


def match_names(
    infos: Mapping[str, TensorInfo], config: GPT2Config, file: str
) -> dict[str, str]:
    """Find every parameter of the model among a file's tensors.

    Args:
        infos: The tensors of the file, by the file's own names.
        config: The model's config.
        file: The file's name, for messages.

    Returns:
        The file's name for each of the model's names, in the model's order.
        `lm_head.weight` is added if the file has it.

    Raises:
        CheckpointError: A tensor is missing, unexpected or repeated, or has
            another shape or dtype than the model's.
    """
    found = _found(infos, file)
    if config.n_layer > len(infos):  # perhaps too many to list
        raise CheckpointError(
            f"{file} has {len(infos)} tensors, too few for {config.n_layer} "
            f"layers"
        )
    expected = arranged_shapes(parameter_shapes(config), found, infos)
    _refuse(file, "lacks", [name for name in expected if name not in found])
    known = {*expected, OUTPUT}
    _refuse(
        file,
        "has unexpected",
        [found[name] for name in found if name not in known],
    )
    if OUTPUT in found:
        expected[OUTPUT] = expected["wte.weight"]
    for ours, shape in expected.items():
        _check_tensor(file, found[ours], infos[found[ours]], shape)
    return {ours: found[ours] for ours in expected}


def _found(infos: Iterable[str], file: str) -> dict[str, str]:
    """Return the file's name for each of the model's; refuse another model."""
    if len(prefixes := find_prefixes(infos)) > 1:
        raise CheckpointError(
            f"{file} holds several models, whose names begin with "
            f"{prefixes[0]!r:.80} and {prefixes[1]!r:.80}; save one alone"
        )
    found: dict[str, str] = {}
    for theirs, ours in our_names(infos).items():
        if ours is None:
            continue
        if ours in found:
            raise CheckpointError(
                f"{file}: {found[ours]!r:.80} and {theirs!r:.80} are the same "
                f"tensor"
            )
        found[ours] = theirs
    if (what := foreign_tensors(found)) is not None:
        raise CheckpointError(f"{file} {what}")
    return found


def _check_tensor(
    file: str, name: str, info: TensorInfo, shape: tuple[int, ...]
) -> None:
    """Refuse a tensor that has another shape or dtype than the model's."""
    if info.shape != shape:
        raise CheckpointError(
            f"{file}: tensor {name!r:.80} has shape {list(info.shape)}, and "
            f"the model needs {list(shape)}"
        )
    if info.dtype not in WEIGHT_DTYPES:
        raise CheckpointError(
            f"{file}: tensor {name!r:.80} has dtype {info.dtype}; weights may "
            f"be {', '.join(WEIGHT_DTYPES)}"
        )


def _refuse(file: str, what: str, names: list[str]) -> None:
    """Raise an error that shows the first few names, if there are any."""
    if names:
        shown = ", ".join(f"{name!r:.80}" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        plural = "s" if len(names) > 1 else ""
        raise CheckpointError(f"{file} {what} tensor{plural} {shown}{more}")


def guess_config(infos: Mapping[str, TensorInfo], file: str) -> GPT2Config:
    """Infer the config of weights that have none.

    The shapes give every size but the number of heads, which is known only if
    the others are those of a published model.

    Args:
        infos: The tensors of the file, by the file's own names.
        file: The file's name, for messages.

    Raises:
        CheckpointError: They are not a published model's.
    """
    found = {ours: theirs for theirs, ours in our_names(infos).items() if ours}
    shapes = {ours: infos[theirs].shape for ours, theirs in found.items()}
    for preset in PRESETS:
        config = GPT2Config.from_name(preset)
        expected = arranged_shapes(parameter_shapes(config), found, infos)
        if all(shapes.get(name) == expected[name] for name in expected):
            return config
    raise CheckpointError(
        f"{file} has neither a config.json nor an hparams.json beside it, and "
        f"its tensors are not those of {', '.join(PRESETS)}; the number of "
        f"heads cannot be inferred from the weights"
    )
