"""Write the tables of the book's pages from the measurements.

python interop/tables.py
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BOOK = HERE.parent / "book"

# Differences of logits up to here are rounding: float32 with llama.cpp's table
# of GELU in float16; and arithmetic in the 16 bits of the file.
EQUAL, EQUAL_HALF = 0.02, 0.2

REFERENCE = "tokenizers"


def table(rows: list[list[str]]) -> str:
    """Format a table in Markdown; the first row is the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_cell(answer: dict[str, Any], entry: dict[str, Any]) -> str:
    """Say in a word what a reader did with a checkpoint.

    A small setting changes less than some readers round: then a reader is
    wrong if its logits are nearer to those of a model without the setting.
    """
    if "difference" not in answer:
        return "refused" if "refused" in answer else f"**{_failed(answer)}**"
    difference: float = answer["difference"]
    limit = EQUAL_HALF if entry["half"] else EQUAL
    if difference <= limit and difference <= answer["from_ignored"]:
        return "equal"
    return f"**{_shown(difference)} off**"


def _shown(number: float) -> str:
    return f"{number:.{1 if number > 0.1 else 3}f}"


def _failed(answer: dict[str, Any]) -> str:
    return "crashed" if "crashed" in answer else answer["wrong"]


def models(results: dict[str, Any]) -> str:
    """Return the table of checkpoints."""
    entries = results["models"]
    names = list(next(iter(entries.values()))["readers"])
    rows = [["setting", "if ignored", *names]]
    for setting, entry in entries.items():
        change = entry["ignored"]
        row = [setting, _shown(change) if change else ""]
        row += [model_cell(entry["readers"][n], entry) for n in names]
        rows.append(row)
    return table(rows)


def expected(entry: dict[str, Any]) -> list[Any]:
    """Return the ids that the program gives that wrote the tokenizer."""
    readers = entry["readers"]
    answer = readers[REFERENCE]
    return (answer if "ids" in answer else readers["AutoTokenizer"])["ids"]


def tokenizer_cell(answer: dict[str, Any], right: list[Any]) -> str:
    """Say in words what a reader did with a tokenizer."""
    if "ids" not in answer:
        return "refused" if "refused" in answer else f"**{_failed(answer)}**"
    pairs = list(zip(answer["ids"], right, strict=True))
    refused = sum(isinstance(came, str) for came, _ in pairs)
    differ = sum(came != want for came, want in pairs) - refused
    said = [f"**{differ} differ**"] if differ else []
    said += [f"{refused} refused"] if refused else []
    return ", ".join(said) or "equal"


def tokenizers(results: dict[str, Any]) -> str:
    """Return the table of tokenizers' settings."""
    entries = results["tokenizers"]
    names = [
        name
        for name in next(iter(entries.values()))["readers"]
        if name != REFERENCE
    ]
    rows = [["setting", *names]]
    for setting, entry in entries.items():
        right = expected(entry)
        cells = [tokenizer_cell(entry["readers"][n], right) for n in names]
        rows.append([setting, *cells])
    return table(rows)


def texts(results: dict[str, Any]) -> str:
    """Return the table of hard texts, in GPT-2's own vocabulary."""
    readers = next(iter(results["tokenizers"].values()))["readers"]
    names = [name for name in readers if name != "tiktoken"]
    right = readers["tiktoken"]["ids"]
    rows = [["text", *names]]
    for i, what in enumerate(results["texts"]):
        row = [what]
        for name in names:
            ids = readers[name].get("ids")
            came = ids[i] if ids else ""
            cell = "equal" if came == right[i] else "**differs**"
            row.append("refused" if isinstance(came, str) else cell)
        rows.append(row)
    return table(rows)


def refusals(results: dict[str, Any]) -> str:
    """Return what the readers said when they refused a checkpoint."""
    rows = [["reader", "setting", "what it said"]]
    for setting, entry in results["models"].items():
        for name, answer in entry["readers"].items():
            if why := answer.get("refused"):
                shown = why.replace("`", "'")
                rows.append([name, setting, f"`{shown[:160]}`"])
    return table([rows[0], *sorted(rows[1:])])


def versions(results: dict[str, Any]) -> str:
    """Return the versions, as a sentence."""
    named = [f"{name} {v}" for name, v in sorted(results["versions"].items())]
    return f"Measured with {', '.join(named)}, on {results['date']}."


# --- samplers ---

SAMPLERS = ("gpt2", "transformers", "CTranslate2", "llama.cpp")
FILTERS = ("penalty", "temperature", "top-k", "top-p", "min-p")
UNTOUCHED = ("D", 2.0)
"""A token of the plant `signed` that no penalty meets, and its logit."""


