"""Which module may import which, and what the package never uses.

The source is parsed with `ast`, not imported.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2

PACKAGE = Path(gpt2.__file__).parent

# module: the modules of this package that it may import. Imports go one way.
# `weights` and `training` import the tokenizer because they save it too.
PARTS = {"config", "linear"}
MODEL = {"config", "model", "attention", "cache", "embeddings"}
MAY_IMPORT: dict[str, set[str]] = {
    "config": set(),
    "files": set(),
    "tokenizer": {"files"},
    "stories": set(),
    "data": {"files"},
    "texts": {"tokenizer"},
    "progress": set(),
    "linear": set(),
    "embeddings": PARTS,
    "layer_norm": PARTS,
    "cache": {"config"},
    "attention": PARTS | {"cache"},
    "feed_forward": PARTS,
    "layer": PARTS | {"attention", "cache", "feed_forward", "layer_norm"},
    "model": PARTS
    | {"attention", "cache", "embeddings", "layer", "layer_norm"},
    "dropout": set(),
    "sampling": set(),
    "generation": MODEL | {"dropout", "sampling"},
    "beams": MODEL | {"generation", "sampling"},
    "prediction": set(),
    "completion": MODEL
    | {"dropout", "generation", "prediction", "sampling", "tokenizer"},
    "weights": MODEL | {"files", "progress", "tokenizer"},
    "inference": MODEL
    | {"feed_forward", "files", "layer", "layer_norm", "linear", "progress"},
    "evaluation": MODEL
    | {"data", "dropout", "generation", "layer", "progress", "sampling"}
    | {"stories", "texts", "tokenizer"},
    "training": MODEL
    | {
        "data",
        "feed_forward",
        "files",
        "progress",
        "stories",
        "texts",
        "tokenizer",
        "weights",
    },
}
# These may import everything, and nothing else may import them.
COMMAND_LINE = {"__main__", "commands"}
DOORS = COMMAND_LINE | {"__init__"}

FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize(
    "file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES]
)


def module_of(file: Path) -> str:
    """Return the module in the table; a subpackage counts as one."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of everything that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.AST) -> set[str]:
    """Return the modules of this package that a file imports."""
    found = set()
    for name in imports(tree):
        package, *rest = name.split(".")
        if package == "gpt2":
            found.add(rest[0] if rest else "__init__")
    return found


def forbidden(tree: ast.AST, module: str = "any") -> Iterator[str]:
    """Describe each use of something that the package never uses."""
    for name in imports(tree):
        if name.startswith("."):
            yield f"a relative import, {name}"
        if name.endswith(".*"):
            yield f"a wildcard import, {name}"
        if name.split(".")[0] == "transformers" or name.startswith("pickle."):
            yield f"an import of {name}"
        if name.startswith("torch.nn.") and ready_made(name.split(".")[-1]):
            yield f"a ready-made {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ready_made(node.attr):
            yield f"a ready-made {ast.unparse(node)}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in {"eval", "exec"} or called.startswith("pickle."):
            yield f"a call of {called}, which can run code from a file"
        if called == "print" and module not in COMMAND_LINE:
            yield "a call of print"
        if "import_" in called and module != "__init__":
            yield f"a call of {called}, which hides what is imported"
        safe = any(
            ast.unparse(k) == "weights_only=True" for k in node.keywords
        )
        if called == "torch.load" and not safe:
            yield "torch.load without weights_only=True, which can run code"


def ready_made(name: str) -> bool:
    return name.startswith(("Transformer", "MultiheadAttention"))


def test_the_table_goes_one_way() -> None:
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("config") < order.index("layer") < order.index("model")


@every_file
def test_imports_keep_to_the_table(file: Path) -> None:
    """A new module must be in the table before it may import anything."""
    module = module_of(file)
    tree = ast.parse(file.read_text("utf-8"))
    assert not any(name.startswith("gpt2_book") for name in imports(tree))
    if module in DOORS:
        return
    assert own_imports(tree) - {module} <= MAY_IMPORT[module]


@every_file
def test_the_package_never_uses_what_is_forbidden(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"))
    assert list(forbidden(tree, module_of(file))) == []


def test_the_modules_of_the_model_are_found() -> None:
    """The tests above would pass if no file were found."""
    assert {"config", "attention", "layer", "model"} <= {
        module_of(file) for file in FILES
    }
    tree = ast.parse((PACKAGE / "layer.py").read_text("utf-8"))
    assert own_imports(tree) == {
        "attention",
        "cache",
        "config",
        "feed_forward",
        "layer_norm",
    }


@pytest.mark.parametrize(
    "source, found",
    [
        ("import gpt2.model", {"model"}),
        ("from gpt2.weights.hub import x", {"weights"}),
        ("from gpt2 import model as m, config", {"model", "config"}),
        ("def f():\n    from gpt2.model import GPT2", {"model"}),
        ("import gpt2", {"__init__"}),
        ("import torch, gpt2x.model", set()),
    ],
)
def test_imports_are_found(source: str, found: set[str]) -> None:
    assert own_imports(ast.parse(source)) == found


@pytest.mark.parametrize(
    "source",
    [
        "import transformers",
        "from transformers.models import gpt2",
        "pickle.load(file)",
        "pickle.Unpickler(file)",
        "from pickle import loads",
        "from .model import GPT2",
        "from gpt2.model import *",
        "nn.TransformerEncoderLayer(8, 2)",
        "torch.nn.MultiheadAttention",
        "from torch.nn import Transformer",
        "print('hello')",
        "importlib.import_module('gpt2.model')",
        "__import__('gpt2')",
        "eval('1 + 1')",
        "exec('x = 1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert len(list(forbidden(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "nn.Linear(2, 3)",
        "from gpt2.attention import MultiHeadAttention",
        "torch.load(path, weights_only=True)",
        "pprint(x)",
        "try: f()\nexcept pickle.UnpicklingError: pass",
    ],
)
def test_what_is_allowed_passes(source: str) -> None:
    assert not list(forbidden(ast.parse(source)))


def test_each_exception_applies_to_one_module() -> None:
    printing, late = ast.parse("print()"), ast.parse("import_module(name)")
    assert not list(forbidden(printing, "__main__"))
    assert not list(forbidden(printing, "commands"))
    assert not list(forbidden(late, "__init__"))
    assert list(forbidden(printing, "__init__"))
    assert list(forbidden(late, "__main__"))
