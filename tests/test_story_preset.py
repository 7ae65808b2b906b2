"""The model that ships with the package: works offline, as good as its card.

The bounds are a little below the card's figures, for other processors.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import gpt2
from gpt2 import stories
from gpt2.evaluation.stories import grade_probes, grade_samples, measure_gap

FOLDER = Path(gpt2.__file__).parent / "pretrained" / "story"


def test_it_is_what_the_card_says() -> None:
    model, tokenizer = gpt2.load("story")
    card = (FOLDER / "README.md").read_text()
    assert f"{model.num_parameters():,} parameters" in card
    assert tokenizer.n_vocab == model.config.n_vocab == 1440
    assert not model.training


def test_every_story_fits_and_survives_the_tokenizer() -> None:
    model, tokenizer = gpt2.load("story")
    for seed in range(300):
        text = stories.sample(seed)
        ids = tokenizer.encode(text)
        assert len(ids) + 2 <= model.config.n_ctx
        assert tokenizer.decode(ids) == text


def test_its_loss_is_near_the_entropy() -> None:
    gap = measure_gap(*gpt2.load("story"), n_stories=100, seed=11)
    assert 0 < gap.per_token < 0.005


def test_most_of_its_stories_are_stories() -> None:
    samples = grade_samples(*gpt2.load("story"), n_samples=40, seed=11)
    assert sum(bool(sample.verdict) for sample in samples) >= 38


def test_it_remembers() -> None:
    grades = grade_probes(*gpt2.load("story"), 20, seed=11)
    assert [grade.kind for grade in grades] == [*stories.KINDS]
    assert all(grade.n_right >= 19 for grade in grades)


def test_it_is_the_default_and_needs_no_network(tmp_path: Path) -> None:
    offline = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "TIKTOKEN_CACHE_DIR": str(tmp_path),
    }
    found = subprocess.run(
        [sys.executable, "-m", "gpt2", "generate", "", "--seed", "1"],
        capture_output=True,
        text=True,
        env=offline,
        check=True,
    )
    assert len(found.stdout.split()) > 30
    assert not found.stderr


def test_the_help_says_so_first() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "gpt2", "generate", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = " ".join(found.stdout.split())
    assert re.search(r"\bstor(y|ies)\b.{,60}--model gpt2\b", said)
