"""The tests of the live figures catch each of these mistakes.

Each breaks one place of a copy of the figures, and names a test of
`test_live_figures`, which must then fail in the browser; without any mistake,
the same tests must pass. The pages have nothing but the figures of the book.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import live_scripts
import pytest
import test_live_figures as figures
import test_site
from book_rules import BOOK, pages_of_the_toc
from mistakes.mutation import Mutation
from playwright.sync_api import Error, Page
from test_live_mutations import Mistake, Test, bound

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser
page, story = figures.page, figures.story

TAGS = re.compile(r"<gpt2-live .*?</gpt2-live>", re.DOTALL)
PATIENCE = 8_000  # milliseconds, for what a mistake may keep from happening

MISTAKES = [
    Mistake(
        "the bars do not know the temperature",
        "next-token.js",
        "{ k: 8, sampling: sampling() }",
        "{ k: 8 }",
        figures.test_next_token,
    ),
    Mistake(
        "the model does not read what was drawn",
        "next-token.js",
        "ids: [...typed.ids, ...drawn.map(({ id }) => id)]",
        "ids: typed.ids",
        figures.test_next_token,
    ),
    Mistake(
        "what was drawn stays when all starts over",
        "next-token.js",
        "    drawn = [];\n    update();",
        "    update();",
        figures.test_next_token,
    ),
    Mistake(
        "a button that does nothing: One back",
        "merges.js",
        "() => move(-1)",
        "() => move(0)",
        figures.test_merges,
    ),
    Mistake(
        "the wrong pair is named",
        "merges.js",
        "spelled(old[n + 1])",
        "spelled(old[n])",
        figures.test_merges,
    ),
    Mistake(
        "every position has the first one's row",
        "embeddings.js",
        "[place.value()]",
        "[0]",
        figures.test_embeddings,
    ),
    Mistake(
        "the temperature multiplies",
        "plane.js",
        "Math.max(...found)) / heat",
        "Math.max(...found)) * heat",
        figures.test_plane,
    ),
    Mistake(
        "no softmax: the powers are not divided by their sum",
        "plane.js",
        "power / all",
        "power",
        figures.test_plane,
    ),
    Mistake(
        "the layer is taken for the head",
        "threads.js",
        "      (head * T + query) * T,\n",
        "      (layer * T + query) * T,\n",
        figures.test_threads,
    ),
    Mistake(
        "the scissors cut in one head only",
        "threads.js",
        'reach.value() === "all" ? all : [[layer, head]]',
        "[[layer, head]]",
        figures.test_threads,
    ),
    Mistake(
        "what a head brings is not scaled as the final norm does",
        "heads.js",
        "(logits[v] - logits[V + v]) * scale",
        "logits[v] - logits[V + v]",
        figures.test_heads,
    ),
    Mistake(
        "the small pictures stay those of another text",
        "heads.js",
        "button.painted !== key",
        "!button.painted",
        figures.test_heads,
    ),
    Mistake(
        "the votes are on another token than is chosen",
        "stream.js",
        "await count(part, chosen)",
        "await count(part, last[0].id)",
        figures.test_stream,
    ),
    Mistake(
        "the last position votes, whichever is chosen",
        "stream.js",
        "ids.slice(0, t + 1)",
        "ids",
        figures.test_stream,
    ),
    Mistake(
        "top-k filters nothing",
        "sampling.js",
        "if (top_k.value() < 41) settings.top_k = top_k.value();",
        "",
        figures.test_sampling,
    ),
    Mistake(
        "the seed is forgotten",
        "sampling.js",
        ", seed: seed.value()",
        "",
        figures.test_a_seed_writes_the_same_text_again,
    ),
    Mistake(
        "the checker does not see the beginning",
        "sampling.js",
        "[beginning, ...drawn",
        "[...drawn",
        figures.test_the_checker_judges_what_is_written,
    ),
    Mistake(
        "the surprise is that of the next token but one",
        "training.js",
        "logits.subarray((t - 1) * V, t * V)",
        "logits.subarray(t * V, (t + 1) * V)",
        figures.test_training,
    ),
    Mistake(
        "what was measured of another list stays",
        "training.js",
        "      visited = [];\n",
        "",
        figures.test_training,
    ),
    Mistake(
        "a mean is taken for zeros",
        "ablation.js",
        "to: instead.value()",
        'to: "zero"',
        figures.test_ablation,
    ),
    Mistake(
        "a vector comes from the layer above",
        "patching.js",
        "edits(n_layer - row, at)",
        "edits(row, at)",
        figures.test_patching,
    ),
    Mistake(
        "the scores are not divided by the root of D",
        "whole.js",
        "(q[d] * k[d]) / Math.sqrt(D)",
        "q[d] * k[d]",
        figures.test_whole,
    ),
    Mistake(
        "a head's mix is taken from the first head",
        "whole.js",
        "(head.value() * now.ids.length + t) * D,",
        "t * D,",
        figures.test_whole,
    ),
    Mistake(
        "a button that does nothing: Back to the story model",
        "own-model.js",
        "() => take());",
        "() => {});",
        figures.test_your_own_model,
    ),
    Mistake(
        "the softmax is not divided by its sum",
        "kit.js",
        "power / sum",
        "power",
        figures.test_training,
    ),
    Mistake(
        "what is typed while an update runs is lost",
        "kit.js",
        "waiting = given;\n      running",
        "if (!running) waiting = given;\n      running",
        figures.test_next_token,
    ),
    Mistake(
        "a figure keeps the model that it had",
        "page.js",
        'machine?.addEventListener("model", () => this.draw(machine));',
        "",
        figures.test_your_own_model,
    ),
]


def write_site(folder: Path) -> Path:
    """Write the scripts, and pages with nothing but figures."""
    live_scripts.write(folder / "_static" / "live")
    (folder / "book").mkdir()
    for source in pages_of_the_toc():
        text = source.read_text("utf-8")
        if source.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
        (folder / "book" / f"{source.stem}.html").write_text(
            '<!doctype html><html data-content_root="../">'
            '<meta charset="utf-8"><title>Figures</title>'
            '<script defer src="../_static/live/figures/page.js"></script>'
            f"{''.join(TAGS.findall(text))}",
            "utf-8",
        )
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages without a mistake."""
    return write_site(tmp_path_factory.mktemp("site"))


