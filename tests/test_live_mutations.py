"""The tests of the model in JavaScript catch each of these mistakes.

Each breaks one place of a copy of `book/live`, and names a test, which must
then fail in the browser; without any mistake, the same tests must pass.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import live_scripts
import pytest
import test_live
import test_machine
import test_site
import torch
from mistakes.mutation import Mutation
from playwright.sync_api import Error, Page

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser
story, tokenizer = test_machine.story, test_machine.tokenizer
ids, own = test_machine.ids, test_machine.own

Test = Callable[..., None]


class Mistake(NamedTuple):
    """In `file`, `old` becomes `new`; `test` must catch it."""

    name: str
    file: str
    old: str
    new: str
    test: Test


tiny = partial(test_live.test_tiny_models, kind=test_live.KINDS[0])
tiny_plain, tiny_fast = (
    partial(tiny, kernels=kernels) for kernels in ("plain", "relaxed")
)
erf = partial(
    test_live.test_tiny_models, kind=test_live.KINDS[1], kernels="plain"
)
halves = partial(
    test_live.test_tiny_models, kind=test_live.KINDS[3], kernels="relaxed"
)
cached = partial(test_live.test_the_cache_changes_nothing, kernels="plain")
greedy = partial(test_live.test_greedy_tokens, kernels="plain")
longer = partial(test_live.test_story_model, kernels="relaxed")
penalty = partial(test_live.test_filters, settings={"repetition_penalty": 1.7})
min_p = partial(test_live.test_filters, settings={"min_p": 1})
odd_bits = partial(
    test_machine.test_numbers_that_are_not_finite_bring_the_shipped_model_back,
    dtype=torch.bfloat16,
    at=3,
)
averaged = partial(test_machine.test_edits, name="mean")
too_many = partial(
    test_machine.test_wrong_files_are_refused_by_name,
    name="one token too many",
)

MISTAKES = [
    Mistake(
        "scores are divided by the root of C",
        "attention.js",
        "score / Math.sqrt(D)",
        "score / Math.sqrt(C)",
        tiny_plain,
    ),
    Mistake(
        "a query does not see its own position",
        "attention.js",
        "s <= S - T + t; s++) {\n          let score",
        "s < S - T + t; s++) {\n          let score",
        tiny_plain,
    ),
    Mistake(
        "a query after cached ones sees too little",
        "attention.js",
        "s <= S - T + t; s++) {\n          const weight",
        "s <= t; s++) {\n          const weight",
        cached,
    ),
    Mistake(
        "keys overwrite those in the cache",
        "attention.js",
        "(cache.past + t) * C",
        "t * C",
        cached,
    ),
    Mistake(
        "the softmax subtracts nothing",
        "attention.js",
        "Math.exp(numbers[i] - highest)",
        "Math.exp(numbers[i])",
        test_live.test_no_exponential_overflows,
    ),
    Mistake(
        "positions begin anew after the cache",
        "embeddings.js",
        "past + t",
        "t",
        cached,
    ),
    Mistake(
        "a map has no bias",
        "layer.js",
        "if (bias) out.set(bias);",
        "",
        tiny_plain,
    ),
    Mistake(
        "the norm has no epsilon",
        "layer.js",
        "variance + epsilon",
        "variance",
        tiny_plain,
    ),
    Mistake(
        "the error function is flat too early",
        "layer.js",
        "Math.abs(x) > 6",
        "Math.abs(x) > 1",
        erf,
    ),
    Mistake(
        "the first logits are taken for the last",
        "model.js",
        "x.subarray(-C)",
        "x.subarray(0, C)",
        greedy,
    ),
    Mistake(
        "every 64 tokens, positions begin anew",
        "model.js",
        "this.#stream(some, past + at, watch)",
        "this.#stream(some, past, watch)",
        longer,
    ),
    Mistake(
        "the first id after the last is allowed",
        "model.js",
        "id >= V",
        "id > V",
        test_live.test_tokens_that_do_not_fit_are_refused,
    ),
    Mistake(
        "a negative logit is divided by the penalty",
        "sampling.js",
        "scaled[id] *= penalty",
        "scaled[id] /= penalty",
        penalty,
    ),
    Mistake(
        "min-p drops what lies on its border",
        "sampling.js",
        "scaled[i] < lowest",
        "scaled[i] <= lowest",
        min_p,
    ),
    Mistake(
        "of equal numbers, one too many is taken",
        "sampling.js",
        "numbers[i] === limit && reached < target",
        "numbers[i] === limit && reached <= target",
        test_live.test_the_largest_are_found_in_order,
    ),
    Mistake(
        "another generator draws",
        "sampling.js",
        "mixed >>> 7",
        "mixed >>> 8",
        partial(
            test_live.test_the_generator_is_the_same_in_every_browser, seed=1
        ),
    ),
    Mistake(
        "a token is drawn beyond its share",
        "sampling.js",
        "number < 0",
        "number <= 0",
        test_live.test_where_one_token_ends_and_the_next_begins,
    ),
    Mistake(
        "the smallest float16 numbers are halved",
        "safetensors.js",
        "fraction * 2 ** -14",
        "fraction * 2 ** -15",
        partial(
            test_live.test_every_number_of_two_bytes,
            dtype=torch.float16,
        ),
    ),
    Mistake(
        "half-way numbers are rounded up",
        "safetensors.js",
        "0x7fff + ((bits[i] >>> 16) & 1)",
        "0x8000",
        test_live.test_rounding_to_bfloat16,
    ),
    Mistake(
        "a slice ends within a number",
        "safetensors.js",
        "to - at - ((to - at) % size)",
        "to - at",
        test_live.test_a_number_on_the_border_of_two_slices,
    ),
    Mistake(
        "every second bfloat16 number may be infinite",
        "weights.js",
        "i += isBrain ? 1 : 2",
        "i += 2",
        odd_bits,
    ),
    Mistake(
        "the last id has no row",
        "folder.js",
        "needed >= n_vocab",
        "needed > n_vocab",
        too_many,
    ),
    Mistake(
        "the rows of a table in bfloat16 change places",
        "wasm.js",
        "const LANES = [0, 2, 4, 6, 1, 3, 5, 7]",
        "const LANES = [0, 2, 4, 6, 1, 3, 7, 5]",
        halves,
    ),
    Mistake(
        "the second panel lies where the first does",
        "wasm.js",
        "(o - (o % PANEL)) * I + i * PANEL",
        "i * PANEL",
        tiny_fast,
    ),
    Mistake(
        "what is recorded after 64 tokens lies over the first",
        "watching.js",
        "(h * T + past + t) * D",
        "(h * T + t) * D",
        test_machine.test_everything_in_a_trace,
    ),
    Mistake(
        "a mean is one of too many",
        "watching.js",
        "edit.sums[i] / (position + 1)",
        "edit.sums[i] / (position + 2)",
        averaged,
    ),
    Mistake(
        "after 64 tokens another link is cut",
        "watching.js",
        "const t = query - past;",
        "const t = query % 64;",
        test_machine.test_a_cut_link,
    ),
    Mistake(
        "votes keep the mean that the norm takes away",
        "votes.js",
        "direction[c] -= mean",
        "direction[c] -= 0",
        test_machine.test_votes,
    ),
    Mistake(
        "a pair is joined only where it stands first",
        "tokenizer.js",
        "parts[i] === best[0] && parts[i + 1] === best[1]",
        "parts[i] === best[0] && parts[i + 1] === best[1] && !merged.at(-1)",
        test_machine.test_text_and_tokens,
    ),
    Mistake(
        "a byte order mark is lost",
        "tokenizer.js",
        '"utf-8", { ignoreBOM: true }',
        '"utf-8"',
        test_live.test_tokens_of_hostile_text,
    ),
    Mistake(
        "what was asked last is taken for known",
        "session.js",
        "Math.min(this.#known.length, ids.length - 1)",
        "Math.min(this.#known.length, ids.length)",
        test_machine.test_what_is_asked_again_is_answered_again,
    ),
    Mistake(
        "another run leaves its keys to the next",
        "session.js",
        "      this.#known = [];\n      const lastOnly",
        "      const lastOnly",
        test_machine.test_what_is_asked_again_is_answered_again,
    ),
    Mistake(
        "the innermost of files with one name counts",
        "machine.js",
        "depth(b) - depth(a)",
        "depth(a) - depth(b)",
        test_machine.test_of_files_with_one_name_the_outermost_counts,
    ),
    Mistake(
        "what was given up is begun all the same",
        "machine.js",
        "while (this.#waiting[0]?.signal?.aborted)",
        "while (false)",
        test_machine.test_what_is_given_up_is_not_begun,
    ),
]


def bound(test: Test) -> str:
    """The name of a test, with the arguments that are given here."""
    keywords = getattr(test, "keywords", {})
    name = getattr(test, "func", test).__name__
    return f"{name}-{'-'.join(map(str, keywords.values()))}"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A copy of the scripts."""
    return shutil.copytree(live_scripts.LIVE, tmp_path / "live")


