"""The live figures of the built book, in a real browser, against `gpt2`.

The pages are opened from files, without a server.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_site
import torch
from book_rules import BOOK, pages_of_the_toc
from playwright.sync_api import Locator, Page
from safetensors.torch import load_file, save_file
from torch import Tensor

import gpt2
from gpt2 import stories
from gpt2.evaluation.circuits import record_attention

pytestmark = pytest.mark.xdist_group("site")  # with the other reader of it

site = test_site.site
browser = test_site.browser

PRETRAINED = Path(gpt2.__file__).parent / "pretrained"
TAG = re.compile(r'<gpt2-live figure=\\?"([\w-]+)')
PLACES = [
    (page.stem, figure)
    for page in pages_of_the_toc()
    for figure in TAG.findall(page.read_text("utf-8"))
]
# Where the numbers of each figure are compared: the first page that has it.
HOME = {figure: page for page, figure in reversed(PLACES)}


def test_every_figure_is_somewhere() -> None:
    files = {path.stem for path in (BOOK / "live" / "figures").glob("*.js")}
    assert set(HOME) == files - {"kit", "page"}


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    page = browser.new_page(viewport=test_site.WIDE, reduced_motion="reduce")
    page.set_default_timeout(120_000)  # a machine may be busy with the rest
    yield page
    page.close()


def wake(page: Page, site: Path, name: str, figure: str) -> Locator:
    """Open a page, and touch its figure with the keyboard alone."""
    page.goto((site / "book" / f"{name}.html").as_uri(), wait_until="load")
    element = page.locator(f"gpt2-live[figure={figure}]")
    element.locator(".live-start").focus()
    page.keyboard.press("Enter")
    woken = page.locator(f"gpt2-live.live-started[figure={figure}]")
    woken.wait_for()
    return woken


Wake = Callable[[str], Locator]


@pytest.fixture
def woken(page: Page, site: Path) -> Wake:
    """`woken(figure)` opens the page of a figure, and touches it."""
    return lambda figure: wake(page, site, HOME[figure], figure)


@pytest.mark.parametrize("name", sorted({name for name, _ in PLACES}))
def test_nothing_is_loaded_before_the_touch(
    name: str, page: Page, site: Path
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "book" / f"{name}.html").as_uri(), wait_until="load")
    live = {url.partition("/_static/live/")[2] for url in asked} - {""}
    assert {url.partition("?")[0] for url in live} == {
        "figures/page.js",
        "figures/style.css",
    }
    script = page.locator("script[src*='live/figures/page.js']")
    assert script.evaluate("s => s.defer")
    assert (site / "_static/live/figures/page.js").stat().st_size < 6_000


def test_other_pages_load_nothing_of_it(site: Path) -> None:
    pages = {path.stem for path in pages_of_the_toc()}
    for name in pages - {name for name, _ in PLACES}:
        html = (site / "book" / f"{name}.html").read_text("utf-8")
        assert "_static/live" not in html


# What is wrong with a figure, in the size and colours that the page has.
AXE_RUN = """async figure => {
    const options = {resultTypes: ["violations"], preload: false};
    const {violations} = await axe.run(figure, options);
    return violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.html));
}"""


@pytest.mark.parametrize(("name", "figure"), PLACES)
def test_every_figure_is_sound(
    name: str, figure: str, page: Page, site: Path
) -> None:
    """It wakes by the keyboard, without an error, fits, and is accessible."""
    url = (site / "book" / f"{name}.html").as_uri()
    found = test_site.listen(page, url)
    element = wake(page, site, name, figure)
    assert page.evaluate("document.activeElement.closest('gpt2-live')")
    page.evaluate(test_site.AXE.read_text("utf-8"))
    for size in (test_site.WIDE, test_site.PHONE):
        for mode in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=mode)
            page.evaluate(test_site.NEXT_FRAME)
            where = f"{size['width']} px, {mode}: "
            if (beyond := page.evaluate(test_site.TOO_WIDE)) > 0:
                found.append(f"{where}scrolls sideways, by {beyond} px")
            handle = element.element_handle()
            found += [where + v for v in page.evaluate(AXE_RUN, handle)]
    found += element.locator(".live-error").all_inner_texts()
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "figure"), PLACES)
def test_without_scripts_the_still_stands_there(
    name: str, figure: str, browser: Any, site: Path
) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto((site / "book" / f"{name}.html").as_uri(), wait_until="load")
    element = page.locator(f"gpt2-live[figure={figure}]")
    said = element.inner_text()
    assert element.is_visible() and len(said) > 40
    if "figure above" in said:
        before = "xpath=preceding::figure[1]//*[@role='img']"
        assert element.locator(before).is_visible()
    page.close()


def test_on_paper_the_still_stands_there(woken: Wake, page: Page) -> None:
    element = woken("whole")
    picture = element.get_by_role("img", include_hidden=True).first
    assert picture.is_hidden() and element.locator(".live-body").is_visible()
    page.emulate_media(media="print")
    assert picture.is_visible()
    assert element.locator(".live-body").is_hidden()


# The numbers, against the model in Python.


@pytest.fixture(scope="module")
def story() -> Any:
    model, tokenizer = gpt2.load(PRETRAINED / "story")
    return model.float().requires_grad_(False), tokenizer


def prompt(story: Any, text: str) -> Tensor:
    return torch.tensor([story[1].encode_prompt(text)])


def percent(p: float) -> str:
    if 0 < p < 0.0005:
        return "< 0.1%"
    return "> 99.9%" if 0.9995 <= p < 1 else f"{100 * p:.1f}%"


def shown(text: str) -> str:
    return text.replace(" ", "␣").replace("\n", "↵")


def number(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\u2212")


def rows(element: Locator, caption: str) -> list[tuple[str, str]]:
    """The names and numbers of a table of bars."""
    table = element.locator("table", has_text=caption)
    names = table.locator("tbody th").all_inner_texts()
    numbers = table.locator("tbody .live-number").all_inner_texts()
    return list(zip(names, numbers, strict=True))


def guesses(story: Any, logits: Tensor, n: int) -> list[tuple[str, str]]:
    found = logits.softmax(-1).topk(n)
    texts = [story[1].decode([i]) for i in found.indices.tolist()]
    return [
        (shown(text), percent(p))
        for text, p in zip(texts, found.values.tolist(), strict=True)
    ]


def settled(element: Locator, text: str) -> None:
    """Wait until the figure says something."""
    element.locator(".live-body .live-status", has_text=text).wait_for()


def slide(element: Locator, label: str, value: float) -> None:
    element.get_by_label(label, exact=True).evaluate(
        """(input, value) => {
            input.value = value;
            input.dispatchEvent(new Event("input"));
        }""",
        value,
    )


def type_fast(element: Locator, label: str, *texts: str) -> None:
    """Type one text after the other, before anything can be computed."""
    element.get_by_label(label, exact=True).evaluate(
        """(input, texts) => {
            for (const text of texts) {
                input.value = text;
                input.dispatchEvent(new Event("input"));
            }
        }""",
        texts,
    )


def test_next_token(woken: Wake, page: Page, story: Any) -> None:
    element = woken("next-token")
    text = "Tom lost"
    type_fast(element, "The beginning of a text", "T", "Tom", "To", text)
    logits = story[0](prompt(story, text))[0, -1]
    expected = guesses(story, logits, 8)
    element.locator(".live-chip", has_text="␣lost").wait_for()
    element.locator(".live-chip", has_text="Tom").wait_for()
    table = element.locator("table", has_text="What comes next")
    assert rows(element, "What comes next")[:8] == expected
    widths = table.locator(".live-bar").evaluate_all(
        "bars => bars.map(bar => parseFloat(bar.style.width))"
    )
    shares = logits.softmax(-1).topk(8).values
    assert widths[:8] == pytest.approx((100 * shares).tolist(), abs=0.1)
    slide(element, "Temperature", 0)
    button = element.get_by_role("button", name="Roll the die")
    button.focus()
    for word in ("␣his", "␣red"):  # the likeliest, at temperature 0
        page.keyboard.press("Enter")
        settled(element, f"Drawn: {word}")
        assert rows(element, "What comes next")[0][1] == "100.0%"
    chips = element.locator(".live-chip")
    assert [chip.split("\n")[0] for chip in chips.all_inner_texts()] == [
        *("(end)", "Tom", "␣lost", "␣his", "␣red")
    ]
    element.get_by_role("button", name="Start over").press("Enter")
    chips.nth(3).wait_for(state="detached")
    element.get_by_role("button", name="Go on").press("Enter")
    settled(element, "(end)")  # a story ends
    assert element.locator(".live-chip").last.inner_text().startswith("(end)")


def test_merges(woken: Wake, page: Page, story: Any) -> None:
    element = woken("merges")
    text = "pianos and wheelbarrows"
    element.get_by_label("Any text").fill(text)
    settled(element, f"{len(text)} tokens")
    element.get_by_role("button", name="Merge a pair").press("Enter")
    settled(element, f"{len(text) - 1} tokens are left")
    said = element.locator(".live-body .live-status")
    pair = re.match(r"(\S+) and (\S+) become (\S+)\.", said.inner_text())
    assert pair and pair[1] + pair[2] == pair[3]
    element.get_by_role("button", name="One back").press("Enter")
    settled(element, f"{len(text)} tokens: every byte by itself")
    element.get_by_label("Merges made").press("End")
    ids = story[1].encode(text)
    settled(element, f"{len(ids)} tokens are left")
    assert element.locator(".live-chip").all_inner_texts() == [
        shown(story[1].decode([i])) for i in ids
    ]
    element.get_by_label("Merges made").press("Home")
    element.get_by_role("button", name="All of them").press("Enter")
    settled(element, f"{len(ids)} tokens are left")


def test_merges_of_another_vocabulary(woken: Wake) -> None:
    element = woken("merges")
    element.get_by_label("Any text").fill(" kettle umbrella")
    echo = PRETRAINED / "echo" / "step-0000"
    files = [str(echo / name) for name in ("vocab.json", "merges.txt")]
    element.locator("summary").press("Enter")
    element.locator("input[type=file]").set_input_files(files)
    element.get_by_label("Merges made").press("End")
    _, tokenizer = gpt2.load(echo)
    ids = tokenizer.encode(" kettle umbrella")
    assert len(ids) == 4  # two in the story model's vocabulary
    settled(element, "4 tokens are left")
    assert element.locator(".live-chip").all_inner_texts() == [
        shown(tokenizer.decode([i])) for i in ids
    ]
    wrong = [str(echo / "config.json")]
    element.locator("input[type=file]").set_input_files(wrong)
    element.locator(".live-error", has_text="vocab.json").wait_for()


def test_embeddings(woken: Wake, story: Any) -> None:
    element = woken("embeddings")
    model, tokenizer = story
    element.get_by_label("A word").fill(" Ella")
    (token,) = tokenizer.encode(" Ella")
    settled(element, f"token {token}.")
    slide(element, "At position", 5)
    slide(element, "One of its numbers", 100)
    a, b = model.wte.weight[token, 100], model.wpe.weight[5, 100]
    sums = " + ".join(number(float(n), 4) for n in (a, b))
    text = f"number 100: {sums} = {number(float(a + b), 4)}"
    element.locator(".live-sum", has_text=text).wait_for()
    alike = torch.cosine_similarity(
        model.wte.weight, model.wte.weight[[token]], dim=1
    )
    near = alike.topk(8)
    assert rows(element, "nearest") == [
        (shown(tokenizer.decode([i])), number(alike[i].item()))
        for i in near.indices.tolist()[1:]
    ]


def test_plane(woken: Wake, page: Page) -> None:
    element = woken("plane")
    keys = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, -2.0]])
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -1.0]])
    # With the keyboard first, then with the pointer.
    element.get_by_label("Query, upwards").press("ArrowRight")
    query = torch.tensor([-2.0, 0.6])
    for _ in range(2):
        scores = keys @ query / math.sqrt(2)
        weights = scores.softmax(0)
        mixed = [number(n) for n in (weights @ values).tolist()]
        settled(element, f"The mix is ({mixed[0]}, {mixed[1]}).")
        assert [n for _, n in rows(element, "Weights")] == [
            number(weight, 3) for weight in weights.tolist()
        ]
        box = element.locator(".live-plane").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 3)
        page.mouse.down()
        at = [box["x"] + box["width"] * 2 / 3, box["y"] + box["height"] / 3]
        page.mouse.move(*at)
        page.mouse.up()
        query = torch.tensor([1.0, 1.0])
    slide(element, "Temperature", -2)  # a quarter
    assert [n for _, n in rows(element, "Weights")] == [
        number(weight, 3) for weight in (4 * scores).softmax(0).tolist()
    ]


def cut_logits(
    story: Any, tokens: Tensor, layer: int | None = None, head: int = 0
) -> Tensor:
    """The logits if the last token may not look at token 1 in one head, or
    in all of them."""
    model = story[0]
    n = tokens.size(1)
    x = model.wte(tokens) + model.wpe(torch.arange(n))
    for d, block in enumerate(model.h):
        mask = torch.ones(n, n).tril().bool()
        mask = mask.repeat(model.config.n_head, 1, 1)
        if d == layer:
            mask[head, -1, 1] = False
        if layer is None:
            mask[:, -1, 1] = False
        x = block(x, mask)
    return (model.ln_f(x)[0, -1] @ model.wte.weight.T).detach()


def test_threads(woken: Wake, story: Any) -> None:
    element = woken("threads")
    tokens = prompt(story, "Tom lost")
    weights = record_attention(story[0], tokens)[:, 0, :, -1]
    numbers = element.locator(".live-thread .live-number")
    assert numbers.all_inner_texts() == [number(w, 3) for w in weights[1, 1]]
    before = story[0](tokens)[0, -1]
    assert rows(element, "What comes next") == guesses(story, before, 6)
    button = element.get_by_role("button", name="Cut the thread to Tom")
    button.press("Enter")
    settled(element, "1 cut")
    after = guesses(story, cut_logits(story, tokens, 1, 1), 6)
    found = rows(element, "What comes next")
    assert found[:5] == after[:5]  # the last may be what was first before
    assert found[0][0] == "␣her"
    element.get_by_label("Scissors cut").select_option("all")
    best = cut_logits(story, tokens).softmax(-1).max().item()
    settled(element, f"has {percent(best)}")
    button.press("Enter")
    settled(element, "0 cut")
    element.get_by_label("Head", exact=True).select_option("2.3")
    wanted = [number(w, 3) for w in weights[2, 3]]
    numbers.first.filter(has_text=wanted[0]).wait_for()
    assert numbers.all_inner_texts() == wanted


def test_heads(woken: Wake, story: Any) -> None:
    element = woken("heads")
    model, tokenizer = story
    tokens = prompt(story, "Ella lost her red kite.")
    weights = record_attention(model, tokens)[:, 0]
    element.get_by_role("button", name="Head 2.3").press("Enter")
    element.get_by_role("button", name="␣her").first.focus()
    settled(element, "␣her gives")
    cells = element.locator(".live-heat .live-cell").all_inner_texts()
    assert [text for text in cells if text != "hidden"] == [
        number(weights[2, 3, t, s].item())
        for t in range(7)
        for s in range(t + 1)
    ]
    # What it brings: its rows of c_proj, through the final norm's scale.
    joined: list[Tensor] = []
    hook = model.h[2].attn.c_proj.register_forward_pre_hook(
        lambda _, inputs: joined.append(inputs[0])
    )
    ends: list[Tensor] = []
    other = model.ln_f.register_forward_pre_hook(
        lambda _, inputs: ends.append(inputs[0])
    )
    model(tokens)
    hook.remove()
    other.remove()
    size = model.config.head_size
    columns = slice(3 * size, 4 * size)
    added = joined[0][0, 3, columns] @ model.h[2].attn.c_proj.weight[columns]
    end = ends[0][0, 3]
    scale = (end.var(correction=0) + model.ln_f.epsilon).sqrt()
    votes = model.unembed((added - added.mean()) / scale * model.ln_f.weight)
    for caption, sign in (("speaks for", 1), ("and against", -1)):
        best = (sign * votes).topk(5).indices.tolist()
        assert rows(element, caption) == [
            (shown(tokenizer.decode([i])), number(votes[i].item()))
            for i in best
        ]
    # The small pictures follow the text.
    element.get_by_label("A text").fill("Tom, who had a cold, lost")
    element.locator(".live-chip", has_text="␣cold").first.wait_for()
    tokens = prompt(story, "Tom, who had a cold, lost")
    picture = (
        element.locator("canvas")
        .nth(4 * 2 + 3)
        .evaluate(
            """canvas => Array.from(canvas.getContext("2d").getImageData(
            0, 0, canvas.width, canvas.height).data)"""
        )
    )
    weights = record_attention(model, tokens)[2, 0, 3].flatten()
    assert picture[3::4] == pytest.approx(
        (255 * weights.sqrt()).tolist(), abs=1
    )


def stages(story: Any, tokens: Tensor) -> Tensor:
    """The stream at the last position before each layer, and at the end."""
    model = story[0]
    x = model.wte(tokens) + model.wpe(torch.arange(tokens.size(1)))
    found = [x[0, -1]]
    for layer in model.h:
        x = layer(x)
        found.append(x[0, -1])
    return torch.stack(found)


def test_stream(woken: Wake, story: Any) -> None:
    element = woken("stream")
    model, tokenizer = story
    tokens = prompt(story, "Ella lost")
    stream = stages(story, tokens)
    guess = model.unembed(model.ln_f(stream)).softmax(-1).max(-1)
    cells = element.locator(".live-lens tbody td").all_inner_texts()
    assert cells == [
        text
        for p, i, x in zip(*guess, stream, strict=True)
        for text in (
            shown(tokenizer.decode([int(i)])),
            percent(p.item()),
            number(x.norm().item(), 0),
        )
    ]
    votes = [text for _, text in rows(element, "How the parts vote")]
    values = [float(text.replace("\u2212", "-")) for text in votes]
    logit = model(tokens)[0, -1].max().item()
    assert sum(values) == pytest.approx(logit, abs=0.05 * len(values))
    settled(element, number(logit))
    assert max(values) == values[9]  # feed-forward 3
    element.get_by_role("button", name="Ella").press("Enter")
    best = model(tokens)[0, 1].topk(3)
    settled(element, number(best.values[0].item()))
    third = str(best.indices[2].item())
    element.get_by_label("Votes for").select_option(third)
    settled(element, number(best.values[2].item()))


def test_sampling(woken: Wake, page: Page, story: Any) -> None:
    element = woken("sampling")
    model, tokenizer = story
    tokens = prompt(story, "Ella lost her")
    logits = model(tokens)[:, -1]

    def filtered(**settings: Any) -> Tensor:
        """Wait for as many tokens as the filters leave."""
        chances = gpt2.Sampling(**settings).filter(logits, tokens).softmax(-1)
        left = int((chances > 0).sum())
        settled(element, f"{left} of 1,440 tokens are left")
        return chances[0]

    for label, name, value, off in (
        ("Top-k", "top_k", 7, 41),
        ("Top-p", "top_p", 0.6, 1),
        ("Min-p", "min_p", 0.3, 0),
    ):
        slide(element, label, value)
        filtered(**{name: value})
        slide(element, label, off)
    slide(element, "Temperature", 1.5)
    slide(element, "Min-p", 0.3)
    chances = filtered(temperature=1.5, min_p=0.3)
    order = logits[0].topk(14).indices.tolist()
    assert rows(element, "In grey") == [
        (
            shown(tokenizer.decode([i])),
            percent(chances[i].item()) if chances[i] else "out",
        )
        for i in order
    ]
    slide(element, "Temperature", 0)
    element.get_by_role("button", name="Write a text").press("Enter")
    settled(element, "The checker accepts it")
    greedy = gpt2.Sampling(temperature=0)
    story_told = gpt2.complete(model, tokenizer, "Ella lost her", 150, greedy)
    chips = element.locator(".live-chip").all_inner_texts()
    assert "".join(chips) == shown("Ella lost her" + story_told)


def test_a_seed_writes_the_same_text_again(woken: Wake) -> None:
    element = woken("sampling")
    texts = []
    for seed in (3, 4, 3):
        slide(element, "Seed", seed)
        settled(element, "The checker")
        texts.append(element.locator(".live-chip").all_inner_texts())
    assert texts[0] == texts[2] != texts[1]


def test_the_checker_judges_what_is_written(woken: Wake) -> None:
    element = woken("sampling")
    verdict = element.locator(".live-body .live-status").last
    accepted = set()
    for seed in range(6):
        slide(element, "Temperature", 1 + seed % 2)
        slide(element, "Seed", seed)
        verdict.filter(has_text="The checker").wait_for()
        text = "".join(element.locator(".live-chip").all_inner_texts())
        wanted = stories.check(text.replace("␣", " ").replace("↵", "\n"))
        said = verdict.inner_text()
        assert ("accepts" in said) == bool(wanted)
        accepted.add(bool(wanted))
        if not wanted:
            assert f"in line {wanted.line}: " in said
            assert f"got “{wanted.found[:9]}" in said.replace("↵", "\n")
            assert f"expected “{wanted.expected[0][:9]}" in said
    assert accepted == {True, False}


def tellings(step: int, words: str) -> tuple[str, str, str]:
    """The surprise in both tellings of a list, and the induction score."""
    model, tokenizer = gpt2.load(PRETRAINED / "echo" / f"step-{step:04d}")
    model = model.float().requires_grad_(False)
    once = tokenizer.encode(f" {words}.")
    n = len(once)
    ids = torch.tensor([2 * once])[:, :-1]
    told = model(ids[:, :-1]).log_softmax(-1)
    surprise = -told[0].gather(-1, ids[0, 1:, None])[:, 0]
    weights = record_attention(model, ids[:, :-1])[:, 0]
    looks = weights.diagonal(1 - n, -2, -1)[..., 1:]  # at what came after
    score = looks.mean(-1).max().item()
    first, second = surprise[: n - 2].mean(), surprise[n:].mean()
    return number(first.item()), number(second.item()), number(score)


def test_training(woken: Wake, page: Page) -> None:
    element = woken("training")
    words = "kite drum goose owl hat key"

    def follows(step: int, words: str) -> float:
        first, second, score = tellings(step, words)
        settled(
            element,
            f"Step {step:,}: surprise {first} nats in the first telling, "
            f"{second} in the second; the best head's induction score is "
            f"{score}",
        )
        return float(second)

    found = {}
    for i, step in ((10, 3000), (0, 0), (8, 2000)):
        slide(element, "Training", i)
        found[step] = follows(step, words)
    assert found[3000] < 0.2 < 5 < found[0]
    circles = element.locator(".live-curve circle")
    assert circles.count() == 3
    line = element.locator(".live-curve path[data-color=surprise]")
    assert len(re.findall("[ML]", str(line.get_attribute("d")))) == 3
    field = element.get_by_label("A list of words")
    field.fill("owl hat kite drum")
    follows(2000, "owl hat kite drum")
    assert "L" not in str(line.get_attribute("d"))
    element.get_by_role("button", name="Let it learn").press("Enter")
    settled(element, "Step 200:")


def test_ablation(woken: Wake, story: Any) -> None:
    element = woken("ablation")
    model = story[0]
    tokens = prompt(story, "Tom, who had a cold, lost")
    size = model.config.head_size
    head = slice(size, 2 * size)

    def without(mean: bool) -> Tensor:
        """The last logits with zeros or a mean in the place of head 1.1."""

        def replace(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
            x = inputs[0].clone()
            so_far = torch.arange(1, 1 + x.size(1))[:, None]
            x[..., head] = x[..., head].cumsum(1) / so_far if mean else 0
            return (x,)

        hook = model.h[1].attn.c_proj.register_forward_pre_hook(replace)
        logits = model(tokens)[0, -1]
        hook.remove()
        return logits

    element.get_by_role("button", name="Switch off head 1.1").press("Enter")
    for mean in (False, True):
        if mean:
            element.get_by_label("In its place").select_option("mean")
        after = guesses(story, without(mean), 5)
        settled(element, f"1 switched off: {after[0][0]}, {after[0][1]}")
        assert rows(element, "What comes next")[:5] == after
    name = "Switch off feed-forward 3"
    element.get_by_role("button", name=name).press("Space")
    settled(element, "2 switched off")
    element.get_by_role("button", name="Switch all on again").press("Enter")
    settled(element, "All parts are there")
    expected = guesses(story, model(tokens)[0, -1], 6)
    assert rows(element, "What comes next") == expected


def test_patching(woken: Wake, story: Any) -> None:
    element = woken("patching")
    model = story[0]
    ella, tom = (
        prompt(story, f"{name}, who had a cold, lost")
        for name in ("Ella", "Tom")
    )
    her, his = (story[1].encode(word)[0] for word in (" her", " his"))

    def patched(stage: int | None = None, at: int = 0) -> Tensor:
        x, other = (
            model.wte(tokens) + model.wpe(torch.arange(tokens.size(1)))
            for tokens in (ella, tom)
        )
        for i, layer in enumerate([*model.h, None]):
            if i == stage:
                x[:, at] = other[:, at]
            if layer is not None:
                x, other = layer(x), layer(other)
        return model.unembed(model.ln_f(x))[0, -1]

    def ahead(stage: int | None = None, at: int = 0) -> float:
        logits = patched(stage, at)
        return float(logits[her] - logits[his])

    whole = (ahead(4, ella.size(1) - 1), ahead())
    expected = [
        number((whole[1] - ahead(stage, at)) / (whole[1] - whole[0]), 1)
        for stage in (4, 3, 2, 1, 0)
        for at in range(ella.size(1))
    ]
    settled(element, "With the other run's vector")
    cells = element.locator(".live-cell").all_inner_texts()
    assert cells == expected
    element.get_by_role("button", name="1 layer, Ella").press("Enter")
    ((best, share),) = guesses(story, patched(1, 1), 1)
    settled(element, f"at Ella after 1 layer: {best}, {share}.")


def test_whole(woken: Wake, page: Page, story: Any) -> None:
    element = woken("whole")
    model = story[0]
    tokens = prompt(story, "Ella lost her")
    weights = record_attention(model, tokens)[1, 0, 1]
    cells = element.locator(".live-cell").all_inner_texts()
    assert [text for text in cells if text != "hidden"] == [
        number(weights[t, s].item()) for t in range(4) for s in range(t + 1)
    ]
    rows_added = [model.wte(tokens), model.wpe(torch.arange(4))[None]]
    start = sum(rows_added)
    x = model.h[0](start)
    layer = model.h[1]
    first = layer.ln_1(x)
    found = layer.attn(first)
    parts = [part[0, 1] for part in layer.attn.project(first)]
    scores = parts[0] @ parts[1].T / math.sqrt(parts[0].size(-1))
    mixed = (weights[:4, :4] @ parts[2])[None]
    second = layer.ln_2(x + found)
    fired = layer.mlp.activation(layer.mlp.c_fc(second))
    added = layer.mlp(second)
    for name, n, vectors in (
        ("Embeddings", 0, [*rows_added, start]),
        ("Norm", 0, [first]),
        ("Query, key, value", 0, [p[:, 1] for p in layer.attn.project(first)]),
        ("Mix", 0, [mixed]),
        ("Attention adds", 0, [x, found, x + found]),
        ("Norm", 1, [second]),
        ("Neurons", 0, [fired]),
        ("Feed-forward adds", 0, [x + found, added, x + found + added]),
    ):
        stop = element.get_by_role("button", name=re.compile(f"^{name}"))
        stop.nth(n).press("Enter")
        slide(element, "One of the numbers", 17)
        seen = element.locator(".live-sum").inner_text()
        numbers = re.findall(r"(\u2212?\d+\.\d{4})", seen)
        wanted = [vector[0, -1, 17].item() for vector in vectors]
        values = [float(text.replace("\u2212", "-")) for text in numbers]
        assert values == pytest.approx(wanted, abs=2e-4)
        inside = element.locator(".live-panel")
        assert inside.get_by_role("link").get_attribute("href") is not None
    element.get_by_role("button", name="Scores").press("Enter")
    cells = element.locator(".live-cell").all_inner_texts()
    assert [text for text in cells if text != "hidden"] == [
        number(scores[t, s].item(), 1) for t in range(4) for s in range(t + 1)
    ]
    element.get_by_role("button", name="Probabilities").press("Enter")
    found_rows = rows(element, "After ␣her")
    assert found_rows == guesses(story, model(tokens)[0, -1], 10)
    element.get_by_role("button", name="Roll the die").press("Enter")
    element.locator(".live-chips button").nth(4).wait_for()
    value = element.get_by_label("Text", exact=True).input_value()
    assert re.fullmatch("Ella lost her.+", value)


def test_your_own_model(
    page: Page, site: Path, tmp_path: Path, story: Any
) -> None:
    """All woken figures of the page run on the opened checkpoint."""
    echo = PRETRAINED / "echo" / "step-3000"
    element = wake(page, site, "machine", "stream")
    own = page.locator("gpt2-live[figure=own-model]")
    own.locator(".live-start").press("Enter")
    own.get_by_text("run on story").wait_for()
    files = [str(path) for path in sorted(echo.iterdir())]
    own.locator("input[type=file]").set_input_files(files)
    own.get_by_text("of memory").wait_for()
    own.get_by_role("button", name="Open it", exact=True).press("Enter")
    element.locator(".live-lens tbody tr").nth(3).wait_for(state="detached")
    assert element.locator(".live-lens tbody tr").count() == 3
    model, tokenizer = gpt2.load(echo)
    tokens = torch.tensor([tokenizer.encode_prompt("Ella lost")])
    best = model.float()(tokens)[0, -1].softmax(-1).max().item()
    last = element.locator(".live-lens tbody tr").last
    assert percent(best) in last.inner_text()
    own.locator("tr", has_text="A token takes").wait_for()
    assert re.search(r"A token takes\s+(\d+|less than 1) ms", own.inner_text())
    own.get_by_role("button", name="Back to the story model").press("Enter")
    element.locator(".live-lens tbody tr").nth(4).wait_for()


def test_your_own_model_in_half_the_memory(
    page: Page, site: Path, tmp_path: Path, story: Any
) -> None:
    own = wake(page, site, "machine", "own-model")
    gpt2.save(*story, tmp_path / "float32")
    files = [str(path) for path in sorted((tmp_path / "float32").iterdir())]
    own.locator("input[type=file]").set_input_files(files)
    own.get_by_text("of memory; rounded to bfloat16").wait_for()
    said = own.locator(".live-body .live-status").inner_text()
    whole, half = map(int, re.findall(r"(\d+) MB", said))
    count = story[0].num_parameters()
    assert whole - half == pytest.approx(2 * count / 1e6, abs=1.1)
    half_button = own.get_by_role("button", name="Open it in bfloat16")
    half_button.press("Enter")
    own.get_by_text("run on your model").wait_for()
    memory = own.locator("tr", has_text="Memory").inner_text()
    assert int(re.findall(r"(\d+) MB", memory)[0]) == round(2 * count / 1e6)
    assert page.evaluate("document.activeElement.closest('gpt2-live')")
    files[:] = [str(path) for path in sorted((PRETRAINED / "story").iterdir())]
    own.locator("input[type=file]").set_input_files(files)  # bfloat16 itself
    own.get_by_text("of memory.").wait_for()
    assert half_button.is_hidden()


def test_what_went_wrong_is_still_said_when_the_shipped_model_is_back(
    page: Page, site: Path, tmp_path: Path
) -> None:
    own = wake(page, site, "machine", "own-model")
    model, tokenizer = gpt2.load(PRETRAINED / "echo" / "step-0000")
    gpt2.save(model, tokenizer, tmp_path / "wrong")
    path = tmp_path / "wrong" / "model.safetensors"
    state = load_file(path)
    state["h.1.ln_1.weight"][3] = float("nan")
    save_file(state, path)
    files = [str(path) for path in sorted((tmp_path / "wrong").iterdir())]
    own.locator("input[type=file]").set_input_files(files)
    own.get_by_text("of memory").wait_for()
    own.get_by_role("button", name="Open it", exact=True).press("Enter")
    own.locator(".live-error", has_text="h.1.ln_1.weight").wait_for()
    assert "story" in own.locator(".live-facts").inner_text()


def test_a_wrong_file_is_refused_by_name(
    page: Page, site: Path, tmp_path: Path
) -> None:
    own = wake(page, site, "machine", "own-model")
    shutil.copytree(PRETRAINED / "story", tmp_path / "wrong")
    config = tmp_path / "wrong" / "config.json"
    text = config.read_text().replace('"n_head": 4', '"n_head": 5')
    config.write_text(text)
    files = [str(path) for path in sorted((tmp_path / "wrong").iterdir())]
    own.locator("input[type=file]").set_input_files(files)
    own.locator(".live-error", has_text="n_head").wait_for()
    opening = own.get_by_role("button", name="Open it", include_hidden=True)
    assert [button.is_hidden() for button in opening.all()] == [True, True]