def run(
    test: Test, site: Path, page: Page, story: Any, tmp_path: Path
) -> None:
    """Run a test of the figures on these pages."""
    given = {
        **{"page": page, "site": site, "story": story, "tmp_path": tmp_path},
        "woken": lambda figure: figures.wake(
            page, site, figures.HOME[figure], figure
        ),
    }
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    test(**{name: given[name] for name in inspect.signature(test).parameters})
    assert not errors


TESTS = {bound(mistake.test): mistake.test for mistake in MISTAKES}


@pytest.mark.parametrize("test", TESTS.values(), ids=bound)
def test_without_a_mistake_it_passes(
    test: Test, plain: Path, page: Page, story: Any, tmp_path: Path
) -> None:
    run(test, plain, page, story, tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_mistake_is_caught(
    mistake: Mistake, plain: Path, page: Page, story: Any, tmp_path: Path
) -> None:
    name, file, old, new, test = mistake
    broken = shutil.copytree(BOOK / "live" / "figures", tmp_path / "figures")
    Mutation(name, file, old, new, ()).apply(broken)
    page.route(
        f"**/figures/{file}", lambda route: route.fulfill(path=broken / file)
    )
    page.set_default_timeout(PATIENCE)
    with pytest.raises((AssertionError, Error)):
        run(test, plain, page, story, tmp_path)
    said = page.locator(".live-error").all_inner_texts()
    assert not any("is not" in text for text in said)  # a typing error
