"""The pages on other programs show what `make interop` measured."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from book_rules import BOOK

import gpt2

FOLDER = Path(__file__).parents[1] / "interop"
sys.path.append(str(FOLDER))

import letters  # noqa: E402
import notebooks  # noqa: E402
import questions  # noqa: E402
import tables  # noqa: E402

RESULTS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in FOLDER.glob("*.json")
}
READERS = RESULTS["interop"]


@pytest.mark.parametrize(("page", "source"), tables.PARTS)
def test_the_pages_show_the_measurements(page: str, source: str) -> None:
    text = (BOOK / page).read_text("utf-8")
    results, parts = RESULTS[Path(source).stem], tables.PARTS[page, source]
    again = tables.filled(text, results, parts)
    assert again == text, "run interop/tables.py"


def test_all_tables_are_made() -> None:
    for page in {page for page, _ in tables.PARTS}:
        text = (BOOK / page).read_text("utf-8")
        made = {
            part.__name__
            for (name, _), parts in tables.PARTS.items()
            for part in parts
            if name == page
        }
        assert set(re.findall(r"% made by interop: (\w+)", text)) == made


def pins(name: str) -> dict[str, str]:
    text = (FOLDER.parent / name).read_text("utf-8")
    return dict(
        line.split("#")[0].split(";")[0].strip().split("==")
        for line in text.splitlines()
        if "==" in line
    )


@pytest.mark.parametrize(
    ("results", "files", "at_least"),
    [
        ("interop", ["interop/requirements.txt"], 5),
        ("sampling", ["interop/requirements.txt"], 3),
        ("letters", ["interop/requirements.txt", "requirements.txt"], 3),
        ("notebooks", ["requirements-tests.txt", "requirements.txt"], 2),
    ],
)
def test_pins_are_those_measured(
    results: str, files: list[str], at_least: int
) -> None:
    pinned = {n: v for name in files for n, v in pins(name).items()}
    measured = RESULTS[results]["versions"]
    shared = pinned.keys() & measured.keys()
    assert len(shared) >= at_least
    assert {n: pinned[n] for n in shared} == {n: measured[n] for n in shared}


# --- readers ---


def test_every_reader_was_given_everything() -> None:
    for part in ("models", "tokenizers"):
        entries = list(READERS[part].values())
        names = list(entries[0]["readers"])
        assert len(names) >= 6
        assert all(list(e["readers"]) == names for e in entries)


def answer(difference: float, from_ignored: float) -> dict[str, float]:
    return {"difference": difference, "from_ignored": from_ignored}


@pytest.mark.parametrize(
    ("came", "half", "cell"),
    [
        (answer(0.001, 3.0), False, "equal"),
        (answer(0.001, 0.0002), False, "**0.001 off**"),
        (answer(3.26, 0.0), False, "**3.3 off**"),
        (answer(0.05, 0.05), False, "**0.050 off**"),
        (answer(0.05, 0.05), True, "equal"),
        ({"refused": "ValueError: no"}, False, "refused"),
        ({"crashed": "SIGSEGV"}, False, "**crashed**"),
        ({"wrong": "logits that are not finite"}, False, "**logits that"),
    ],
)
def test_the_words_for_a_checkpoint(
    came: dict[str, Any], half: bool, cell: str
) -> None:
    assert tables.model_cell(came, {"half": half}).startswith(cell)


@pytest.mark.parametrize(
    ("came", "cell"),
    [
        ({"ids": [[1], [2, 3]]}, "equal"),
        ({"ids": [[1], [2]]}, "**1 differ**"),
        ({"ids": [[4], "ValueError: no"]}, "**1 differ**, 1 refused"),
        ({"refused": "ValueError: no"}, "refused"),
        ({"crashed": "no answer in 300 seconds"}, "**crashed**"),
    ],
)
def test_the_words_for_a_tokenizer(came: dict[str, Any], cell: str) -> None:
    assert tables.tokenizer_cell(came, [[1], [2, 3]]) == cell


# --- samplers ---

SAMPLED = RESULTS["sampling"]["questions"]
ASKED = [q for group in SAMPLED.values() for q in group]


def words(question: dict[str, Any]) -> str:
    return str(question["words"])


def test_every_sampler_was_asked_everything() -> None:
    assert SAMPLED.keys() == questions.QUESTIONS.keys()
    for part, group in questions.QUESTIONS.items():
        stored = [
            {k: v for k, v in q.items() if k not in ("answers", "pair")}
            for q in SAMPLED[part]
        ]
        assert stored == [asdict(question) for question in group]
    for question in ASKED:
        assert tuple(question["answers"]) == tables.SAMPLERS


@pytest.mark.parametrize(
    "question",
    [q for q in ASKED if q["greedy"] is None and q["in_result"]],
    ids=words,
)
def test_the_column_of_this_package(question: dict[str, Any]) -> None:
    tokenizer = gpt2.Tokenizer.bytes_only()
    logits = torch.full((1, 257), questions.IMPOSSIBLE)
    for name, logit in questions.PLANTS[question["plant"]].items():
        token = int(name) if name.isdigit() else tokenizer.encode(name)[0]
        logits[0, token] = logit
    tokens = torch.tensor(
        [tokenizer.encode(question["prompt"] + question["generated"])]
    )
    stored = question["answers"]["gpt2"]
    if "refused" in stored:
        with pytest.raises(ValueError):
            gpt2.Sampling(**question["settings"])
        return
    sampling = gpt2.Sampling(**question["settings"])
    shares = sampling.filter(logits, tokens)[0].softmax(-1)
    kept = shares.nonzero()[:, 0].tolist()
    if "kept" in stored:
        assert len(kept) == stored["kept"]
        return
    came = {tokenizer.decode([i]): shares[i].item() for i in kept}
    assert came == pytest.approx(stored["probabilities"], abs=2e-6)


@pytest.mark.parametrize("pair", questions.PAIRS, ids="-".join)
def test_the_tokens_left_tell_the_order(pair: tuple[str, str]) -> None:
    question = questions.PAIRS[pair]
    for order in (pair, pair[::-1]):
        left = questions.expected(question, *order)
        assert sum(left.values()) == pytest.approx(1)
        assert questions.earlier(question, pair, left) == order[0]
    assert questions.earlier(question, pair, {"E": 1.0}) is None


def test_every_pair_that_does_not_commute_is_asked() -> None:
    # A temperature and a penalty change only logits; a temperature and top-k,
    # or top-k and min-p, keep the same tokens in either order.
    alike = [("penalty", "temperature"), ("temperature", "top-k")]
    alike.append(("top-k", "min-p"))
    names = tables.FILTERS
    pairs = {(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}
    assert pairs == {*questions.PAIRS, *alike}
    settings = {"repetition_penalty": 1.4, "temperature": 1.7, "top_k": 3}
    settings |= {"min_p": 0.3, "top_p": 0.7}
    question = replace(questions.PAIRS["penalty", "top-k"], settings=settings)
    for pair in alike:
        first, second = (
            questions.expected(question, *order)
            for order in (pair, pair[::-1])
        )
        assert first == pytest.approx(second)


def test_filters_are_sorted_by_what_comes_first() -> None:
    pairs = [(0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (3, 4)]
    names = tables.FILTERS
    ours = {(names[i], names[j]): names[i] for i, j in pairs}
    assert tables.in_order(ours) == list(names)
    temperature_last = {
        pair: pair[1] if pair[0] == "temperature" else pair[0] for pair in ours
    }
    assert tables.in_order(temperature_last) == [
        *("penalty", "top-k", "top-p", "min-p", "temperature")
    ]


@pytest.mark.parametrize(
    ("show", "came", "cell"),
    [
        ("kept", {"probabilities": {"B": 0.4, "A": 0.6}}, "A B"),
        ("number", {"kept": 40}, "40 tokens"),
        ("likeliest", {"probabilities": {"B": 0.4, "A": 0.6}}, "A 0.60"),
        (
            "logits",
            {"probabilities": {"D": 0.5, "A": 0.5 / math.e, "C": 0.1}},
            "A 1",
        ),
        ("returns", {"ids": [5, 6, 7, 5]}, "after 3"),
        ("returns", {"ids": [5, 6, 7]}, "never"),
        ("kept", {"lacks": True}, "has none"),
        ("kept", {"refused": "ValueError: no"}, "refused"),
        ("kept", {"crashed": "SIGSEGV"}, "**SIGSEGV**"),
    ],
)
def test_the_words_for_a_sampler(
    show: str, came: dict[str, Any], cell: str
) -> None:
    question = {"show": show, "prompt": "Z", "generated": "A"}
    question["answers"] = {"one": came}
    assert tables.sampler_cell(question, "one") == cell


# --- characters ---


def test_characters_in_the_table_are_cut_as_it_says(tmp_path: Path) -> None:
    ours = letters.vocabulary()
    differing = RESULTS["letters"]["differing"]
    assert differing
    for entry in differing:
        for place in (entry["first"], entry["last"]):
            character = chr(int(place.removeprefix("U+"), 16))
            for name in ("gpt2", "regex", "tiktoken"):
                encode = letters.ENCODERS[name](ours, tmp_path)
                assert letters.kind(encode, character) == entry["kinds"][name]


@pytest.mark.parametrize(
    ("character", "kind"),
    [
        ("é", "letter"),
        ("深", "letter"),
        ("½", "number"),
        ("\u3000", "space"),
        ("€", "other"),
        ("\U0003ffff", "other"),
    ],
)
def test_the_run_of_a_character(character: str, kind: str) -> None:
    ours = letters.vocabulary()
    assert letters.kind(ours.encode, character) == kind


def test_neighbours_that_are_cut_alike_become_a_range() -> None:
    places = [ord(c) for c in letters.characters()]
    one = ["letter"] * len(places)
    other = list(one)
    for place in (0x100, 0x101, 0x102, 0x104):
        other[places.index(place)] = "other"
    found = letters.differing({"one": one, "other": other})
    assert [(e["first"], e["last"]) for e in found] == [
        ("U+0100", "U+0102"),
        ("U+0104", "U+0104"),
    ]


# --- notebooks ---


def test_nbval_notices_what_the_page_says() -> None:
    assert notebooks.measured() == RESULTS["notebooks"]["verdicts"]
