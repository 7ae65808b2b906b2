"""Compare the engine of the book's pages with others that run in a browser.

    make live

Every engine runs in a page of its own, all in one browser, on one thread, and
they take turns. They get the same weights and generate greedily; every token
is compared with those of the package. `--sizes` measures only some, and keeps
what is known of the others.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from playwright.sync_api import Page, sync_playwright
from safetensors.torch import save_file

import gpt2
from gpt2 import stories

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "book"))
import live_scripts  # noqa: E402  # it lies beside the notebooks

RESULTS = HERE / "results" / "live.json"
PACKAGES = {"onnxruntime-web": "1.30.0", "@huggingface/transformers": "4.3.1"}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
PROMPT = 20
# Name: tokens to generate, how often the prompt is run, rounds.
SIZES = {"story": (200, 10, 5), "gpt2": (24, 3, 5)}
# The kind of its page, and what is particular about it.
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "this book, bfloat16": ("book", {}),
    "this book, float32": ("book", {"dtype": torch.float32}),
    "this book, plain JavaScript": ("book", {"plain": True}),
    "onnxruntime-web": ("onnxruntime", {}),
    "transformers.js": ("transformers", {}),
}


def checkpoint(size: str) -> tuple[gpt2.GPT2, gpt2.Tokenizer]:
    """Return a model whose weights are bfloat16, and its tokenizer.

    The weights of a large one are random, but large enough that its text
    changes from token to token.
    """
    if size == "story":
        return gpt2.load("story", dtype="bfloat16")
    torch.manual_seed(0)
    model = gpt2.GPT2(gpt2.GPT2Config.from_name(size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(torch.bfloat16), gpt2.Tokenizer.bytes_only()


def install(folder: Path) -> Path:
    """Install the other engines with npm; return where they are."""
    modules = folder / "node_modules"
    if not modules.is_dir():
        names = [f"{name}@{version}" for name, version in PACKAGES.items()]
        options = ["--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(
            ["npm", "install", "--prefix", folder, *options, *names],
            check=True,
        )
    return modules


def write_site(site: Path, modules: Path, size: str) -> dict[str, Any]:
    """Write checkpoint, graphs and pages; return the prompt and its tokens."""
    from live_graph import write_graph  # it needs onnx

    model, tokenizer = checkpoint(size)
    for dtype in (torch.bfloat16, torch.float32):
        own = site / str(dtype)
        own.mkdir(parents=True)
        state = model.to(dtype).state_dict().items()
        whole = {name: tensor.contiguous() for name, tensor in state}
        save_file(whole, own / "model.safetensors")
        (own / "config.json").write_text(json.dumps(model.config.to_dict()))
        tokenizer.save(own)
    live_scripts.write(site / "live")
    write_graph(model, site / "graph.onnx")
    folder = site / "models" / "gpt2"
    write_graph(model, folder / "onnx" / "model.onnx", hugging_face=True)
    shutil.copy(own / "config.json", folder)
    rival = modules / "@huggingface" / "transformers"
    for target, sources in {
        "ort": [modules / "onnxruntime-web"],
        # It brings an onnxruntime-web of its own.
        "transformers": [rival, rival / "node_modules" / "onnxruntime-web"],
    }.items():
        for source in sources:
            shutil.copytree(source / "dist", site / target, dirs_exist_ok=True)
    scripts = {
        "book": '<script src="live/machine.js"></script>'
        '<script src="live/engine.js"></script><input type="file" multiple>',
        "onnxruntime": '<script src="ort/ort.wasm.min.js"></script>',
        "transformers": '<script type="module">'
        'import * as all from "./transformers/transformers.min.js";'
        "globalThis.transformers = all;</script>",
    }
    for kind, script in scripts.items():
        (site / f"{kind}.html").write_text(
            f'<!doctype html><meta charset="utf-8">{script}'
            '<script src="live.js"></script>'
        )
    shutil.copy(HERE / "live.js", site)
    generator = torch.Generator().manual_seed(1)
    length, *_ = SIZES[size]
    ids = torch.randint(model.config.n_vocab, (1, PROMPT), generator=generator)
    if size == "story":
        text = stories.sample(0)
        ids = torch.tensor([tokenizer.encode_prompt(text)[:PROMPT]])
    greedy = gpt2.Sampling(temperature=0)
    whole = gpt2.generate(model, ids, length, greedy)[0].tolist()
    return {"prompt": whole[:PROMPT], "tokens": whole[PROMPT:]}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and does not write down which."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder, which onnxruntime-web needs."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def opened(browser: Any, address: str, site: Path, name: str) -> Page:
    """Open the page of an engine, and load the model there."""
    kind, options = ENGINES[name]
    page: Page = browser.new_page()
    page.set_default_timeout(300_000)
    base = site.as_uri() if kind == "book" else address
    page.goto(f"{base}/{kind}.html")
    own = site / str(options.get("dtype", torch.bfloat16))
    if kind == "book":
        page.set_input_files("input", [*own.iterdir()])
    config = json.loads((own / "config.json").read_text())
    page.wait_for_function(
        "k => k !== 'transformers' || globalThis[k]", arg=kind
    )
    arguments = {
        "config": config,
        "graph": "graph.onnx",
        "models": f"{address}/models/",
        "name": "gpt2",
        "plain": options.get("plain", False),
    }
    page.evaluate("([k, o]) => openEngine(k, o)", [kind, arguments])
    return page


TOUCH = """async () => {
    let [last, gap] = [performance.now(), 0];
    const watch = setInterval(() => {
        gap = Math.max(gap, performance.now() - last);
        last = performance.now();
    }, 1);
    const began = performance.now();
    const machine = await GPT2.machine();
    const ready = performance.now() - began;
    await machine.predict(await machine.encodePrompt("Ella lost her"));
    const first = performance.now() - began;
    gap = Math.max(gap, performance.now() - last);
    clearInterval(watch);
    let [count, start] = [0, performance.now()];
    const options = {length: 200, end: false, seed: 1};
    for await (const token of machine.generate([0], options)) count++;
    const each = (performance.now() - start) / count;
    return {ready, first, gap, each};
}"""


def first_touch(browser: Any, site: Path) -> dict[str, float]:
    """Return how long a reader waits after touching a figure, in ms.

    `gap` is the longest time in which the page could not react.
    """
    (site / "touch.html").write_text(
        '<!doctype html><meta charset="utf-8"><script>'
        'globalThis.GPT2 = {root: "live/"}</script>'
        '<script src="live/machine.js"></script>'
    )
    found = []
    for _ in range(9):
        context = browser.new_context()
        page = context.new_page()
        page.goto((site / "touch.html").as_uri())
        found.append(page.evaluate(TOUCH))
        context.close()
    sent = ("machine.js", "engine.js", "story.js")
    size = sum((site / "live" / name).stat().st_size for name in sent)
    middle = {
        name: statistics.median(one[name] for one in found)
        for name in found[0]
    }
    return {**middle, "bytes": size}


def compare(site: Path, facts: dict[str, Any], size: str) -> dict[str, Any]:
    """Let the engines take turns; return what each of them needed."""
    length, repeats, rounds = SIZES[size]
    times: dict[str, dict[str, list[float]]] = {
        name: {"prompt": [], "token": []} for name in ENGINES
    }
    same = dict.fromkeys(ENGINES, True)
    with sync_playwright() as playwright, serving(site) as address:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        touch = first_touch(browser, site) if size == "story" else None
        pages = {
            name: opened(browser, address, site, name) for name in ENGINES
        }
        for turn in range(rounds + 1):  # the first one warms up
            print(f"{size}: round {turn} of {rounds}", file=sys.stderr)
            for name, page in pages.items():
                slow = "plain" in name and size != "story"
                found = page.evaluate(
                    "([p, n, r]) => measure(p, n, r)",
                    [facts["prompt"], 3 if slow else length, repeats],
                )
                tokens = found["tokens"]
                same[name] &= tokens == facts["tokens"][: len(tokens)]
                if turn:
                    times[name]["prompt"] += found["prompts"]
                    times[name]["token"].append(found["each"])
        opening = {
            name: page.evaluate("[seconds, loaded()]")
            for name, page in pages.items()
        }
        version = browser.version
        browser.close()
    engines = {
        name: {
            "prompt": statistics.median(one["prompt"]),
            "token": statistics.median(one["token"]),
            "range": [min(one["token"]), max(one["token"])],
            "same": same[name],
            "open": opening[name][0],
            "bytes": opening[name][1],
        }
        for name, one in times.items()
    }
    return {"browser": version, "touch": touch, "engines": engines}


def processor() -> str:
    """Return the name of this processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(x.split(": ")[1] for x in lines if x.startswith("model name"))


