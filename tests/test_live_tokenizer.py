"""The page's reader of tokenizers: our ids, or a refusal by name.

The folders are those of `test_tokenizer_settings`, written by tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_live
from playwright.sync_api import Error, Page
from test_tokenizer import OWN

from gpt2 import Tokenizer

cases = pytest.importorskip("test_tokenizer_settings")

pytestmark = pytest.mark.xdist_group("live")

browser, blank, load = test_live.browser, test_live.blank, test_live.load

Loader = Callable[..., Page]
ENCODE = """async texts => {
    await readTokenizer();
    return texts.map(text => [
        tokenizer.encode(text), tokenizer.encode(text, true),
        tokenizer.encodePrompt(text, true),
        tokenizer.decode(tokenizer.encode(text, true))]);
}"""


def assert_same(page: Page, ours: Tokenizer, texts: list[str]) -> None:
    found = page.evaluate(ENCODE, texts)
    for text, seen in zip(texts, found, strict=True):
        special = ours.encode(text, allow_special=True)
        prompt = ours.encode_prompt(text, allow_special=True)
        wanted = [ours.encode(text), special, prompt, ours.decode(special)]
        assert seen == wanted, text
    ends = page.evaluate("() => [tokenizer.start, tokenizer.end]")
    assert ends == [ours.start_of_text, ours.end_of_text]


@pytest.mark.parametrize("names", cases.FOLDERS, ids=" | ".join)
def test_ids_are_ours(names: Any, load: Loader, tmp_path: Path) -> None:
    split, norm, post, added = names
    theirs = cases.trained(
        cases.SPLITS[split],
        cases.NORMALIZERS[norm],
        cases.POSTS[post],
        cases.ADDED[added],
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    seed = cases.FOLDERS.index(names)
    page = load(tmp_path, "")
    assert_same(page, Tokenizer.load(tmp_path), cases.texts(seed))


@pytest.mark.parametrize("name", cases.REFUSED)
def test_a_step_is_refused(name: str, load: Loader, tmp_path: Path) -> None:
    options, message = cases.REFUSED[name]
    cases.trained(**options).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(Error, match=message.split(".*")[0]):
        load(tmp_path, "").evaluate("readTokenizer()")


@pytest.mark.parametrize("name", cases.CHANGED)
def test_a_change_is_refused(name: str, load: Loader, tmp_path: Path) -> None:
    change, _ = cases.CHANGED[name]
    path = tmp_path / "tokenizer.json"
    cases.trained().save(str(path))
    whole = json.loads(path.read_text("utf-8"))
    load(tmp_path, "").evaluate("readTokenizer()")
    change(whole)
    path.write_text(json.dumps(whole))
    with pytest.raises(Error, match=r"tokenizer\.json: "):
        load(tmp_path, "").evaluate("readTokenizer()")


SMALL = {
    "bos": {"add_bos_token": True},
    "eos": {"add_eos_token": True, "eos_token": "</s>"},
    "space": {"add_prefix_space": True},
    "pad": {"pad_token": "[PAD]", "additional_special_tokens": ["<x>"]},
    "decoder": {
        "added_tokens_decoder": {
            "400": {"content": "kite", "special": False},
            "401": {"content": "<x>", "special": True, "rstrip": True},
        }
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_small_files_count(name: str, load: Loader, tmp_path: Path) -> None:
    OWN.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(SMALL[name]))
    texts = [*cases.texts(1), "a [PAD] <x>  b</s>", "1 kite, 2 kites"]
    assert_same(load(tmp_path, ""), Tokenizer.load(tmp_path), texts)


DAMAGED = {
    "not two tokens": ("merges.txt", lambda text: text + "a b c\n"),
    "not made before": ("merges.txt", lambda text: text + "Ġtheq x\n"),
    "lost line": ("merges.txt", lambda text: text[: text.rindex("\n", 0, -1)]),
    "no JSON": ("vocab.json", lambda text: text[:-2]),
    "no object": ("vocab.json", lambda text: "[1]"),
    "gap": ("vocab.json", lambda text: text.replace(": 399", ": 400")),
    "odd id": ("vocab.json", lambda text: text.replace(": 399", ': "399"')),
    "class": (
        "tokenizer_config.json",
        lambda text: '{"tokenizer_class": "BertTokenizer"}',
    ),
    "flag": ("tokenizer_config.json", lambda text: '{"add_bos_token": 1}'),
    "list": (
        "tokenizer_config.json",
        lambda text: '{"additional_special_tokens": 1}',
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(
    name: str,
    load: Loader,
    tmp_path: Path,
) -> None:
    OWN.save(tmp_path)
    file, damage = DAMAGED[name]
    path = tmp_path / file
    path.write_text(damage(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=r"."):
        Tokenizer.load(tmp_path)
    with pytest.raises(Error, match=r"merges\.txt|vocab\.json|_config\.json"):
        load(tmp_path, "").evaluate("readTokenizer()")
