"""The checkpoints and the tokenizers that the readers are given.

All are small and valid. transformers writes the models, and tokenizers writes
`tokenizer.json`. The weights are random with a fixed seed, and large enough to
make a setting that is ignored visible in the logits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import gpt2

END = "<|endoftext|>"
STORY = Path(gpt2.__file__).parent / "pretrained" / "story"
N_TOKENS = 50257


@dataclass(frozen=True)
class Model:
    """A checkpoint: GPT-2's config but for the fields given."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    own_tokenizer: bool = False
    ours: bool = False
    """Written by `gpt2.save`, not by transformers."""
    finish: Callable[[Path], None] | None = None
    """Changes the folder after it has been written."""


def _drop_prefix(folder: Path) -> None:
    """Name the tensors as OpenAI's checkpoint on the Hub does."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    plain = {n.removeprefix("transformer."): t for n, t in tensors.items()}
    save_file(plain, path, {"format": "pt"})


def _pickle(folder: Path) -> None:
    """Replace the safetensors file with PyTorch's."""
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def _drop_n_ctx(folder: Path) -> None:
    """Leave `n_positions` alone to give the number of positions."""
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    fields.pop("n_ctx", None)
    path.write_text(json.dumps(fields, indent=2))


MODELS = (
    Model("GPT-2's own settings"),
    Model("the same, written by `gpt2.save`", ours=True),
    Model("tensor names without `transformer.`", finish=_drop_prefix),
    Model("`pytorch_model.bin`", finish=_pickle),
    Model("no `n_ctx`, as transformers leaves it", finish=_drop_n_ctx),
    Model("`layer_norm_epsilon` 0.1", {"layer_norm_epsilon": 0.1}),
    Model("activation `relu`", {"activation_function": "relu"}),
    Model("activation `gelu`, the exact one", {"activation_function": "gelu"}),
    Model(
        "activation `gelu_pytorch_tanh`",
        {"activation_function": "gelu_pytorch_tanh"},
    ),
    Model("`n_inner` 48, not 128", {"n_inner": 48}),
    Model("vocabulary padded to 50,304 rows", {"vocab_size": 50304}),
    Model("head not tied", {"tie_word_embeddings": False}),
    Model("a tokenizer of its own", own_tokenizer=True),
    Model(
        "`scale_attn_by_inverse_layer_idx`",
        {"scale_attn_by_inverse_layer_idx": True},
    ),
    Model("`scale_attn_weights` false", {"scale_attn_weights": False}),
    Model("stored in float16", dtype=torch.float16),
    Model("stored in bfloat16", dtype=torch.bfloat16),
)


