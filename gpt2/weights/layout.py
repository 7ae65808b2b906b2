"""Which tensors a GPT-2 checkpoint has, and under which names they come."""

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
from gpt2.weights.tensorflow import gpt2_name


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of one of its tensors, without the data."""

    dtype: str
    """Its dtype, as safetensors writes it: `F32`, `BF16`."""
    shape: tuple[int, ...]
    file: str
    """The name of the file that holds it."""

    @property
    def n_numbers(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """How much room its data takes."""
        return self.n_numbers * DTYPE_BYTES.get(self.dtype, 0)


def parameter_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in a checkpoint.

    Every linear map is [in, out], and `c_attn` holds three side by side.
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


# Not parameters: the causal mask, and the score that masked places get, which
# older versions of transformers saved along with the weights.
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")

OUTPUT = "lm_head.weight"
"""The output matrix, where a file repeats it; in GPT-2 it is `wte.weight`."""


def our_name(name: str) -> str | None:
    """Return the model's name for a tensor that a file calls `name`.

    Hugging Face's class with the output puts `transformer.` before every name,
    the one without does not; both kinds of file are about. OpenAI's own names
    are `model/h0/ln_1/g` and such.

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

    A prefix that all have in common is taken off, and where the file has the
    output matrix alone it is the token embedding, which is the same.
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
        infos: What the file holds, by the file's own names.
        config: The model's.
        file: What to call the file in a message.

    Returns:
        The file's name for each of the model's names, in the model's order.
        `lm_head.weight` is added where the file has it.

    Raises:
        CheckpointError: A tensor is missing, unexpected, there twice, or has
            another shape or dtype than the model needs.
    """
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
    if config.n_layer > len(infos):  # too many to be listed, perhaps
        raise CheckpointError(
            f"{file} has {len(infos)} tensors, too few for {config.n_layer} "
            f"layers"
        )
    expected = arranged_shapes(parameter_shapes(config), found, infos)
    _refuse(file, "lacks", [name for name in expected if name not in found])
    _refuse(
        file,
        "has, which is not a tensor of this GPT-2,",
        [found[name] for name in found if name not in {*expected, OUTPUT}],
    )
    if OUTPUT in found:
        expected[OUTPUT] = expected["wte.weight"]
    for ours, shape in expected.items():
        info = infos[found[ours]]
        if info.shape != shape:
            raise CheckpointError(
                f"{file}: tensor {found[ours]!r:.80} has shape "
                f"{list(info.shape)}, and the model needs {list(shape)}"
            )
        if info.dtype not in WEIGHT_DTYPES:
            raise CheckpointError(
                f"{file}: tensor {found[ours]!r:.80} has dtype {info.dtype}; "
                f"weights may be {', '.join(WEIGHT_DTYPES)}"
            )
    return {ours: found[ours] for ours in expected}


def _refuse(file: str, what: str, names: list[str]) -> None:
    """Raise an error about `names`, if there are any; show the first few."""
    if names:
        shown = ", ".join(f"{name!r:.80}" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        plural = "s" if len(names) > 1 else ""
        raise CheckpointError(f"{file} {what} tensor{plural} {shown}{more}")


def guess_config(infos: Mapping[str, TensorInfo], file: str) -> GPT2Config:
    """Return the config of weights that came without one.

    Every size but the number of heads can be read off the shapes; that one is
    known where the other four are those of a published model.

    Raises:
        CheckpointError: They are not.
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
        f"heads cannot be read off the weights"
    )
