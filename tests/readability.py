"""Print a few numbers that say how easy the package is to read.

    python tests/readability.py

Code lines are lines without blanks, comments and docstrings. CONTRIBUTING.md
shows the table, and `test_readability.py` holds the bounds.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from test_architecture import FILES, PACKAGE, module_of, own_imports

COMPONENTS = (
    *("linear", "embeddings", "attention", "layer_norm", "feed_forward"),
    *("layer", "model"),
)
CLASSES = (
    *("Linear", "Embedding", "MultiHeadAttention", "LayerNorm", "FeedForward"),
    *("GPT2Layer", "GPT2"),
)
LONG = 40
"""Code lines: a function with more is long."""

# A shape such as (B, T, C), (..., D), [in, out] or "a scalar".
SHAPE = re.compile(
    r"\((?:\.\.\.|\*?\w+\.shape|n?\d*[A-Z][\w /+*]*|new B)(?:,[^()]*)?\)"
    r"|\[\w+, \w+\]|\bscalar\b|\bany shape\b|\bas in `"
)
SOURCE = re.compile(r"et al\.|\(\d{4}\)|openai/gpt-2|\bsection \d|\bRFC \d")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Number(NamedTuple):
    """One row of the table: what is counted, the count, and its bound."""

    name: str
    value: int
    bound: int

    def holds(self) -> bool:
        return self.value <= self.bound

    def cells(self) -> tuple[str, str, str]:
        return self.name, f"{self.value}", f"at most {self.bound}"


class Share(Number):
    """A share in percent, whose bound is the least allowed."""

    def holds(self) -> bool:
        return self.value >= self.bound

    def cells(self) -> tuple[str, str, str]:
        return self.name, f"{self.value}%", f"at least {self.bound}%"


def code_lines(text: str) -> set[int]:
    """Return the numbers of the code lines in a source text."""
    skipped = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
        *(tokenize.DEDENT, tokenize.ENDMARKER),
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(extent(node))  # a docstring
    return lines


def extent(node: ast.AST) -> range:
    """Return the numbers of all lines of a definition or statement."""
    return range(node.lineno, node.end_lineno + 1)


class Source(NamedTuple):
    """One file of the package."""

    path: Path
    tree: ast.Module
    lines: set[int]

    def length(self, node: ast.AST) -> int:
        return len(self.lines.intersection(extent(node)))


def read(path: Path) -> Source:
    text = path.read_text("utf-8")
    return Source(path, ast.parse(text), code_lines(text))


def functions(source: Source) -> Iterator[Function]:
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            yield node


def public(tree: ast.AST) -> Iterator[Function | ast.ClassDef]:
    """Yield the public functions, classes and methods with a docstring."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, Function | ast.ClassDef):
            continue
        if node.name.startswith("_") and node.name != "__init__":
            continue
        if ast.get_docstring(node):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node)


def has_tensor(node: Function | ast.ClassDef) -> bool:
    """Tell whether a function takes or returns a tensor."""
    if isinstance(node, ast.ClassDef):
        return False
    arguments = node.args
    hints = [
        argument.annotation
        for argument in (*arguments.args, *arguments.kwonlyargs)
    ]
    return any(
        re.search(r"\bTensor\b", ast.unparse(hint))
        for hint in (*hints, node.returns)
        if hint is not None
    )


def raises(node: Function | ast.ClassDef) -> bool:
    """Tell whether a function itself raises a new error."""
    return isinstance(node, Function) and any(
        isinstance(inner, ast.Raise) and inner.exc is not None
        for inner in ast.walk(node)
    )


def percent(those: list[bool]) -> int:
    return round(100 * sum(those) / len(those))


def sources() -> list[Source]:
    """Read the package, without the story grammar."""
    return [read(path) for path in FILES if module_of(path) != "stories"]


def long_functions() -> list[str]:
    """Return the file and name of every function that is too long."""
    return [
        f"{source.path.relative_to(PACKAGE)}: {node.name}"
        for source in sources()
        for node in functions(source)
        if source.length(node) > LONG
    ]


def sizes() -> Iterator[Number]:
    """Count code lines, functions, modules and imports."""
    core = [read(PACKAGE / f"{name}.py") for name in COMPONENTS]
    lines = {
        node.name: source.length(node)
        for source in core
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
    }
    yield Number(
        "code lines of `MultiHeadAttention`", lines["MultiHeadAttention"], 65
    )
    yield Number(
        "code lines of the classes from tokens to logits",
        sum(lines[name] for name in CLASSES),
        200,
    )
    yield Number(
        "code lines of the seven component files",
        sum(len(source.lines) for source in core),
        380,
    )
    yield Number(
        f"functions over {LONG} code lines, without `stories/`",
        len(long_functions()),
        0,
    )
    modules = {module_of(path) for path in FILES} - {"__init__"}
    imports = {
        (module_of(path), other)
        for path in FILES
        for other in own_imports(read(path).tree) & modules
        if module_of(path) not in ("__init__", other)
    }
    yield Number("modules and packages in `gpt2/`", len(modules), 28)
    yield Number("imports from one of these to another", len(imports), 100)


def docstring_shares() -> Iterator[Share]:
    """Count the public docstrings that say what they must."""
    shapes, errors, cited = [], [], []
    for source in sources():
        for node in public(source.tree):
            text = ast.get_docstring(node) or ""
            cited.append(bool(SOURCE.search(text)))
            if has_tensor(node):
                shapes.append(bool(SHAPE.search(text)))
            if raises(node):
                errors.append("Raises:" in text)
    yield Share("functions with tensors that give shapes", percent(shapes), 70)
    yield Share("functions that raise and list errors", percent(errors), 85)
    yield Share("docstrings that cite a source", percent(cited), 4)


def numbers() -> list[Number]:
    """Return all rows of the table."""
    return [*sizes(), *docstring_shares()]


def main() -> None:
    """Print the table, and the functions that are too long."""
    rows = [("", "now", "bound"), ("---", "---", "---")]
    rows += [number.cells() for number in numbers()]
    for row in rows:
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    for name in long_functions():
        sys.stdout.write(f"too long: {name}\n")


if __name__ == "__main__":
    main()