def write_model(setting: Model, folder: Path) -> None:
    """Write a checkpoint of 3 layers, width 32, with its tokenizer."""
    tokenizer = (
        gpt2.Tokenizer.load(STORY)
        if setting.own_tokenizer
        else gpt2.Tokenizer.gpt2()
    )
    end = tokenizer.end_of_text
    config = GPT2Config(
        **{
            "vocab_size": tokenizer.n_vocab,
            "n_positions": 32,
            "n_ctx": 32,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 2,
            "bos_token_id": end,
            "eos_token_id": end,
            **setting.fields,
        }
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = ".ln_" in name and name.endswith("weight")
            parameter.copy_(0.3 * torch.randn_like(parameter) + is_scale)
    model.to(setting.dtype).save_pretrained(folder)
    tokenizer.write(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    if setting.ours:
        model, _ = gpt2.load(folder)
        for path in folder.iterdir():
            path.unlink()
        gpt2.save(model, tokenizer, folder)
    if setting.finish:
        setting.finish(folder)


def probe(n_tokens: int) -> list[int]:
    """Return the ids that a model with a vocabulary of this size is given."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(n_tokens, (24,), generator=generator).tolist()


@dataclass(frozen=True)
class Words:
    """A tokenizer: GPT-2's, changed by a function."""

    name: str
    change: Callable[[Tokenizer], None] = lambda tokenizer: None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to `tokenizer_config.json`."""
    without: tuple[str, ...] = ()
    """Files removed at the end."""
    vocabulary: str = "gpt2"
    """Or `story`, the one that ships with this package."""
    ends: bool = True
    """Whether there is a token `<|endoftext|>`."""


def _byte_level(**options: Any) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})


def _prefix_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = _byte_level(add_prefix_space=True)


def _digits(tokenizer: Tokenizer) -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, _byte_level()])


def _template(tokenizer: Tokenizer) -> None:
    end = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[end]
    )


def _nfc(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()


def _lower(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def _words(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["GPT-2", "naïve"])


def _special(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens(["<|user|>"])


TOKENIZERS = (
    Words("GPT-2's own"),
    Words("prefix space, in `tokenizer.json`", _prefix_space),
    Words(
        "prefix space, in `tokenizer_config.json` alone",
        _prefix_space,
        {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"},
        without=("tokenizer.json",),
    ),
    Words("digits one by one", _digits),
    Words("a template that puts `<|endoftext|>` in front", _template),
    Words("NFC", _nfc),
    Words("lower case", _lower),
    Words(
        "lower case, in a folder of the class `GPT2Tokenizer`",
        _lower,
        {"tokenizer_class": "GPT2Tokenizer"},
    ),
    Words("added words", _words),
    Words("an added special token", _special),
    Words("no `<|endoftext|>`", ends=False),
    Words("a vocabulary of its own", vocabulary="story"),
)

TEXTS = {
    "words": "The quick brown fox",
    "contractions": "I'm sure it's theirs; they'd say WE'LL, don't",
    "words in single quotes": "the words 'same' and 'true'",
    "numbers": "In 1984, 3.14159 and 1,000,000",
    "runs of spaces": "a  b   c    d",
    "a space at the end": "wait ",
    "spaces alone": "     ",
    "line ends and tabs": "a\n\n b\r\n\tc\n",
    "no-break spaces": "10\u00a0000 \u00a0km\u202f!",
    "wide and rare spaces": "a\u3000b\u2003c\u2028d\u0085e",
    "control characters": "a\x00b\x1fc\x7f",
    "letter and accent apart": "Zoe\u0308 is nai\u0308ve",
    "Chinese": "深度学习很有趣。",
    "a Han letter of Unicode 17": "\U000323da\u9019",
    "Hindi with numbers": "नमस्ते, १६ अगस्त",
    "numbers that are no digits": "½ Ⅷ ² ①",
    "emoji joined": "👩\u200d👩\u200d👧 👍🏽",
    "a special token's name": f"one{END}two",
    "an added word's name": "Is GPT-2 naïve, <|user|>?",
    "no text": "",
}


def write_tokenizer(setting: Words, folder: Path) -> None:
    """Write a tokenizer in both forms, and a config of GPT-2."""
    ours = (
        gpt2.Tokenizer.load(STORY)
        if setting.vocabulary == "story"
        else gpt2.Tokenizer.gpt2()
    )
    ours.write(folder)
    end = ours.end_of_text
    if not setting.ends:
        path = folder / "vocab.json"
        ids = json.loads(path.read_text("utf-8"))
        del ids[END]
        path.write_text(json.dumps(ids), "utf-8")
    tokenizer = Tokenizer.from_file(_plain_json(folder, setting.ends))
    setting.change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if setting.ends:
        facts |= {"bos_token": END, "eos_token": END, "unk_token": END}
    facts |= setting.fields
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=2))
    size = tokenizer.get_vocab_size()
    ids = {"bos_token_id": end, "eos_token_id": end} if setting.ends else {}
    named = {"architectures": ["GPT2LMHeadModel"], "n_ctx": 1024}
    GPT2Config(vocab_size=size, **named, **ids).save_pretrained(folder)
    for name in setting.without:
        (folder / name).unlink()


def _plain_json(folder: Path, ends: bool) -> str:
    """Write GPT-2's `tokenizer.json` from `vocab.json` and `merges.txt`."""
    from tokenizers import AddedToken, decoders, models

    bpe = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    if ends:
        tokenizer.add_special_tokens([AddedToken(END, normalized=False)])
    path = str(folder / "tokenizer.json")
    tokenizer.save(path)
    return path
