"""What other programs make of the checkpoints that `save` writes.

Found by comparing logits: transformers 5 agrees with this package on every
config that can be saved.
"""

from __future__ import annotations

from gpt2.config import GPT2Config

_TOKENS = 50257  # of GPT-2's own vocabulary


def misread(config: GPT2Config) -> list[str]:
    """Say which known readers get a saved model wrong without an error."""
    notes = []
    if config.layer_norm_epsilon != 1e-5:
        notes.append(
            f"CTranslate2 (4.8) and keras-hub (0.32) ignore "
            f"layer_norm_epsilon={config.layer_norm_epsilon} and compute with "
            f"1e-05"
        )
    if config.activation != "gelu_new":
        notes.append(
            f"llama.cpp and keras-hub (0.32) ignore the activation "
            f"{config.activation!r} and compute with 'gelu_new'"
        )
    return notes


def unreadable(config: GPT2Config, n_tokens: int | None) -> list[str]:
    """Say which known readers refuse a saved model.

    Args:
        config: The model's.
        n_tokens: The number of tokens in its tokenizer, if it has one.
    """
    notes = []
    if config.inner_size != 4 * config.n_embd:
        notes.append(
            f"llama.cpp's converter takes n_inner={config.inner_size} for "
            f"4 * n_embd; gpt2 convert can write NAME.gguf instead"
        )
    if n_tokens is not None and n_tokens < config.n_vocab:
        notes.append(
            f"CTranslate2 (4.8) refuses a vocabulary of {n_tokens} tokens in "
            f"{config.n_vocab} rows"
        )
    if n_tokens is not None and n_tokens != _TOKENS:
        notes.append(
            "llama.cpp's converter refuses a tokenizer that is not GPT-2's "
            "own; gpt2 convert can write NAME.gguf instead"
        )
    return notes
