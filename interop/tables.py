"""Write the tables of the book's page from `interop.json`.

python interop/tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "interop.json"
PAGE = HERE.parent / "book" / "other-readers.md"

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


PARTS = (models, refusals, tokenizers, texts, versions)


def filled(page: str, results: dict[str, Any]) -> str:
    """Return a page with every part between its markers made anew."""
    for part in PARTS:
        name = part.__name__
        pattern = rf"(?s)(% made by interop: {name}\n).*?(\n% end)"
        body = part(results).replace("\\", r"\\")
        page, n = re.subn(pattern, rf"\g<1>\n{body}\n\g<2>", page)
        assert n == 1, f"{name} has {n} places in the page"
    return page


def write() -> None:
    """Write the tables into the page."""
    results = json.loads(RESULTS.read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    PAGE.write_text(filled(page, results), "utf-8")


if __name__ == "__main__":
    write()
