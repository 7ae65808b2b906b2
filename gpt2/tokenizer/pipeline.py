"""The pipeline in a `tokenizer.json`: read what is close to GPT-2's.

Hugging Face's tokenizers library writes each step of its pipeline with a type
and options. A step that cannot be followed exactly is an error, because the
ids would be others than the model was trained with.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from gpt2.tokenizer.bpe import SPLIT_PATTERN, TokenizerError
from gpt2.tokenizer.settings import Finding, Form, Settings

_SAME_PATTERNS = (
    SPLIT_PATTERN,
    SPLIT_PATTERN.replace("'s|'t|'re|'ve|'m|'ll|'d", "'(?:[sdmt]|ll|ve|re)"),
)
_OFF = (None, False, "", 0)
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def refuse(path: Path, what: str, found: object, read: str) -> NoReturn:
    """Refuse a setting by its name.

    Args:
        path: The file.
        what: The setting.
        found: Its value.
        read: What this package reads.
    """
    shown = json.dumps(found, ensure_ascii=False)
    if len(shown) > 120:
        shown = f"{shown[:120]}..."
    raise TokenizerError(
        f"{path}: {what} {shown} would give other ids than GPT-2's; of these "
        f"settings, {read} can be read. Encode the text with the library that "
        f"wrote the file, and pass the ids to gpt2.generate"
    )


def read_settings(whole: Mapping[str, Any], path: Path) -> Settings:
    """Read the settings in a `tokenizer.json`, all but the tokens' names.

    Raises:
        TokenizerError: A step of the pipeline is none that can be followed.
    """
    _check_model(whole["model"], path)
    decoder = whole.get("decoder")
    if decoder is not None and _type(decoder) != "ByteLevel":
        refuse(path, "the decoder", decoder, "ByteLevel")
    settings = Settings(normalizers=tuple(_forms(whole, path)))
    settings = _with_split(settings, whole.get("pre_tokenizer"), path)
    for step in _steps(whole.get("post_processor"), "processors"):
        settings = _with_template(settings, step, path)
    return settings


def read_finding(token: Mapping[str, Any], place: str) -> Finding:
    """Read how an added token is found.

    Raises:
        TokenizerError: A flag is neither true nor false.
    """
    special = token.get("special", True)
    flags = {"normalized": not special} | {
        name: token[name] for name in _FLAGS if name in token
    }
    for name, flag in [*flags.items(), ("special", special)]:
        if type(flag) is not bool:
            raise TokenizerError(
                f"{place}: expected true or false for {name!r}, got "
                f"{flag!r:.80}"
            )
    return Finding(**flags)


def _type(step: Any) -> Any:
    """Return the type of a step, or None if it is no object."""
    return step.get("type") if isinstance(step, dict) else None


def _steps(step: Any, key: str) -> Iterator[Any]:
    """Yield the steps of a sequence; or the step itself; or nothing."""
    if _type(step) == "Sequence" and isinstance(step.get(key), list):
        for each in step[key]:
            yield from _steps(each, key)
    elif step is not None:
        yield step


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    """Refuse options of the model that change the ids.

    Every byte has a token, or is refused, so an `unk_token` is never used. And
    every token is what merges make of its bytes, so `ignore_merges`, which
    takes whole tokens before merging, changes nothing.
    """
    for name in (
        *("dropout", "continuing_subword_prefix", "end_of_word_suffix"),
        "byte_fallback",
    ):
        if model.get(name) not in _OFF:
            refuse(path, f"the model's {name}", model[name], "null")


def _forms(whole: Mapping[str, Any], path: Path) -> Iterator[Form]:
    """Yield the Unicode normalization forms."""
    for step in _steps(whole.get("normalizer"), "normalizers"):
        if _type(step) not in get_args(Form):
            read = ", ".join(get_args(Form))
            refuse(path, "the normalizer", step, f"{read} and null")
        yield step["type"]


def _with_split(settings: Settings, step: Any, path: Path) -> Settings:
    """Add how the text is split before merging.

    Either `ByteLevel` splits like GPT-2, perhaps after `Digits`; or `Split`
    does, with GPT-2's pattern, and `ByteLevel` only spells the bytes.
    """
    read = "ByteLevel with use_regex, alone or after Digits,"
    steps = list(_steps(step, "pretokenizers"))
    if not steps or _type(steps[-1]) != "ByteLevel":
        refuse(path, "the pre_tokenizer", step, read)
    *others, last = steps
    spaced = last.get("add_prefix_space", True)
    split_by_regex = last.get("use_regex", True)
    if {type(spaced), type(split_by_regex)} != {bool}:
        refuse(path, "the pre_tokenizer", last, read)
    if len(others) == 1 and not spaced and not split_by_regex:
        split_by_regex = _is_gpt2s(others.pop())
    if not split_by_regex:
        refuse(path, "the pre_tokenizer", step, read)
    settings = replace(settings, add_prefix_space=spaced)
    if not others:
        return settings
    if [_type(step) for step in others] != ["Digits"]:
        refuse(path, "the pre_tokenizer", step, read)
    alone = others[0].get("individual_digits", False)
    if type(alone) is not bool:
        refuse(path, "the pre_tokenizer", step, read)
    return replace(settings, digits=r"\p{N}" if alone else r"\p{N}+")


def _is_gpt2s(step: Any) -> bool:
    """Tell whether a `Split` splits as GPT-2 does."""
    if _type(step) != "Split" or step.get("invert"):
        return False
    pattern = step.get("pattern")
    return (
        isinstance(pattern, dict)
        and pattern.get("Regex") in _SAME_PATTERNS
        and step.get("behavior") == "Isolated"
    )


def _with_template(settings: Settings, step: Any, path: Path) -> Settings:
    """Add what a post-processor puts before and after a text.

    `ByteLevel` only changes the offsets of tokens, which nobody reads here.
    """
    read = "ByteLevel and templates of tokens around one text"
    try:
        match step["type"]:
            case "ByteLevel":
                return settings
            case "TemplateProcessing":
                before, after = _around(step)
            case "RobertaProcessing" | "BertProcessing":
                before, after = [step["cls"][1]], [step["sep"][1]]
            case _:
                raise KeyError(step["type"])
        if not all(type(number) is int for number in before + after):
            raise TypeError("an id is no number")
    except (KeyError, IndexError, TypeError, ValueError):
        refuse(path, "the post_processor", step, read)
    return replace(
        settings,
        before=(*before, *settings.before),
        after=(*settings.after, *after),
    )


def _around(template: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the ids before and after the text in a template.

    Raises:
        ValueError: There is not one text; also KeyError and TypeError.
    """
    parts: list[list[int]] = [[]]
    for item in template["single"]:
        if "Sequence" in item:
            parts.append([])
        else:
            name = item["SpecialToken"]["id"]
            parts[-1] += template["special_tokens"][name]["ids"]
    before, after = parts
    return before, after


def describe(
    settings: Settings, names: Mapping[int, str]
) -> dict[str, object]:
    """Return the steps of a `tokenizer.json` that have these settings.

    Args:
        settings: The settings.
        names: The name of each token before and after the text.
    """
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": settings.add_prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }
    digits = {
        "type": "Digits",
        "individual_digits": settings.digits == r"\p{N}",
    }
    split = [digits, byte_level] if settings.digits else [byte_level]
    around = [*settings.before, *settings.after]
    template = {
        "type": "TemplateProcessing",
        "single": [
            *(_special(names[i], 0) for i in settings.before),
            {"Sequence": {"id": "A", "type_id": 0}},
            *(_special(names[i], 0) for i in settings.after),
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            names[i]: {"id": names[i], "ids": [i], "tokens": [names[i]]}
            for i in around
        },
    }
    forms = [{"type": form} for form in settings.normalizers]
    return {
        "normalizer": {"type": "Sequence", "normalizers": forms}
        if forms
        else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
        "post_processor": template if around else byte_level,
        "decoder": byte_level,
    }


def _special(name: str, type_id: int) -> dict[str, object]:
    return {"SpecialToken": {"id": name, "type_id": type_id}}
