"""The glossary, the index of terms, the notation, the real GPT-2's numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from book_rules import BOOK, anchors, has_good_links, prose
from entries import CHAPTER, Place, Term, anchor, mentions, places, terms

from gpt2.weights.pins import HUB_PRESETS
from gpt2_book import drawing, published

GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
TERMS = terms(GLOSSARY)
REAL = prose(BOOK / "the-real-gpt2.ipynb")


# --- the glossary ---


def test_every_paragraph_is_an_entry() -> None:
    _, _, entries = GLOSSARY.partition("-->\n\n")
    assert len(TERMS) == len(entries.strip().split("\n\n")) > 150


def test_the_terms_are_in_order() -> None:
    first = [term.names[0].lower() for term in TERMS]
    assert first == sorted(first)


def test_no_two_entries_have_a_name_in_common() -> None:
    names = [anchor(name, "term-") for term in TERMS for name in term.names]
    assert len(set(names)) == len(names)
    assert set(names) <= anchors(BOOK / "glossary.md")


def test_chapters_are_linked_under_their_numbers() -> None:
    links = re.findall(r"\[Chapter (\d+)\]\((\d\d)-", GLOSSARY)
    assert len(links) == len(CHAPTER.findall(GLOSSARY)) > 150
    assert all(int(label) == int(file) for label, file in links)


@pytest.mark.parametrize("name", ["glossary", "terms"])
def test_links(name: str) -> None:
    assert not list(has_good_links(BOOK / f"{name}.md"))


@pytest.mark.parametrize(
    "term",
    [
        *("held-out", "saturated", "calibration", "fp16", "router"),
        *("recomputation", "autocast", "pre-hook", "post-norm", "epoch"),
        *("unembed", "rank", "chinchilla", "mfu", "flashattention", "lora"),
        *("superposition", "attention-sink", "speculative-decoding"),
        *("bpe", "gelu", "kv-cache", "layer-norm", "top-p"),
    ],
)
def test_what_readers_looked_for_is_there(term: str) -> None:
    assert f"term-{term}" in anchors(BOOK / "glossary.md")


# --- where the chapters speak of a term ---


@pytest.mark.parametrize(
    "text, n",
    [
        ("A mask, the mask and masks.", 3),
        ("Masked and unmasked are other words.", 0),
        ("The causal mask", 1),
        ("A MASK", 1),
    ],
)
def test_mentions(text: str, n: int) -> None:
    assert mentions(["mask", "cloak"], text) == n


def test_a_definition_comes_before_a_title_before_mentions() -> None:
    term = Term(["gate", "SwiGLU"], [])
    titled = Place("a", "Gates", "", ())
    used = Place("b", "Other", "gate gate gate gate", ())
    once = Place("c", "Other", "a gate", ())
    defined = Place("d", "Other", "a gate", ("SwiGLU",))
    whole = Place("e", "Gate", "", ())
    chapter = [titled, used, once, defined, whole]
    assert places(term, chapter) == [whole, defined, titled, used]
    assert places(term, chapter, few=1)[-1] == once


@pytest.mark.parametrize(
    "words, expected",
    [
        ("KV cache", "term-kv-cache"),
        (
            "Kullback\N{EN DASH}Leibler divergence",
            "term-kullback-leibler-divergence",
        ),
        ("FLOP/s", "term-flop-s"),
        ("Adam's rate", "term-adams-rate"),
        ("a b c d e f g h i", "term-a-b-c-d-e-f-g-h"),
    ],
)
def test_anchors(words: str, expected: str) -> None:
    assert anchor(words, "term-") == expected


# --- the colours ---


def test_the_swatches_have_the_colours_of_the_figures() -> None:
    page = (BOOK / "notation.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## Colours")
    used = set(re.findall(r'"(#[0-9a-f]{6})"', table))
    slate = {"#64748b"}  # of the figures' feed-forward and norms
    assert used == {*drawing.COLORS.values(), drawing.PALE} | slate
    assert table.count("<svg") == len(re.findall("^\\| <svg", table, re.M))


# --- the real GPT-2 ---


def joined(numbers: list[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers).replace("-", "\N{MINUS SIGN}")


def test_the_tables_have_the_published_numbers() -> None:
    for token, _, share in published.LIKELIEST[2]:
        shown = f"{share:.2%}".replace("%", " %")
        assert f"`{drawing.shown(token)}` {shown}" in REAL
    for text, (_, loss) in published.LOSSES.items():
        escaped = text.replace("|", r"\|")
        assert f"| `{escaped}` | {loss} |" in REAL
    for name, numbers in published.FIRST_PARTS.items():
        assert f"| `{name}` | {joined(numbers[:3])} | measurable |" in REAL
    assert joined(published.FIRST_LOGITS[:3]) in REAL
    for name, n in published.PARAMETERS.items():
        assert f"| `{name}` | {n:,} |" in REAL
    assert f"{published.FILE_BYTES:,} bytes" in REAL
    assert f"{published.HEADER_BYTES:,} are the header" in REAL
    digest = "".join(re.findall(r"`([0-9a-f]{32})`", REAL))
    assert digest == HUB_PRESETS["gpt2"].sha256["model.safetensors"]


def test_the_continuations_are_those_that_are_compared() -> None:
    tokenizer = pytest.importorskip("tiktoken")
    try:
        decode = tokenizer.get_encoding("gpt2").decode
    except OSError:
        pytest.skip("GPT-2's vocabulary is not here")
    for text, (prompt, continuation) in {
        **published.GREEDY,
        **published.BATCH,
    }.items():
        if "ids" in text:
            shown = ", ".join(map(str, continuation[:2]))
            assert f"| {text} | {shown}" in REAL
            continue
        assert decode(prompt) == text
        told = decode(continuation)
        first = re.sub("^ ", "␣", told.partition("\n")[0])
        assert f"| `{text}` | `{first}` |" in REAL
    text, ids, likeliest = published.LIKELIEST
    assert decode(ids) == text
    assert [decode([i]) for _, i, _ in likeliest] == [t for t, *_ in likeliest]
    for text, (ids, _) in published.LOSSES.items():
        assert decode(ids) == text


def test_the_counts_of_lambada_are_those_of_the_table() -> None:
    _, _, section = REAL.partition("## LAMBADA, both ways")
    token, word = published.LAMBADA.values()
    assert re.search(
        rf"\| {token} \| the last \*token\*.* measurable \|", section
    )
    assert re.search(rf"\| {word} ± .* every token .* measurable \|", section)


def test_every_row_says_what_it_is() -> None:
    rows = [r for r in REAL.splitlines() if r.startswith("| ")]
    said = [r for r in rows if re.search(r"\| (published|measurable) \|$", r)]
    assert len(said) > 50
    assert all("|" in row.strip("| ") for row in said)


def test_the_heads_are_those_of_the_circuit() -> None:
    _, _, section = REAL.partition("## Heads with known roles")
    listed = re.findall(r"^\| ([\d., ]+) \| ([\w-]+)", section, re.MULTILINE)
    heads = [head for row, _ in listed for head in row.split(", ")]
    assert len(listed) == 7 and len(heads) == len(set(heads)) == 26
    assert [row.replace(",", "") for row, _ in listed] == [
        *published.HEADS.values()
    ]
    for (_, first), role in zip(listed, published.HEADS, strict=True):
        assert role.startswith(first.removesuffix("-token"))
    for head in heads:
        layer, _, number = head.partition(".")
        assert int(layer) < 12 > int(number)


def test_the_numbers_of_the_circuit_are_those_of_the_tables() -> None:
    for number in (published.LEAD, *published.LOOKS.values()):
        assert f"| {number} | section" in REAL
    assert f"| {100 * published.AHEAD:.1f} % | section 2" in REAL
    assert f"| {100 * published.SHARE:.0f} % | section 2" in REAL
    for heads, _ in published.PLACES.values():
        one, other = heads.split()
        assert re.search(
            rf"\| ({one} and {other}|{other} and {one}) .* measurable", REAL
        )


def test_the_pages_are_where_the_extension_looks() -> None:
    assert Path(BOOK / "terms.md").read_text().count("```{places}") == 1