@pytest.fixture
def check(
    live: Path,
    browser: Any,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[Test], None]]:
    """`check(test)` runs a test on the copy, in pages of its own."""
    errors: list[str] = []
    pages: list[Page] = []

    def open_page(path: Path) -> Page:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    def run(test: Test) -> None:
        names = set(inspect.signature(test).parameters)
        names -= set(getattr(test, "keywords", {}))
        given: dict[str, Any] = {}
        if inspect.getmodule(getattr(test, "func", test)) is test_live:
            path = tmp_path / "engine.html"
            path.write_text(test_live.page_of(live), "utf-8")
            given["blank"] = open_page(path)
            given["load"] = test_live.loader(given["blank"])
        else:
            monkeypatch.setattr(live_scripts, "LIVE", live)
            folder = test_machine.write_site(tmp_path_factory.mktemp("site"))
            given["blank"] = given["page"] = open_page(folder / "page.html")
            if "page" in names:
                given["page"].evaluate(test_machine.START)
        for name in names - set(given):
            given[name] = request.getfixturevalue(name)
        assert not errors  # a mistake, not a typing error
        test(**{name: given[name] for name in names})

    yield run
    for page in pages:
        page.close()


TESTS = {bound(mistake.test): mistake.test for mistake in MISTAKES}


@pytest.mark.parametrize("test", TESTS.values(), ids=bound)
def test_without_a_mistake_it_passes(
    test: Test, check: Callable[[Test], None]
) -> None:
    check(test)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_mistake_is_caught(
    mistake: Mistake, live: Path, check: Callable[[Test], None]
) -> None:
    name, file, old, new, test = mistake
    Mutation(name, file, old, new, ()).apply(live)
    caught = (AssertionError, Error, pytest.fail.Exception)
    with pytest.raises(caught) as found:
        check(test)
    assert "ReferenceError" not in str(found.value)