def _kept(question: dict[str, Any], answer: dict[str, Any]) -> str:
    return " ".join(sorted(answer["probabilities"]))


def _written(question: dict[str, Any], answer: dict[str, Any]) -> str:
    return str(answer["written"])


def _number(question: dict[str, Any], answer: dict[str, Any]) -> str:
    n = answer.get("kept") or len(answer["probabilities"])
    return f"{n} tokens" if n > 1 else "1 token"


def _likeliest(question: dict[str, Any], answer: dict[str, Any]) -> str:
    if "kept" in answer:
        return f"{answer['kept']} tokens"
    name, share = max(
        answer["probabilities"].items(), key=lambda pair: pair[1]
    )
    return f"{name} {share:.2f}"


def _logits(question: dict[str, Any], answer: dict[str, Any]) -> str:
    """Compute logits from probabilities, by that of an untouched token."""
    shares, (name, logit) = answer["probabilities"], UNTOUCHED
    found = {n: logit + math.log(p / shares[name]) for n, p in shares.items()}
    occurred = question["prompt"] + question["generated"]
    return ", ".join(
        f"{n} {round(found[n])}" for n in sorted(found) if n in occurred
    )


def _returns(question: dict[str, Any], answer: dict[str, Any]) -> str:
    ids = answer["ids"]
    for place, token in enumerate(ids):
        if token in ids[:place]:
            return f"after {place}"
    return "never"


SHOWN = {
    "kept": _kept,
    "written": _written,
    "number": _number,
    "likeliest": _likeliest,
    "logits": _logits,
    "returns": _returns,
}


def sampler_cell(question: dict[str, Any], name: str) -> str:
    """Show what a sampler made of a setting."""
    answer = question["answers"][name]
    if "lacks" in answer:
        return "has none"
    if "refused" in answer:
        return "refused"
    if "crashed" in answer:
        return f"**{answer['crashed']}**"
    return SHOWN[question["show"]](question, answer)


def _sampler_rows(results: dict[str, Any], part: str) -> str:
    rows = [[part, *SAMPLERS]]
    for question in results["questions"][part]:
        cells = [sampler_cell(question, name) for name in SAMPLERS]
        ours = cells[0]
        rows.append([question["words"], *(_marked(c, ours) for c in cells)])
    return table(rows)


def _marked(cell: str, ours: str) -> str:
    """Put a cell in bold that differs from ours, if ours is an answer."""
    same = cell == ours or {"refused"} & {cell, ours} or cell == "has none"
    return cell if same or cell.startswith("**") else f"**{cell}**"


def temperature(results: dict[str, Any]) -> str:
    """Return the table of temperatures."""
    return _sampler_rows(results, "temperature")


def filters(results: dict[str, Any]) -> str:
    """Return the table of top-k, top-p and min-p."""
    return _sampler_rows(results, "filter")


def penalty(results: dict[str, Any]) -> str:
    """Return the table of the repetition penalty."""
    return _sampler_rows(results, "penalty")


def order(results: dict[str, Any]) -> str:
    """Return the table of which filter comes first."""
    rows = [["settings", *SAMPLERS]]
    for question in results["questions"]["order"]:
        cells = [sampler_cell(question, name) for name in SAMPLERS]
        for i, name in enumerate(SAMPLERS):
            if first := question["answers"][name].get("first"):
                cells[i] = f"{first}: {cells[i]}"
        rows.append(
            [question["words"], *(_marked(c, cells[0]) for c in cells)]
        )
    return table(rows)


def orders(results: dict[str, Any]) -> str:
    """Return the order that follows, for each sampler, as a list."""
    pairs = results["questions"]["order"]
    lines = []
    for name in SAMPLERS:
        answers = {
            tuple(q["pair"]): q["answers"][name].get("first") for q in pairs
        }
        known = {pair: first for pair, first in answers.items() if first}
        lines.append(f"- {name}: {', '.join(in_order(known))}")
    return "\n".join(lines)


def in_order(first: dict[tuple[str, ...], str]) -> list[str]:
    """Sort filters, given for some pairs which of the two comes first.

    Where nothing decides, filters stand in our order.
    """
    left = [f for f in FILTERS if any(f in pair for pair in first)]
    found: list[str] = []
    while left:
        free = [
            one
            for one in left
            if all(
                winner == one or set(pair) - {one} <= set(found)
                for pair, winner in first.items()
                if one in pair
            )
        ]
        found.append(free[0])
        left.remove(free[0])
    return found


