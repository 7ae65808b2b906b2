"""Name what is not a GPT-2 that this package reads, and the step that helps.

Each function returns the rest of a message that begins with a file's name, or
None if it knows of nothing to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MAGICS = {
    b"GGUF": "a GGUF file of llama.cpp",
    b"\x89HDF": "an HDF5 file of TensorFlow or Keras",
    (20240327).to_bytes(4, "little"): "the debugging state of llm.c",
    (20240328).to_bytes(4, "little"): "the tokenizer of llm.c",
    (20240803).to_bytes(4, "little"): "a Llama 3 of llm.c",
}
_SUFFIXES = {
    ".h5": "a file of TensorFlow weights",
    ".msgpack": "a file of Flax weights",
    ".ot": "a file of rust-bert weights",
    ".gguf": "a GGUF file of llama.cpp",
    ".onnx": "an ONNX graph",
}
_TRANSFORMERS = {
    ".h5": "from_tf=True",
    ".msgpack": "from_flax=True",
}

# The beginnings of a head's names, the class that has it, and whether the
# language model is complete without it.
_HEADS = {
    "score.": ("GPT2ForSequenceClassification", False),
    "classifier.": ("GPT2ForTokenClassification", False),
    "qa_outputs.": ("GPT2ForQuestionAnswering", False),
    "multiple_choice_head.": ("GPT2DoubleHeadsModel", True),
    "v_head.": ("AutoModelForCausalLMWithValueHead", True),
}
_ADAPTER = re.compile(r"\.lora_|\.base_layer\.|\.modules_to_save\.|^prompt_")
_SOME_NAMES = ("wte.weight", "wpe.weight", "h.0.ln_1.weight", "ln_f.weight")

ADAPTER = "adapter_config.json"
"""The file of settings that PEFT writes beside an adapter."""

_MERGE = (
    "merge it into its base model with peft (`merge_and_unload()`), and save "
    "the result with `save_pretrained`"
)


def foreign_tensors(names: Iterable[str]) -> str | None:
    """Say which other model has tensors of these names.

    Args:
        names: The tensors, by the model's names where it has such.
    """
    names = list(names)
    for name in names:
        for beginning, (kind, complete) in _HEADS.items():
            if not name.startswith(beginning):
                continue
            if complete:
                return (
                    f"has a second head, {name!r:.80}, as {kind} does; to get "
                    f"the language model alone, load it with transformers' "
                    f"GPT2LMHeadModel, and save it again"
                )
            return (
                f"is a {kind} and no language model: its head {name!r:.80} "
                f"scores classes instead of tokens; use transformers for it"
            )
        if _ADAPTER.search(name):
            return f"is an adapter, with {name!r:.80}: {_MERGE}"
        if ".crossattention." in name:
            return f"is a decoder with cross-attention, {name!r:.80}"
    if not names:
        return "holds no tensors"
    if not set(_SOME_NAMES) & set(names):
        shown = ", ".join(f"{name!r:.80}" for name in names[:3])
        return (
            f"has none of a GPT-2's tensors: it has {shown}, and expected "
            f"were {', '.join(map(repr, _SOME_NAMES))}; convert it with the "
            f"program that wrote it"
        )
    return None


def foreign_file(path: Path, start: bytes) -> str | None:
    """Say what another program's file is.

    Args:
        path: The file.
        start: Its first bytes, 4 at least if it has them.
    """
    kind = _MAGICS.get(start[:4]) or _SUFFIXES.get(path.suffix)
    if kind is not None:
        return f"is {kind}, and cannot be read here; {_step(path)}"
    if ".data-" in path.name or path.suffix == ".meta":
        prefix = re.sub(r"\.(data-\d+-of-\d+|meta)$", "", str(path))
        if Path(prefix + ".index").is_file():
            return f"is one file of a checkpoint: name the whole, {prefix}"
    return None


def _step(path: Path) -> str:
    option = _TRANSFORMERS.get(path.suffix)
    if option is None:
        return "convert it to safetensors with the program that wrote it"
    return (
        f"with transformers 4, load the folder with "
        f"GPT2LMHeadModel.from_pretrained(..., {option}), and save it with "
        f"save_pretrained"
    )


def adapter_among(names: Iterable[str]) -> str | None:
    """Say that files are an adapter's, if they are."""
    return f"holds an adapter of PEFT: {_MERGE}" if ADAPTER in names else None


def foreign_among(names: Iterable[str]) -> str | None:
    """Say which of some files has weights in a format that is not read."""
    for name in sorted(names):
        if Path(name).suffix in _SUFFIXES:
            said = foreign_file(Path(name), b"")
            return f"holds no weights but {name:.80}, which {said}"
    return None


def foreign_folder(folder: Path) -> str | None:
    """Say what a folder has in place of weights that could be read."""
    names = sorted(path.name for path in folder.iterdir())
    if (what := adapter_among(names)) is not None:
        return what
    steps = [name for name in names if re.fullmatch(r"checkpoint-\d+", name)]
    if steps:
        last = max(steps, key=lambda name: int(name.partition("-")[2]))
        others = f" (and {len(steps) - 1} earlier)" if len(steps) > 1 else ""
        return (
            f"holds no weights itself, but checkpoints of a Trainer{others}: "
            f"name one of them, {folder / last}"
        )
    indexes = [n.removesuffix(".index") for n in names if n.endswith(".index")]
    if indexes:
        return (
            f"has checkpoints of TensorFlow, but no file `checkpoint` that "
            f"names one of them: name it yourself, {folder / indexes[-1]}"
        )
    if (what := foreign_among(names)) is not None:
        return what
    loose = [n for n in names if n.endswith((".safetensors", ".pt", ".bin"))]
    if loose:
        shown = ", ".join(loose[:3]) + (", ..." if len(loose) > 3 else "")
        return (
            f"holds no weights under a usual name, but {shown}: name the "
            f"file itself, {folder / loose[0]}"
        )
    return None
