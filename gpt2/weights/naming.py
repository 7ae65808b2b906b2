"""Find the prefix that a wrapper has put before the names of a GPT-2."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What torch.compile, FSDP and activation checkpointing insert, at any depth.
_INSERTED = re.compile(
    r"(?<![^.])(?:(?:_orig_mod|_fsdp_wrapped_module"
    r"|_checkpoint_wrapped_module)\.)+"
)
# Every GPT-2 has one tensor of each name. `save_model` of safetensors drops
# the first one, if the output matrix is the same tensor.
_ANCHORS = ("wte.weight", "wpe.weight")


def find_prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes under which the names have a GPT-2.

    Returns:
        One for each model, in the order of the names; `""` for one without a
        prefix. The `transformer.` of Hugging Face's `GPT2LMHeadModel` is not
        part of it.
    """
    plain = [_INSERTED.sub("", name) for name in names]
    for anchor in _ANCHORS:
        prefixes = [
            name.removesuffix(anchor).removesuffix("transformer.")
            for name in plain
            if name == anchor or name.endswith("." + anchor)
        ]
        if prefixes:
            return list(dict.fromkeys(prefixes))
    return []


def without_prefix(names: Iterable[str]) -> dict[str, str]:
    """Return each name without the wrappers' parts.

    A name that does not begin with the prefix is left as it is, and so are
    all of them where there are several models.
    """
    names = list(names)
    prefixes = find_prefixes(names)
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    return {
        name: _INSERTED.sub("", name).removeprefix(prefix) for name in names
    }
