"""The report of the benchmark says what was measured; nothing is timed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """Import a script of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return load("report")


def engine(*gaps: float, **more: Any) -> dict[str, Any]:
    times = {"prompt 128": list(gaps)} if gaps else {}
    return {
        "version": "1",
        "failed": "",
        "memory": {"now": 3_000_000, "peak": 5_000_000} if gaps else {},
        "first": {name: [0.05] for name in times},
        "between": times,
        "agrees": 0.5 if gaps else None,
    } | more


def test_rates_and_ratios(report: ModuleType) -> None:
    engines = {
        "gpt2 int8": engine(0.01, 0.02, 0.03),
        "llama.cpp Q8_0": engine(0.04),
        "ctranslate2 int8_float32": engine(failed="ended with code 1"),
    }
    assert report.rate(engines["gpt2 int8"], "prompt 128") == 50
    assert report.rate(engines["gpt2 int8"], "batch 8") is None
    lines = report.generation(engines).splitlines()
    assert "| 50.0 | 50 | not run |" in lines[2]
    assert lines[2].endswith("| 3 | 5 | 50% |")
    assert lines[4].count("ended with code 1") == 3
    ratios = report.ratios(engines)
    assert "| gpt2 int8 | llama.cpp Q8_0 | 2.00 |  |  | 1.00 |  |  |" in ratios
    assert (
        "| gpt2 int8 | ctranslate2 int8_float32 |  |  |  |  |  |  |" in ratios
    )


def test_a_batch_counts_all_its_tokens(report: ModuleType) -> None:
    one = {"between": {"batch 8": [0.1]}}
    assert report.rate(one, "batch 8") == pytest.approx(80)


def test_the_spread_is_that_of_the_middle_half(report: ModuleType) -> None:
    assert report.spread([1.0, 2.0]) == ""
    assert report.spread([9.0, 10.0, 10.0, 10.0, 11.0]) == " ± 5%"


def test_the_tables_are_those_of_the_results(
    report: ModuleType, tmp_path: Path
) -> None:
    results = FOLDER / "results" / "results.json"
    (tmp_path / "results.json").write_bytes(results.read_bytes())
    report.write(tmp_path, tmp_path)
    shown = (FOLDER / "results" / "results.md").read_text("utf-8")
    assert (tmp_path / "results.md").read_text("utf-8") == shown
    for picture in ("speed.png", "cost.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_the_table_of_the_page_is_that_of_its_results() -> None:
    live = load("live")
    results = json.loads((FOLDER / "results" / "live.json").read_text())
    shown = (FOLDER / "results" / "live.md").read_text("utf-8")
    assert live.report(results) == shown
    for found in results["sizes"].values():
        assert all(engine["same"] for engine in found["engines"].values())


def test_what_a_step_reads(tmp_path: Path) -> None:
    """By hand, for the story model: 4 layers of 12 C^2, and the table."""
    from gpt2.config import GPT2Config

    scale = load("scale")
    config = GPT2Config(2048, 256, 192, n_head=4, n_layer=4)
    weights = 4 * 12 * 192**2 + 2048 * 192
    cache = 2 * 4 * 192 * 10 * 2
    assert scale.bytes_read(config, "int8", 10, 1) == weights + cache
    assert scale.bytes_read(config, "bfloat16", 10, 3) == (
        2 * weights + 3 * cache
    )


def test_the_results_are_complete() -> None:
    results = json.loads((FOLDER / "results" / "results.json").read_text())
    assert results.keys() >= {
        "machine",
        "generation",
        "start",
        "training",
        "scale",
    }
    ran = [n for n, one in results["generation"].items() if one["between"]]
    assert {name.split()[0] for name in ran} == {
        "gpt2",
        "transformers",
        "ctranslate2",
        "llama.cpp",
    }