VERSIONS = dict(
    zip(("onnxruntime-web", "transformers.js"), PACKAGES.values(), strict=True)
)
NAMES = {"story": "The story model, 2.1M", "gpt2": "GPT-2 124M"}


def shown(number: float) -> str:
    """Write a number with three digits, or as a whole one."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def table(size: str, found: dict[str, Any]) -> str:
    """Write the table of one size in Markdown."""
    rows = [
        f"## {NAMES[size]}",
        "",
        "| engine | ms per token | range | tokens per second "
        f"| prompt of {PROMPT} tokens, ms | opened in, s | tokens |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["engines"].items():
        title = f"{name} {VERSIONS.get(name, '')}".strip()
        low, high = one["range"]
        rows.append(
            f"| {title} | {shown(one['token'])} | {shown(low)} to "
            f"{shown(high)} | {1000 / one['token']:,.0f} "
            f"| {shown(one['prompt'])} | {one['open']:.2f} "
            f"| {'same' if one['same'] else 'OTHERS'} |"
        )
    return "\n".join(rows) + "\n"


def report(results: dict[str, Any]) -> str:
    """Write the results in Markdown."""
    sizes = results["sizes"]
    parts = [
        "# The model in the page",
        "",
        f"Measured by `benchmarks/live.py` on {results['processor']}, in "
        f"Chromium {next(iter(sizes.values()))['browser']}, one thread. All "
        "engines have the same weights, which are bfloat16 numbers, and "
        "generate greedily; *same* says that all tokens were the package's. "
        "onnxruntime-web has fused attention, norms and GELU, and its output "
        "as `Gemm(transB)`; it and transformers.js compute in float32. The "
        "engines took turns; times are medians.",
        "",
    ]
    parts += [table(size, found) for size, found in sizes.items()]
    touch = sizes.get("story", {}).get("touch")
    if touch:
        parts.append(
            f"After the first touch of a figure, from `file://` (medians of "
            f"nine pages): the model is ready within {touch['ready']:.0f} "
            f"ms, and has predicted after {touch['first']:.0f} ms; "
            f"{touch['bytes'] / 1e6:.2f} MB are read; the longest time in "
            f"which the page could not react is {touch['gap']:.0f} ms. The "
            f"first 200 tokens that a figure generates, in a Worker, take "
            f"{touch['each']:.2f} ms each.\n"
        )
    return "\n".join(parts)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--npm", type=Path, default=HERE / "_live")
    options = parser.parse_args()
    modules = install(options.npm)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["processor"] = processor()
    sizes = results.setdefault("sizes", {})
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            site = Path(folder) / "site"
            facts = write_site(site, modules, size)
            sizes[size] = compare(site, facts, size)
        print(table(size, sizes[size]))
        results["sizes"] = {k: sizes[k] for k in SIZES if k in sizes}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(report(results))


if __name__ == "__main__":
    main()
