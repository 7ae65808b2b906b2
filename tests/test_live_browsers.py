"""The live figures in Firefox and WebKit: what they show in Chromium.

`apt-get install firefox-esr webkit2gtk-driver xvfb` brings both to Debian;
without them these tests are skipped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_live_figures
import test_site
from other_browsers import Driven, Firefox, Missing, WebKit
from test_live_figures import PLACES

import gpt2

pytestmark = pytest.mark.xdist_group("site")

site, browser = test_site.site, test_site.browser
page = test_live_figures.page

WAKE = """
const pause = ms => new Promise(done => setTimeout(done, ms));
const wake = async figure => {
    const element = document.querySelector(`gpt2-live[figure="${figure}"]`);
    while (!element.start) await pause(20);
    const button = element.start;
    button.click();
    while (!element.classList.contains("live-started")) {
        if (!button.disabled) throw new Error(element.said.textContent);
        await pause(20);
    }
    return element;
};
"""
# Wake a figure, type, move its sliders, and return all that it says.
TOUCH = (
    f"async figure => {{ {WAKE}"
    + """
    const element = await wake(figure);
    const type = (input, value) => {
        input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    };
    const body = element.querySelector(".live-body");
    for (const input of body.querySelectorAll("input[type=text]"))
        type(input, input.value.replace("Ella", "Anna"));
    for (const input of body.querySelectorAll("input[type=range]"))
        type(input, Math.ceil((Number(input.min) + Number(input.max)) / 3));
    const machine = await GPT2.machine?.();
    let now = "";
    for (let same = 0; same < 4; same++) { // until nothing changes any more
        await pause(400);
        await machine?.encode("a"); // it may be slow
        if (now !== body.textContent) same = 0;
        now = body.textContent;
    }
    const {worker, kernels} = machine?.info ?? {};
    const parts = body.querySelectorAll("th, td, p, li, .live-chip, option");
    const failed = body.querySelectorAll(".live-error").length;
    const said = Array.from(parts, part => part.textContent);
    return {worker, kernels, failed, said};
}"""
)
NUMBER = re.compile("\u2212?\\d+(?:[.,]\\d+)*")


@pytest.fixture(scope="module", params=[Firefox, WebKit])
def other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driven]:
    try:
        other = request.param(tmp_path_factory.mktemp("profile"))
    except Missing as error:
        pytest.skip(str(error))
    yield other
    other.close()


def numbers(text: str) -> list[float]:
    return [
        float(number.replace("\u2212", "-").replace(",", ""))
        for number in NUMBER.findall(text)
    ]


@pytest.mark.parametrize(("name", "figure"), PLACES)
def test_it_shows_what_chromium_shows(
    name: str, figure: str, other: Driven, page: Any, site: Path
) -> None:
    url = (site / "book" / f"{name}.html").as_uri()
    page.goto(url)
    wanted = page.evaluate(TOUCH, figure)
    other.navigate(url)
    found = other.run(TOUCH, figure)
    assert not found["failed"] and not wanted["failed"]
    assert len(found["said"]) == len(wanted["said"]) > 10
    for ours, theirs in zip(found["said"], wanted["said"], strict=True):
        assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
        # Other instructions may round the last digit in another way.
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=0.11)


FITS = f"""async figure => {{
    const element = document.querySelector(`gpt2-live[figure="${{figure}}"]`);
    const page = document.documentElement;
    const beyond = page.scrollWidth - window.innerWidth;
    return [window.innerWidth, beyond, ({test_live_figures.OUTSIDE})(element)];
}}"""


@pytest.mark.parametrize(("name", "figure"), PLACES)
def test_it_fits_on_a_phone(
    name: str, figure: str, other: Driven, site: Path, tmp_path: Path
) -> None:
    url = (site / "book" / f"{name}.html").as_uri()
    other.navigate_narrow(url, test_site.PHONE["width"], tmp_path)
    found = other.run(TOUCH, figure)
    assert not found["failed"] and len(found["said"]) > 10
    width, beyond, outside = other.run(FITS, figure)
    assert width == test_site.PHONE["width"]
    assert beyond <= 0 and not outside


OPEN = (
    f"async files => {{ {WAKE}"
    + """
    const element = await wake("own-model");
    const find = query => element.querySelector(`.live-body ${query}`);
    const given = new DataTransfer();
    for (const [name, text] of Object.entries(files)) {
        const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        given.items.add(new File([bytes], name));
    }
    find("input").files = given.files;
    find("input").dispatchEvent(new Event("change"));
    while (find(".live-main").hidden) {
        if (find(".live-error")) throw new Error(element.innerText);
        await pause(20);
    }
    find(".live-main").click();
    const machine = await GPT2.machine();
    while (machine.info.name === "story") {
        if (find(".live-error")) throw new Error(element.innerText);
        await pause(20);
    }
    const ids = await machine.encodePrompt("kite drum");
    const {candidates} = await machine.predict(ids);
    return [machine.info.worker, candidates.map(c => [c.id, c.logit])];
}"""
)


def test_it_opens_a_model_of_the_reader(other: Driven, site: Path) -> None:
    folder = test_live_figures.PRETRAINED / "echo" / "step-3000"
    files = {
        path.name: base64.b64encode(path.read_bytes()).decode()
        for path in folder.iterdir()
    }
    other.navigate((site / "book" / "machine.html").as_uri())
    worker, found = other.run(OPEN, files)
    model, tokenizer = gpt2.load(folder)
    wanted = gpt2.predict(model, tokenizer, "kite drum").candidates
    assert worker
    assert [token for token, _ in found] == [c.id for c in wanted]
    assert [logit for _, logit in found] == pytest.approx(
        [c.logit for c in wanted], abs=1e-3
    )
