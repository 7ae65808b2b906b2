"""The checker of stories in JavaScript, in a real browser, against `gpt2`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import live_scripts
import pytest
import test_site
from playwright.sync_api import Page
from test_live import STORY

import gpt2
from gpt2 import stories
from gpt2.stories.opening import PLOTS
from gpt2.stories.words import NAMES

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser

Random = random.Random


@pytest.fixture
def checker(browser: Any) -> Iterator[Page]:
    """A page that has run the scripts of the engine."""
    page = browser.new_page()
    page.add_script_tag(content="globalThis.GPT2 = {};")
    page.add_script_tag(content=live_scripts.engine_script())
    page.evaluate("GPT2.engine()")
    yield page
    page.close()


def compare(page: Page, texts: list[str]) -> list[stories.Verdict]:
    """Return the verdicts, which must be those of the page, too."""
    found = page.evaluate("texts => texts.map(GPT2.checkStory)", texts)
    verdicts = [stories.check(text) for text in texts]
    for text, verdict, seen in zip(texts, verdicts, found, strict=True):
        if verdict:
            assert seen is None, text
        else:
            wanted = asdict(verdict)
            assert seen == wanted | {"expected": list(verdict.expected)}, text
    return verdicts


def told(n: int, seed: int) -> list[str]:
    rng = Random(seed)
    return [stories.sample(rng, "all") for _ in range(n)]


def test_stories_are_stories(checker: Page) -> None:
    texts = told(3000, seed=1)
    assert all(compare(checker, texts))
    forks = [fork for text in texts for fork in stories.read(text).forks]
    plots = {fork.texts[fork.taken] for fork in forks if fork.kind == "plot"}
    assert set(PLOTS) < plots


def exchange(parts: list[str], rng: Random) -> list[str]:
    """Two parts that stand side by side change places."""
    i = rng.randrange(max(1, len(parts) - 1))
    return [*parts[:i], *parts[i : i + 2][::-1], *parts[i + 2 :]]


def wrong_name(text: str, rng: Random) -> str:
    words = text.split(" ")
    names = [person.name for person in NAMES]
    at = [i for i, word in enumerate(words) if word.strip('.,?":') in names]
    i = rng.choice(at)
    words[i] = words[i].replace(words[i].strip('.,?":'), rng.choice(names))
    return " ".join(words)


TOKENIZER = gpt2.Tokenizer.load(STORY)


def wrong_token(text: str, rng: Random) -> str:
    ids = TOKENIZER.encode(text)
    ids[rng.randrange(len(ids))] = rng.randrange(TOKENIZER.n_vocab)
    return TOKENIZER.decode(ids)


def wrong_character(text: str, rng: Random) -> str:
    i = rng.randrange(len(text))
    new = rng.choice(["", "x", " ", "\n", '"', "é", "\U0001f986", "\ufffd"])
    return text[:i] + new + text[i + rng.randrange(2) :]


DAMAGES: dict[str, Callable[[str, Random], str]] = {
    "words in another order": lambda text, rng: " ".join(
        exchange(text.split(" "), rng)
    ),
    "lines in another order": lambda text, rng: "\n".join(
        exchange(text.split("\n"), rng)
    ),
    "another name": wrong_name,
    "cut off": lambda text, rng: text[: rng.randrange(len(text))],
    "goes on": lambda text, rng: text + rng.choice([" ", "\n", ".", text]),
    "another token": wrong_token,
    "another character": wrong_character,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stories(damage: str, checker: Page) -> None:
    rng = Random(2)
    texts = [DAMAGES[damage](text, rng) for text in told(1000, seed=3)]
    verdicts = compare(checker, texts)
    assert sum(not verdict for verdict in verdicts) > 700


def test_what_a_model_writes(checker: Page) -> None:
    model, tokenizer = gpt2.load(STORY)
    texts = [""]
    for seed in range(30):
        sampling = gpt2.Sampling(temperature=(1.0, 1.5, 2.0)[seed % 3])
        start = ("Ella lost her", "One", "Tom")[seed // 3 % 3]
        text = gpt2.complete(model, tokenizer, start, 150, sampling, seed=seed)
        texts.append(start + text)
    verdicts = compare(checker, texts)
    assert 10 < sum(map(bool, verdicts)) < 25