# --- characters ---


def _alike(results: dict[str, Any]) -> dict[tuple[str, ...], list[Any]]:
    """Gather the ranges of characters by what the programs take them for."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for entry in results["differing"]:
        kinds = tuple(entry["kinds"].values())
        found.setdefault(kinds, []).append((entry["first"], entry["last"]))
    return dict(sorted(found.items()))


def _number_in(ranges: list[tuple[str, str]]) -> int:
    return sum(
        int(last[2:], 16) - int(first[2:], 16) + 1 for first, last in ranges
    )


def letters(results: dict[str, Any]) -> str:
    """Return the table of characters that are cut differently."""
    rows = [["characters", "for example", *results["counts"]]]
    for kinds, ranges in _alike(results).items():
        longest = max(ranges, key=lambda pair: _number_in([pair]))
        number = f"{_number_in(ranges):,}"
        rows.append([number, f"{longest[0]} to {longest[1]}", *kinds])
    return table(rows)


def ranges(results: dict[str, Any]) -> str:
    """Return the list of all these characters."""
    lines = []
    for kinds, ends in _alike(results).items():
        shown = [
            first if first == last else f"{first} to {last}"
            for first, last in ends
        ]
        said = dict(zip(results["counts"], kinds, strict=True))
        who = [name for name, kind in said.items() if kind != "other"]
        kind = next(kind for kind in kinds if kind != "other")
        lines.append(f"- {kind}s for {', '.join(who)}: {', '.join(shown)}")
    return "\n".join(lines)


# --- notebooks ---

COLUMNS = ("another value", "made, not stored", "stored, not made")
NOTICED = {"passed": "**passes**", "failed": "fails", "skipped": "**skipped**"}


def notebooks(results: dict[str, Any]) -> str:
    """Return the table of kinds of output."""
    found = results["verdicts"]
    kinds = [key.removesuffix(": the same") for key in found if ": the" in key]
    rows = [["output", "unchanged", *COLUMNS]]
    for kind in kinds:
        same = found[f"{kind}: the same"]
        unchanged = "passes" if same == "passed" else "**fails**"
        cells = [NOTICED[found[f"{kind}: {column}"]] for column in COLUMNS]
        rows.append([kind, unchanged, *cells])
    return table(rows)


def more_of_notebooks(results: dict[str, Any]) -> str:
    """Return the table of other differences."""
    rows = [["stored in the notebook", "the cell"]]
    rows += [
        [key.removeprefix("single: "), NOTICED[verdict].strip("*")]
        for key, verdict in results["verdicts"].items()
        if key.startswith("single: ")
    ]
    return table(rows)


def sampler_versions(results: dict[str, Any]) -> str:
    """Return the versions of the samplers."""
    return versions(results)


def letter_versions(results: dict[str, Any]) -> str:
    """Return the versions of the tokenizers."""
    return versions(results)


def notebook_versions(results: dict[str, Any]) -> str:
    """Return the versions of nbval and what it runs on."""
    return versions(results)


# --- pages ---

Part = Callable[[dict[str, Any]], str]
PARTS: dict[tuple[str, str], tuple[Part, ...]] = {
    ("other-readers.md", "interop.json"): (
        models,
        refusals,
        tokenizers,
        texts,
        versions,
    ),
    ("other-programs.md", "sampling.json"): (
        temperature,
        filters,
        order,
        orders,
        penalty,
        sampler_versions,
    ),
    ("other-programs.md", "letters.json"): (
        letters,
        ranges,
        letter_versions,
    ),
    ("other-programs.md", "notebooks.json"): (
        notebooks,
        more_of_notebooks,
        notebook_versions,
    ),
}
"""For each page and file of results, the parts of the page made from it."""


def filled(page: str, results: dict[str, Any], parts: Iterable[Part]) -> str:
    """Return a page with these parts, between their markers, made anew."""
    for part in parts:
        name = part.__name__
        pattern = rf"(?s)(% made by interop: {name}\n).*?(\n% end)"
        body = part(results).replace("\\", r"\\")
        page, n = re.subn(pattern, rf"\g<1>\n{body}\n\g<2>", page)
        assert n == 1, f"{name} has {n} places in the page"
    return page


def write() -> None:
    """Write the tables into the pages."""
    for (name, source), parts in PARTS.items():
        results = json.loads((HERE / source).read_text("utf-8"))
        path = BOOK / name
        text = filled(path.read_text("utf-8"), results, parts)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
