"""Write a tokenizer's files, so that transformers gives the same ids."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2.tokenizer.bpe import END_OF_TEXT, Pair, spell
from gpt2.tokenizer.pipeline import describe
from gpt2.tokenizer.settings import Settings


def file_contents(
    ranks: Mapping[bytes, int],
    merges: Sequence[Pair],
    special_tokens: Mapping[str, int],
    settings: Settings,
) -> dict[str, str]:
    """Return the name and the content of each file.

    `vocab.json` and `merges.txt` go with a `tokenizer_config.json` that can
    say all of what transformers gives a `GPT2Tokenizer`. Other settings have a
    place only in a `tokenizer.json`. Then the two are left out, since whoever
    read them alone would get other ids.
    """
    spelled = {spell(token): rank for token, rank in ranks.items()}
    added = {**special_tokens, **settings.words}
    ids = _by_id(spelled | added)
    lines = [f"{spell(a)} {spell(b)}" for a, b in merges]
    config = _config(special_tokens, settings)
    if _needs_pipeline(special_tokens, settings):
        whole = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": token_id, **_added(name, settings)}
                for name, token_id in _by_id(added).items()
            ],
            **describe(settings, {i: name for name, i in ids.items()}),
            "model": _model(ids, lines),
        }
        contents = {"tokenizer.json": json.dumps(whole) + "\n"}
    else:
        text = "".join(f"{line}\n" for line in lines)
        contents = {
            "vocab.json": json.dumps(ids),
            "merges.txt": "#version: 0.2\n" + text,
        }
    config_text = json.dumps(config, indent=2) + "\n"
    return contents | {"tokenizer_config.json": config_text}


def _by_id(ids: Mapping[str, int]) -> dict[str, int]:
    return {name: ids[name] for name in sorted(ids, key=ids.__getitem__)}


def _needs_pipeline(
    special_tokens: Mapping[str, int], settings: Settings
) -> bool:
    """Tell whether only a `tokenizer.json` can say the settings."""
    return bool(
        settings.normalizers
        or settings.digits
        or settings.before not in ((), (special_tokens[settings.bos],))
        or settings.after not in ((), (special_tokens[settings.eos],))
    )


def _config(
    special_tokens: Mapping[str, int], settings: Settings
) -> dict[str, Any]:
    """Return the fields of `tokenizer_config.json`."""
    named = {settings.bos, settings.eos}
    pipeline = _needs_pipeline(special_tokens, settings)
    kind = "PreTrainedTokenizerFast" if pipeline else "GPT2Tokenizer"
    config: dict[str, Any] = {"tokenizer_class": kind}
    if named != {END_OF_TEXT} or settings.pad is not None or pipeline:
        # transformers takes <|endoftext|> for each that has no name here, and
        # adds it if it is missing.
        unknown = END_OF_TEXT if END_OF_TEXT in special_tokens else None
        config |= {
            "bos_token": settings.bos,
            "eos_token": settings.eos,
            "unk_token": unknown or settings.eos,
        }
    if settings.pad is not None:
        config["pad_token"] = settings.pad
        named.add(settings.pad)
    others = [name for name in special_tokens if name not in named]
    config["extra_special_tokens"] = others
    if pipeline:
        return config
    if settings.words or settings.finding:
        config["added_tokens_decoder"] = {
            str(token_id): _added(name, settings)
            for name, token_id in _by_id(
                {**special_tokens, **settings.words}
            ).items()
        }
    if settings.add_prefix_space:
        config["add_prefix_space"] = True
    if settings.before:
        config["add_bos_token"] = True
    if settings.after:
        config["add_eos_token"] = True
    return config


def _added(name: str, settings: Settings) -> dict[str, object]:
    """Return an added token as transformers and tokenizers write it."""
    how = settings.found(name)
    return {
        "content": name,
        "single_word": how.single_word,
        "lstrip": how.lstrip,
        "rstrip": how.rstrip,
        "normalized": how.normalized,
        "special": name not in settings.words,
    }


def _model(ids: Mapping[str, int], lines: Sequence[str]) -> dict[str, object]:
    """Return the model in a `tokenizer.json`."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": ids,
        "merges": [line.split(" ") for line in lines],
    }
