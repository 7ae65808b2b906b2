"""The live figures in Firefox and WebKit: what they show in Chromium.

`apt-get install firefox-esr webkit2gtk-driver xvfb` brings both to Debian;
without them these tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_live_figures
import test_site
from other_browsers import Driven, Firefox, Missing, WebKit
from test_live_figures import PLACES

pytestmark = pytest.mark.xdist_group("site")

site, browser = test_site.site, test_site.browser
page = test_live_figures.page

# Wake a figure, type, move its sliders, and return all that it says.
TOUCH = """async figure => {
    const element = document.querySelector(`gpt2-live[figure="${figure}"]`);
    const pause = ms => new Promise(done => setTimeout(done, ms));
    while (!element.start) await pause(20);
    const button = element.start;
    button.click();
    while (!element.classList.contains("live-started")) {
        if (!button.disabled) throw new Error(element.said.textContent);
        await pause(20);
    }
    const type = (input, value) => {
        input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    };
    const body = element.querySelector(".live-body");
    for (const input of body.querySelectorAll("input[type=text]"))
        type(input, input.value.replace("Ella", "Hugo"));
    for (const input of body.querySelectorAll("input[type=range]"))
        type(input, Math.ceil((Number(input.min) + Number(input.max)) / 3));
    let now = "", before = null;
    while (now !== before) {
        await pause(700);
        [before, now] = [now, body.textContent];
    }
    const {worker, kernels} = (await GPT2.machine?.())?.info ?? {};
    const parts = body.querySelectorAll("th, td, p, li, .live-chip, option");
    const failed = body.querySelectorAll(".live-error").length;
    const said = Array.from(parts, part => part.textContent);
    return {worker, kernels, failed, said};
}"""
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
