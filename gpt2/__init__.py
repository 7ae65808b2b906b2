"""GPT-2, from text to text, in a few hundred lines of PyTorch.

    model, tokenizer = gpt2.load("gpt2")
    prompt = "The answer is"
    print(prompt + gpt2.complete(model, tokenizer, prompt, seed=0))

The book builds the modules in this order: `tokenizer`, `embeddings`,
`attention`, `layer_norm` and `feed_forward`, `layer`, `model`, `weights`,
`sampling`, `generation`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2.attention import MultiHeadAttention as MultiHeadAttention
    from gpt2.beams import beam_search as beam_search
    from gpt2.cache import KeyValueCache as KeyValueCache
    from gpt2.completion import complete as complete
    from gpt2.completion import predict as predict
    from gpt2.completion import stream_text as stream_text
    from gpt2.config import GPT2Config as GPT2Config
    from gpt2.feed_forward import FeedForward as FeedForward
    from gpt2.generation import generate as generate
    from gpt2.inference.packed import for_inference as for_inference
    from gpt2.layer import GPT2Layer as GPT2Layer
    from gpt2.model import GPT2 as GPT2
    from gpt2.model import next_token_loss as next_token_loss
    from gpt2.sampling import Sampling as Sampling
    from gpt2.tokenizer.tokenizer import Tokenizer as Tokenizer
    from gpt2.weights.inspecting import inspect as inspect
    from gpt2.weights.loading import load as load
    from gpt2.weights.loading import load_model as load_model
    from gpt2.weights.saving import save as save

    __version__: str

# The module of each public name. It is imported when the name is first used,
# so that code that needs no model does not wait for PyTorch.
_HOMES = {
    "MultiHeadAttention": "attention",
    "beam_search": "beams",
    "KeyValueCache": "cache",
    "complete": "completion",
    "predict": "completion",
    "stream_text": "completion",
    "GPT2Config": "config",
    "FeedForward": "feed_forward",
    "generate": "generation",
    "for_inference": "inference.packed",
    "GPT2Layer": "layer",
    "GPT2": "model",
    "next_token_loss": "model",
    "Sampling": "sampling",
    "Tokenizer": "tokenizer.tokenizer",
    "inspect": "weights.inspecting",
    "load": "weights.loading",
    "load_model": "weights.loading",
    "save": "weights.saving",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'gpt2' has no attribute {name!r}")
    return getattr(import_module(f"gpt2.{_HOMES[name]}"), name)


def _version() -> str:
    """Return the version that is installed; reading it takes a while."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gpt2-from-scratch")
    except PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"


def _notice_another_gpt2() -> None:
    """Warn if PyPI's `gpt2`, another project, lies in this folder, too."""
    other = os.path.join(os.path.dirname(__file__), "client.py")  # noqa: PTH118, PTH120 (pathlib takes a while to import)
    if os.path.exists(other):  # noqa: PTH110
        import warnings

        warnings.warn(
            f"another project named gpt2 has written into this folder "
            f"({other}). Removing one of the two removes files of the other: "
            "run `pip uninstall gpt2 gpt2-from-scratch`, then install "
            "gpt2-from-scratch again",
            stacklevel=2,
        )


_notice_another_gpt2()


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
