"""The sizes of a GPT-2, and the few other choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

ACTIVATIONS = ("gelu_new", "gelu", "relu")

# The fields that a config file must have.
_SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")

# The names of each field in config files. Hugging Face's comes first: where a
# file has both, transformers reads that one.
_NAMES_IN_FILES = {
    "n_vocab": ("vocab_size", "n_vocab"),
    "n_ctx": ("n_positions", "n_ctx"),
    "n_embd": ("n_embd",),
    "n_head": ("n_head",),
    "n_layer": ("n_layer",),
    "n_inner": ("n_inner",),
    "activation": ("activation_function",),
    "layer_norm_epsilon": ("layer_norm_epsilon",),
    "embd_dropout": ("embd_pdrop",),
    "attn_dropout": ("attn_pdrop",),
    "resid_dropout": ("resid_pdrop",),
}

# Other names for the tanh form of GELU in Hugging Face configs.
_TANH_GELU_ALIASES = ("gelu_pytorch_tanh", "gelu_fast")

# Options of a Hugging Face config that change the arithmetic, each with the
# only value that the original GPT-2 has.
_GPT2_ONLY = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class GPT2Config:
    """Describe one GPT-2.

    The first five fields have the names of OpenAI's `hparams.json`; in the
    rest, all released models agree. The defaults are those of GPT-2 124M, with
    a dropout of 0.1; `gpt2 train` sets the dropouts to 0 unless `--dropout` is
    given.

    Raises:
        ValueError: A field has a value that no GPT-2 can have, or `n_embd` is
            not a multiple of `n_head`.
    """

    n_vocab: int = 50257
    """Size of the vocabulary, V: in GPT-2 256 bytes, 50,000 merges and
    `<|endoftext|>`."""
    n_ctx: int = 1024
    """Number of positions: the longest sequence, in tokens."""
    n_embd: int = 768
    """Width of the residual stream, C."""
    n_head: int = 12
    """Attention heads per layer, H, each of width `n_embd / n_head`."""
    n_layer: int = 12
    """Number of layers."""
    n_inner: int | None = None
    """Width of the feed-forward network's hidden layer; None means
    `4 * n_embd`."""
    activation: str = "gelu_new"
    """`gelu_new` (the tanh form, GPT-2's), `gelu` (exact) or `relu`."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance before the square root in a layer norm."""
    embd_dropout: float = 0.1
    """Dropout on the sum of the embeddings: a probability."""
    attn_dropout: float = 0.1
    """Dropout on the attention weights: a probability."""
    resid_dropout: float = 0.1
    """Dropout on each addition to the residual stream: a probability."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in (*_SIZES, "n_inner"):
            value = getattr(self, name)
            if name == "n_inner" and value is None:
                continue
            if not _is_size(value):
                raise ValueError(
                    f"{name} must be a positive whole number, got "
                    f"{_shown(value)}"
                )
        if self.n_embd % self.n_head:
            raise ValueError(
                "n_embd must be a multiple of n_head, so that all heads have "
                f"the same width; got n_embd={self.n_embd} and "
                f"n_head={self.n_head}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}; got "
                f"{_shown(self.activation)}"
            )
        for name in ("embd_dropout", "attn_dropout", "resid_dropout"):
            value = getattr(self, name)
            if not _is_finite(value) or not 0 <= value < 1:
                raise ValueError(
                    f"{name} must be a probability, at least 0 and below 1; "
                    f"got {_shown(value)}"
                )
        epsilon = self.layer_norm_epsilon
        if not _is_finite(epsilon) or epsilon <= 0:
            raise ValueError(
                "layer_norm_epsilon must be a positive, finite number, got "
                f"{_shown(epsilon)}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head, D."""
        return self.n_embd // self.n_head

    @property
    def inner_size(self) -> int:
        """Width of the feed-forward network's hidden layer."""
        return self.n_inner or 4 * self.n_embd

    @property
    def residual_std(self) -> float:
        """Initial standard deviation of the maps into the residual stream.

        Each of the `2 * n_layer` sub-layers adds its output to the residual
        stream; dividing by the square root of their number keeps the variance
        of the sum from growing with depth. Radford et al. (2019), section 2.3.
        """
        return 0.02 / math.sqrt(2 * self.n_layer)

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Return the config of one of OpenAI's four released sizes.

        Args:
            name: `gpt2`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`.

        Raises:
            ValueError: There is no preset of this name.
        """
        if name not in PRESETS:
            raise ValueError(
                f"there is no preset {name!r}; the presets are "
                f"{', '.join(PRESETS)}"
            )
        n_embd, n_head, n_layer = PRESETS[name]
        return cls(n_embd=n_embd, n_head=n_head, n_layer=n_layer)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read a parsed `config.json`, or OpenAI's `hparams.json`.

        Args:
            fields: The file's top-level object. Keys that do not describe the
                architecture (token ids, task settings, version numbers) are
                ignored.

        Raises:
            ValueError: `fields` is no mapping, a size is missing or invalid,
                or the file describes another architecture.
        """
        if not isinstance(fields, Mapping):
            raise ValueError(
                "a config must be an object with named fields, got "
                f"{_shown(fields)}"
            )
        model_type = fields.get("model_type", "gpt2")
        if model_type != "gpt2":
            raise ValueError(
                f"the config describes a {_shown(model_type)} model, and this "
                "is only GPT-2"
            )
        for option, expected in _GPT2_ONLY.items():
            if fields.get(option, expected) != expected:
                raise ValueError(
                    f"the config sets {option}={_shown(fields[option])}, but "
                    f"GPT-2 has {expected}"
                )
        found: dict[str, Any] = {}
        for field, names in _NAMES_IN_FILES.items():
            values = [fields.get(name) for name in names]
            given = [value for value in values if value is not None]
            if given:
                found[field] = given[0]
            elif field in _SIZES:
                raise ValueError(f"the config has no {' or '.join(names)}")
        if found.get("activation") in _TANH_GELU_ALIASES:
            found["activation"] = "gelu_new"
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a Hugging Face `config.json` for this model."""
        own = asdict(self)
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": own["n_vocab"],
            "n_positions": own["n_ctx"],
            "n_ctx": own["n_ctx"],
            "n_embd": own["n_embd"],
            "n_head": own["n_head"],
            "n_layer": own["n_layer"],
            "n_inner": own["n_inner"],
            "activation_function": own["activation"],
            "layer_norm_epsilon": own["layer_norm_epsilon"],
            "embd_pdrop": own["embd_dropout"],
            "attn_pdrop": own["attn_dropout"],
            "resid_pdrop": own["resid_dropout"],
            "tie_word_embeddings": True,
        }


# name: (n_embd, n_head, n_layer); table 2 of Radford et al. (2019), and the
# released hparams.json. The first release miscounted the parameters of the two
# smaller models and called them 117M and 345M.
PRESETS = {
    "gpt2": (768, 12, 12),  # 124,439,808 parameters
    "gpt2-medium": (1024, 16, 24),  # 354,823,168
    "gpt2-large": (1280, 20, 36),  # 774,030,080
    "gpt2-xl": (1600, 25, 48),  # 1,557,611,200
}


def _is_size(value: Any) -> bool:
    """Tell whether a value is a positive integer that PyTorch can count to."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and 1 <= value < 2**63


def _is_finite(value: Any) -> bool:
    """Tell whether a value is a finite number, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _shown(value: Any) -> str:
    """Return the start of a value's repr, for a message."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python refuses to print so many digits
        return "a number of thousands of digits"
