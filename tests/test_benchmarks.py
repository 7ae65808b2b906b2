"""The report of the benchmark says what was measured.

What is timed here is only compared with what is impossible.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gpt2.inference.compiling import find_compiler

FOLDER = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((FOLDER / "results").glob("*-cores-*.json"))
COMPLETE = [
    path
    for path in RESULTS
    if "kept" not in json.loads(path.read_text())["machine"]
]
"""Without the runs of which only a part was kept."""


def load(name: str) -> ModuleType:
    """Import a script of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="module")
def imports() -> Iterator[None]:
    """Let the scripts import each other."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def report(imports: None) -> ModuleType:
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
    lines = report.speeds(engines).splitlines()
    assert "| gpt2 int8 | 1 | 50.0 | not run |" in lines[2]
    assert lines[2].endswith("| 3 | 5 | 50% |")
    assert lines[4].count("failed") == 5
    assert report.failures(engines) == (
        "- ctranslate2 int8_float32 ended with code 1"
    )
    assert "| gpt2 int8 | 50 |" in report.first_tokens(engines)
    ratios = report.ratios([engines])
    none = "|  |  |  |  |"
    row = f"| gpt2 int8 | llama.cpp Q8_0 | 2.00 {none} 1.00 {none}\n"
    assert row in ratios
    assert "| gpt2 int8 | ctranslate2 int8_float32 |  |  |" in ratios


def test_several_machines_are_a_range(report: ModuleType) -> None:
    slow = {"gpt2 int8": engine(0.01), "llama.cpp Q8_0": engine(0.02)}
    fast = {"gpt2 int8": engine(0.005), "llama.cpp Q8_0": engine(0.015)}
    ratios = report.ratios([slow, fast, {}])
    assert "| gpt2 int8 | llama.cpp Q8_0 | 2.00 to 3.00 |" in ratios
    third = {"openvino int8": engine(0.014)}
    leads = report.leads([slow, fast | third, {}])
    both = "llama.cpp Q8_0, openvino int8"
    assert f"| int8 | 2.00 to 2.80 ({both}) |  |" in leads
    assert "| 1.00 (llama.cpp Q8_0" in leads  # the time to the first token
    shown = report.readme([slow, fast])
    assert "| `gpt2`, packed |  |  | 100 to 200 |  |" in shown
    assert "| llama.cpp |  |  | 50 to 67 (Q8_0) |  |" in shown
    assert "OpenVINO" not in shown


def test_results_of_other_programs_are_not_a_machine(
    report: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "memory.json").write_text('{"gpt2": {}}')
    (tmp_path / "mine.json").write_text('{"machine": {"cores": "2"}}')
    report.write(tmp_path)
    shown = (tmp_path / "results.md").read_text("utf-8")
    assert "## mine" in shown and "gpt2" not in shown


def test_a_batch_counts_all_its_tokens(report: ModuleType) -> None:
    one = {"between": {"batch 8": [0.1]}}
    assert report.rate(one, "batch 8") == pytest.approx(80)


def test_the_spread_is_that_of_the_middle_half(report: ModuleType) -> None:
    assert report.spread([1.0, 2.0]) == ""
    assert report.spread([9.0, 10.0, 10.0, 10.0, 11.0]) == " ± 5%"


def test_the_tables_are_those_of_the_results(
    report: ModuleType, tmp_path: Path
) -> None:
    """And nothing is written into another folder."""
    for path in RESULTS:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = pictures_of_the_book()
    report.write(tmp_path)
    shown = (FOLDER / "results" / "results.md").read_text("utf-8")
    assert (tmp_path / "results.md").read_text("utf-8") == shown
    for path in RESULTS:
        kept = json.loads(path.read_text())
        for part, picture in (("generation", "speed"), ("scale", "cost")):
            drawn = tmp_path / f"{path.stem}-{picture}.svg"
            assert drawn.exists() == (part in kept)
            assert not drawn.exists() or drawn.stat().st_size > 10_000
    assert pictures_of_the_book() == before


def pictures_of_the_book() -> dict[str, int]:
    folder = FOLDER.parent / "book" / "_static"
    return {
        path.name: path.stat().st_mtime_ns for path in folder.glob("*.svg")
    }


def test_the_pictures_of_the_book_are_asked_for(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PICTURES", tmp_path)
    for path in RESULTS:
        command = ["report.py", "--book", path.stem]
        monkeypatch.setattr(sys, "argv", command)
        report.main()
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"speed.svg", "cost.svg"}


def step(**more: Any) -> dict[str, Any]:
    return {
        "size": "gpt2",
        "precision": "int4",
        "context": 128,
        "batch": 1,
        "seconds": 0.004,
        "bytes": 60_000_000,
        "bandwidth": 20e9,
        "operations": 800_000_000,
    } | more


def test_a_step_is_compared_with_the_slower_of_two_limits(
    report: ModuleType,
) -> None:
    scale = {
        "peak": {"float32": 1e11, "int8": 4e11},
        "products": {"float32": 2e11, "int8": None},
        "steps": [step(), step(operations=1_600_000_000)],
    }
    assert report.fastest_products(scale, "float32") == 2e11
    assert report.fastest_products(scale, "int4") == 4e11
    assert report.fastest_products(scale, "bfloat16") is None
    lines = report.cost(scale).splitlines()
    assert lines[2].endswith("| 4.0 | 20.0 | 3.0 | 2.0 | 75% |")
    assert lines[3].endswith("| 4.0 | 20.0 | 3.0 | 4.0 | 100% |")
    prompt = {
        **{"precision": "int8", "prompt": 512, "batch": 1, "seconds": 0.1},
        **{"operations": 2e10, "peak": 4e11, "products": 0.0},
    }
    assert report.reading([prompt]).endswith("| 100 | 200 | 50% |  |")


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
    # 32 weights of 4 bits share a scale of 16 bits.
    assert scale.bytes_read(config, "int4", 0, 1) == weights // 32 * 18


def test_what_reading_a_prompt_multiplies() -> None:
    """By hand: 3 tokens after 10 others, two sequences at a time."""
    from gpt2.config import GPT2Config

    scale = load("scale")
    config = GPT2Config(2048, 256, 192, n_head=4, n_layer=4)
    layers = 3 * 4 * 12 * 192**2
    attention = 4 * 2 * 192 * (11 + 12 + 13)
    logits = 2048 * 192
    assert scale.operations(config, 10, 3, 2) == (
        2 * 2 * (layers + attention + logits)
    )


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_the_results_are_complete(path: Path) -> None:
    results = json.loads(path.read_text())
    assert results.keys() >= {"machine", "generation", "start", "training"}
    ran = [n for n, one in results["generation"].items() if one["between"]]
    assert {name.split()[0] for name in ran} >= {
        "gpt2",
        "transformers",
        "ctranslate2",
        "llama.cpp",
    }


@pytest.mark.skipif(
    find_compiler() is None, reason="the probe needs a C compiler"
)
def test_the_probe_measures_finite_rates() -> None:
    probe = load("probe")
    for form in probe.forms(2):
        if form.distance in (0, 16):
            memory = probe.Memory(1 << 16, form.huge)
            rates = memory.rate(form, 2)
            assert len(rates) == 2
            assert all(0 < rate < 1e14 for rate in rates), form
    assert 0 < probe.peak("float32", 1) < 1e14
    assert 0 < probe.products("float32", 64) < 1e14


@pytest.mark.skipif(
    find_compiler() is None, reason="the probe needs a C compiler"
)
def test_the_fastest_forms_are_different_ones() -> None:
    best = load("probe").fastest_forms(1, n_bytes=1 << 16, best=2)
    assert len(set(best)) == 2
    assert "1 threads" in str(best[0])


def test_the_last_words_of_a_script_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load("run")
    (tmp_path / "fails.py").write_text(
        "import sys\nprint('first', file=sys.stderr)\nraise ValueError('no')"
    )
    monkeypatch.setattr(run, "HERE", tmp_path)
    process = run.Process("fails.py")
    assert process.ask({}) == {}
    assert process.failed == "ended with code 1: ValueError: no"
    process.stop()


def test_a_partial_run_keeps_the_rest() -> None:
    run = load("run")
    old = {
        "a": {"first": {"x": [1]}, "between": {"x": [2]}, "version": "1"},
        "b": {"first": {}, "between": {}},
    }
    new = {"a": {"first": {"y": [3]}, "between": {"y": [4]}, "version": "2"}}
    assert run.merged(old, new) == {
        "a": {
            "first": {"x": [1], "y": [3]},
            "between": {"x": [2], "y": [4]},
            "version": "2",
        },
        "b": old["b"],
    }
    assert run.merged({"a": [1]}, {"b": [2]}) == {"a": [1], "b": [2]}


def test_results_are_named_after_the_machine() -> None:
    facts = {
        "processor": "Some(R) CPU @ 2.0GHz",
        "generation": "cpu family 25 model 17",
        "instructions": "avx2 avx512_bf16",
        "cores": "2",
        "date": "2026-01-02",
    }
    name = load("run").machine_name(facts)
    assert name == (
        "some-r-cpu-2-0ghz-cpu-family-25-model-17-avx512-bf16-2-cores-"
        "2026-01-02"
    )


@pytest.mark.parametrize("kind", ["traced", "one step at a time"])
def test_the_graph_for_other_engines_is_gpt2(kind: str) -> None:
    from gpt2.config import GPT2Config
    from gpt2.model import GPT2

    graphs = load("graphs")
    torch.manual_seed(0)
    config = GPT2Config(17, 8, 12, n_head=3, n_layer=2)
    model = GPT2(config).eval().requires_grad_(False)
    traced = graphs.Traced(model)
    tokens = torch.randint(17, (2, 5))
    pieces = [tokens] if kind == "traced" else tokens.split(1, dim=1)
    past = [torch.zeros(2, 3, 0, 4) for _ in range(4)]
    logits, length = [], 0
    for piece in pieces:
        places = torch.arange(length, length + piece.size(1)).expand(2, -1)
        length += piece.size(1)
        mask = torch.ones(2, length, dtype=torch.long)
        out, *past = traced(piece, places, mask, torch.arange(2), past)
        logits.append(out)
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens))


def test_vocabularies_are_learned_from_a_text_of_any_size(
    tmp_path: Path,
) -> None:
    vocabulary = load("vocabulary")
    path = tmp_path / "text.txt"
    vocabulary.write_text(path, 200_000)
    assert 200_000 <= path.stat().st_size < 5_000_000
    assert path.read_text("utf-8").endswith("<|endoftext|>")
    found = {"gpt2": [(2.0, 3e6), (4.0, 5e6), (1.0, 4e6)]}
    size = path.stat().st_size / 1e6
    line = vocabulary.table(path, found)[-1]
    assert line == f"| gpt2 | 2.00 | {size / 2:.2f} | 4 |"
