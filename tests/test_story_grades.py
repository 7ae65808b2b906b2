"""Grades of models that know everything, nothing, or something wrong."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gpt2 import stories
from gpt2.config import GPT2Config
from gpt2.evaluation.stories import grade_probes, grade_samples, measure_gap
from gpt2.model import GPT2
from gpt2.tokenizer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(
    [stories.sample(seed) for seed in range(300)], 1024
)
END = TOKENIZER.end_of_text
CONFIG = GPT2Config(n_vocab=1024, n_ctx=256, n_embd=8, n_head=2, n_layer=1)


class Reciter(GPT2):
    """Predicts the continuation of the first known text that fits."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(CONFIG)
        self.known = [[END, *TOKENIZER.encode(text), END] for text in texts]
        self.read: list[list[int]] = []  # what a cache would hold

    def forward(
        self, tokens: Tensor, attention_mask=None, *, cache=None, last_only=0
    ) -> Tensor:
        rows = tokens.tolist()
        if cache is not None:
            if tokens.size(1) > 1 or tokens[0, 0] == END:
                self.read = [[] for _ in rows]
            if len(self.read) < len(rows):  # many samples of one prompt
                self.read = [list(self.read[0]) for _ in rows]
            for held, row in zip(self.read, rows, strict=True):
                held.extend(row)
            rows = self.read
        logits = torch.zeros(len(rows), len(rows[0]), CONFIG.n_vocab)
        for b, row in enumerate(rows):
            for t in range(len(row)):
                seen = row[: t + 1]
                for known in self.known:
                    if known[: t + 1] == seen and len(known) > t + 1:
                        logits[b, t, known[t + 1]] = 50.0
                        break
        return logits[:, -1] if last_only else logits


def texts_of(n: int, seed: int, split: str = "train") -> list[str]:
    rng = random.Random(seed)
    return [stories.sample(rng, split) for _ in range(n)]


def test_gap_of_a_model_that_knows_nothing() -> None:
    model = GPT2(CONFIG)
    torch.nn.init.zeros_(model.wte.weight)  # every token alike
    gap = measure_gap(model, TOKENIZER, n_stories=20, seed=3)
    texts = texts_of(20, seed=3 + 2**32)
    n_tokens = sum(len(TOKENIZER.encode(text)) + 1 for text in texts)
    least = -sum(map(stories.log_probability, texts))
    assert gap.n_stories == 20
    assert gap.n_tokens == n_tokens
    assert gap.nats == pytest.approx(n_tokens * math.log(1024), rel=1e-5)
    assert gap.least_nats == pytest.approx(least)
    expected = math.log(1024) - least / n_tokens
    assert gap.per_token == pytest.approx(expected, rel=1e-5)
    assert 0 < gap.standard_error < 0.1
    assert f"({gap.per_token:.4f} ± {gap.standard_error:.4f} " in repr(gap)


def test_a_model_can_be_too_sure() -> None:
    """One that has memorized these stories is below the entropy."""
    texts = texts_of(2, seed=5 + 2**32)
    gap = measure_gap(Reciter(texts), TOKENIZER, n_stories=2, seed=5)
    assert gap.nats < gap.least_nats
    assert gap.per_token < 0


def test_samples_that_are_stories_are_accepted() -> None:
    (text,) = texts_of(1, seed=7)
    samples = grade_samples(Reciter([text]), TOKENIZER, 5, batch_size=2)
    assert [sample.text for sample in samples] == [text] * 5
    assert all(sample.verdict for sample in samples)


class Plain:
    """A language model that is not a module, like a packed model."""

    def __init__(self, model: GPT2) -> None:
        self.model, self.config, self.device = model, CONFIG, model.device
        self.new_cache = model.new_cache

    def __call__(self, *arguments, **options) -> Tensor:
        return self.model(*arguments, **options)


def test_a_model_need_not_be_a_module() -> None:
    (text,) = texts_of(1, seed=5 + 2**32)
    model = Reciter(texts_of(2, seed=5 + 2**32))
    (sample,) = grade_samples(Plain(model), TOKENIZER, 1)
    assert sample.text == text
    assert measure_gap(Plain(model), TOKENIZER, 2, 5) == measure_gap(
        model, TOKENIZER, 2, 5
    )
    asked = stories.probes(1, 2, "held_out", ["sum"])
    knowing = Reciter([probe.prompt + probe.answer for probe in asked])
    (grade,) = grade_probes(Plain(knowing), TOKENIZER, 1, 2, kinds=["sum"])
    assert grade.n_right == 1


def test_samples_that_are_not_are_refused_where_they_err() -> None:
    (text,) = texts_of(1, seed=7)
    place = text.index(".")
    wrong = text[:place] + "!" + text[place + 1 :]
    (sample,) = grade_samples(Reciter([wrong]), TOKENIZER, 1)
    assert sample.text == wrong
    assert not sample.verdict
    assert sample.verdict.offset == place


@pytest.mark.parametrize("n_vocab", [1024, 1088])
def test_a_sample_without_an_end_is_no_story(n_vocab: int) -> None:
    model = GPT2(replace(CONFIG, n_vocab=n_vocab))
    torch.nn.init.zeros_(model.wte.weight)
    with torch.no_grad():  # always the same letter, never an end
        model.wte.weight[TOKENIZER.ranks[b"a"]] = 100.0
        model.wte.weight[1024:] = 200.0  # rows without a token
        model.ln_f.bias.fill_(1.0)
    (sample,) = grade_samples(model, TOKENIZER, 1)
    assert sample.text == "a" * 255
    assert not sample.verdict


def test_probes_of_a_model_that_knows_the_answers() -> None:
    kinds = ["name", "pronoun", "sum"]
    asked = stories.probes(12, 2, "held_out", kinds)
    model = Reciter([probe.prompt + probe.answer for probe in asked])
    grades = grade_probes(model, TOKENIZER, 4, 2, kinds=kinds)
    assert [grade.kind for grade in grades] == kinds
    assert [grade.n_probes for grade in grades] == [4, 4, 4]
    assert [grade.n_right for grade in grades] == [4, 4, 4]
    mine = [probe.distance for probe in asked if probe.kind == "sum"]
    assert grades[2].mean_distance == sum(mine) / 4


def test_probes_of_a_model_that_has_them_wrong() -> None:
    asked = stories.probes(8, 2, "held_out", ["pronoun"])
    model = Reciter(
        [probe.prompt + probe.alternatives[0] for probe in asked[:6]]
        + [probe.prompt + probe.answer for probe in asked[6:]]
    )
    (grade,) = grade_probes(model, TOKENIZER, 8, 2, kinds=["pronoun"])
    assert grade.n_right == 2


def test_what_cannot_be_graded() -> None:
    model = GPT2(CONFIG)
    with pytest.raises(ValueError, match=r"n_per_kind .*0$"):
        grade_probes(model, TOKENIZER, 0)
    with pytest.raises(ValueError, match=f"seed .*{2**32}$"):
        grade_samples(model, TOKENIZER, 1, seed=2**32)
    with pytest.raises(ValueError, match=r"n_stories .*1$"):
        measure_gap(model, TOKENIZER, 1)
