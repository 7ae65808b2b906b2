"""The machine that the figures use, in a real browser, against `gpt2`.

The page lies beside the scripts that the book's build writes, and is opened
from a file; as on the site, it loads only `machine.js`.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import live_kernels
import live_scripts
import pytest
import test_site
import torch
from playwright.sync_api import Error, Page
from safetensors.torch import load_file, save_file
from test_live import KERNELS, KINDS, STORY, close, unpack, write_tiny
from torch import Tensor, nn

import gpt2
from gpt2.evaluation.circuits import record_attention
from gpt2.tokenizer.bpe import spell, split_text

pytestmark = pytest.mark.xdist_group("live")

browser = test_site.browser

HELPERS = """
const pack = numbers => {
    const bytes = new Uint8Array(Float32Array.from(numbers).buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192)
        text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
};
const all = async iterator => {
    const found = [];
    for await (const one of iterator) found.push(one);
    return found;
};
const files = () => document.querySelector("input").files;
"""
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the build writes, and a page."""
    return write_site(tmp_path_factory.mktemp("site"))


START = "async () => { globalThis.machine = await GPT2.machine(); }"


def write_site(folder: Path) -> Path:
    live_scripts.write(folder / "_static" / "live")
    (folder / "page.html").write_text(
        '<!doctype html><html data-content_root=""><meta charset="utf-8">'
        '<script src="_static/live/machine.js"></script>'
        f'<input type="file" multiple><script>{HELPERS}</script>'
    )
    return folder


@pytest.fixture
def blank(browser: Any, site: Path) -> Iterator[Page]:
    """A page that has loaded nothing yet."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto((site / "page.html").as_uri())
    yield page
    page.close()


@pytest.fixture(scope="module")
def page(browser: Any, site: Path) -> Iterator[Page]:
    """A page with the story model, `machine`."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto((site / "page.html").as_uri())
    page.evaluate(START)
    yield page
    page.close()


@pytest.fixture(scope="module")
def story() -> gpt2.GPT2:
    return gpt2.load_model(STORY, dtype=torch.float32).requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer() -> gpt2.Tokenizer:
    return gpt2.Tokenizer.load(STORY)


@pytest.fixture(scope="module")
def ids(tokenizer: gpt2.Tokenizer) -> list[int]:
    return tokenizer.encode_prompt("Ella, who had a cold, lost")


def test_nothing_is_loaded_before_it_is_asked_for(
    browser: Any, site: Path
) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "page.html").as_uri())
    page.wait_for_timeout(200)
    assert [Path(url).name for url in asked] == ["page.html", "machine.js"]
    page.evaluate("Promise.all([GPT2.machine(), GPT2.machine()])")
    found = {Path(url).name for url in asked if not url.startswith("blob:")}
    assert found == {"page.html", "machine.js", "engine.js", "story.js"}
    assert all(url.startswith(("file:", "blob:")) for url in asked)
    page.close()
    sent = [site / "_static" / "live" / name for name in found & set(SENT)]
    assert sum(path.stat().st_size for path in sent) < 6_000_000


SENT = ("machine.js", "engine.js", "story.js")


def test_all_calls_share_one_machine_in_a_worker(page: Page) -> None:
    info, same = page.evaluate(
        "async () => [machine.info, machine === await GPT2.machine()]"
    )
    assert same
    assert info["worker"] and info["kernels"] == "relaxed"
    assert info["name"] == "story" and info["parameters"] == 2_105_472
    assert info["config"]["n_layer"] == 4
    assert info["tokenizer"] == {
        "n_vocab": 1440,
        "start": 1439,
        "end": 1439,
        "added": ["<|endoftext|>"],
    }
    assert info["bytes"] < 2.1 * info["parameters"]  # bfloat16


NO_WORKERS = {
    "missing": "globalThis.Worker = undefined",
    "refused": "globalThis.Worker = class { constructor() { throw 1 } }",
    "forbidden": """const policy = document.createElement("meta");
        policy.httpEquiv = "Content-Security-Policy";
        policy.content = "worker-src 'none'";
        document.head.append(policy)""",
}


@pytest.mark.parametrize("how", NO_WORKERS)
def test_the_page_computes_where_there_are_no_workers(
    how: str, blank: Page, story: gpt2.GPT2, ids: list[int]
) -> None:
    blank.evaluate(f"() => {{ {NO_WORKERS[how]} }}")
    info, logits = blank.evaluate(
        """async ids => {
            const machine = await GPT2.machine();
            return [machine.info, pack((await machine.run(ids)).last)];
        }""",
        ids,
    )
    assert not info["worker"]
    close(unpack(logits), story(torch.tensor([ids]))[0, -1])


def test_text_and_tokens(page: Page, tokenizer: gpt2.Tokenizer) -> None:
    text = "Ella lost 😀<|endoftext|>"
    found = page.evaluate(
        """async text => {
            const ids = await machine.encode(text);
            return [ids, await machine.encode(text, {special: true}),
                    await machine.encodePrompt(text),
                    await machine.decode(ids), await machine.texts(ids),
                    await machine.spell(ids), await machine.split(text),
                    await machine.steps(" lost")];
        }""",
        text,
    )
    ids = tokenizer.encode(text)
    assert found[0] == ids
    assert found[1] == tokenizer.encode(text, allow_special=True)
    assert found[2] == tokenizer.encode_prompt(text)
    assert found[3] == text
    assert found[4] == [tokenizer.decode([i]) for i in ids]
    spelled = [spell(tokenizer.token_bytes(i)) for i in ids]
    assert found[5] == spelled
    assert found[6] == split_text(text)
    assert found[7][0] == ["Ġ", "l", "o", "s", "t"]
    assert found[7][-1] == ["Ġlost"]


SAMPLINGS: list[dict[str, float]] = [
    {},
    {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_predictions(
    sampling: Any,
    page: Page,
    story: gpt2.GPT2,
    tokenizer: gpt2.Tokenizer,
) -> None:
    text = "Ella, who had a cold, lost"
    wanted = gpt2.predict(
        story, tokenizer, text, 5, gpt2.Sampling(**sampling)
    ).candidates
    found = page.evaluate(
        """async ([text, sampling]) => machine.predict(
            await machine.encodePrompt(text), {k: 5, sampling})""",
        [text, sampling],
    )["candidates"]
    assert [c["id"] for c in found] == [c.id for c in wanted]
    assert [c["text"] for c in found] == [c.text for c in wanted]
    for name in ("logit", "probability", "chance"):
        numbers = [c[name] for c in found]
        expected = [getattr(c, name) for c in wanted]
        assert numbers == pytest.approx(expected, abs=1e-4)


def test_what_is_asked_again_is_answered_again(page: Page) -> None:
    """Keys and values that are in the cache are not computed again."""
    once, again, less = page.evaluate(
        """async () => {
            const found = [];
            for (const ids of [[1439, 5, 6, 7], [1439, 5, 6, 7], [1439, 5]])
                found.push((await machine.predict(ids)).candidates);
            return found;
        }"""
    )
    alone = page.evaluate(
        """async () => {
            await machine.run([3]); // the cache has nothing of it now
            return (await machine.predict([1439, 5])).candidates;
        }"""
    )
    for seen, wanted in ((again, once), (less, alone)):
        for one, other in zip(seen, wanted, strict=True):
            assert one["id"] == other["id"]
            assert one["logit"] == pytest.approx(other["logit"], abs=1e-4)


def test_the_pace(page: Page) -> None:
    assert 0 <= page.evaluate("machine.pace()") < 1000


# What is recorded, and what PyTorch says of it.
RECORD = [
    *("logits", "stream", "weights", "query", "key", "value", "mixed"),
    *("heads", "attention", "feedForward"),
]
RUN = """async ([ids, record, edits]) => {
    const trace = await machine.run(ids, {record, edits});
    const packed = {last: pack(trace.last)};
    for (const name of record)
        packed[name] = name === "logits" ? [pack(trace.logits)]
            : trace[name].map(pack);
    return packed;
}"""


def caught(model: gpt2.GPT2, ids: list[int]) -> dict[str, list[Tensor]]:
    """Catch the same with PyTorch's hooks."""
    found: dict[str, list[Tensor]] = {name: [] for name in RECORD}
    hooks = []

    def see(module: nn.Module, name: str, before: bool = False) -> None:
        def hook(module: Any, inputs: Any, out: Any = None) -> None:
            found[name].append((inputs[0] if before else out)[0])

        register = (
            module.register_forward_pre_hook
            if before
            else module.register_forward_hook
        )
        hooks.append(register(hook))

    see(model.h[0], "stream", before=True)
    for layer in model.h:
        see(layer, "stream")
        see(layer.attn.c_proj, "mixed", before=True)
        see(layer.attn, "attention")
        see(layer.mlp, "feedForward")
        see(layer.attn.c_attn, "query")
    found["logits"] = [model(torch.tensor([ids]))[0]]
    for hook in hooks:
        hook.remove()
    H = model.config.n_head
    thirds = [
        qkv.unflatten(-1, (3, H, -1)).permute(1, 2, 0, 3)  # (3, H, T, D)
        for qkv in found["query"]
    ]
    for i, name in enumerate(("query", "key", "value")):
        found[name] = [third[i] for third in thirds]
    found["mixed"] = [
        x.unflatten(-1, (H, -1)).transpose(0, 1) for x in found["mixed"]
    ]
    for layer, mixed in zip(model.h, found["mixed"], strict=True):
        rows = layer.attn.c_proj.weight.unflatten(0, (H, -1))  # (H, D, C)
        found["heads"].append(mixed @ rows)
    recorded = record_attention(model, torch.tensor([ids]))
    found["weights"] = list(recorded[:, 0])
    return found


def test_everything_in_a_trace(
    page: Page, story: gpt2.GPT2, ids: list[int]
) -> None:
    # 64 go through the layers at once, and 256 is the most.
    longer = (torch.randint(1440, (n,)).tolist() for n in (90, 256))
    for tokens in (ids, *longer):
        found = page.evaluate(RUN, [tokens, RECORD, []])
        wanted = caught(story, tokens)
        close(unpack(found["last"]), wanted["logits"][0][-1])
        for name in RECORD:
            for ours, theirs in zip(found[name], wanted[name], strict=True):
                close(unpack(ours), theirs.flatten())


def edited(
    model: gpt2.GPT2, ids: list[int], changes: dict[nn.Module, Any]
) -> Tensor:
    """The logits of a run in which some inputs or outputs are changed.

    A change takes the output of its module, or the input of a `c_proj`.
    """

    def hook(change: Any) -> tuple[Any, Any]:
        return (
            lambda module, inputs: (change(inputs[0].clone()), *inputs[1:]),
            lambda module, inputs, out: change(out.clone()),
        )

    hooks = []
    maps = {layer.attn.c_proj for layer in model.h} | {*model.h, model.ln_f}
    for module, change in changes.items():
        before, after = hook(change)
        hooks.append(
            module.register_forward_pre_hook(before)
            if module in maps
            else module.register_forward_hook(after)
        )
    try:
        return model(torch.tensor([ids]))[0]
    finally:
        for one in hooks:
            one.remove()


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def zero_head(x: Tensor) -> Tensor:
    x[..., 48:96] = 0  # head 1 of four
    return x


def mean_so_far(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.size(1) + 1)[:, None]


def zero_at_3(x: Tensor) -> Tensor:
    x[:, 3] = 0
    return x


EDITS: dict[str, tuple[dict[str, Any], Callable[[Any], Any], Any]] = {
    "head": (
        {"part": "head", "layer": 1, "head": 1},
        lambda m: m.h[1].attn.c_proj,
        zero_head,
    ),
    "attention": (
        {"part": "attention", "layer": 2, "to": "zero"},
        lambda m: m.h[2].attn,
        zero,
    ),
    "mean": (
        {"part": "feedForward", "layer": 0, "to": "mean"},
        lambda m: m.h[0].mlp,
        mean_so_far,
    ),
    "one position": (
        {"part": "stream", "layer": 1, "to": "zero", "positions": [3]},
        lambda m: m.h[1],
        zero_at_3,
    ),
    "the end": (
        {"part": "stream", "layer": 4, "to": "zero"},
        lambda m: m.ln_f,
        zero,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits(
    name: str, page: Page, story: gpt2.GPT2, ids: list[int]
) -> None:
    edit, module, change = EDITS[name]
    long = [*ids, *torch.randint(1440, (70,)).tolist()]
    for tokens in (ids, long):
        found = page.evaluate(RUN, [tokens, ["logits"], [edit]])
        wanted = edited(story, tokens, {module(story): change})
        plain = story(torch.tensor([tokens]))[0]
        assert not torch.allclose(wanted, plain, atol=1e-2)
        close(unpack(found["logits"][0]), wanted.flatten())


def test_a_cut_link(page: Page, story: gpt2.GPT2, ids: list[int]) -> None:
    """Attention after a cut: the others get the weight, in proportion."""
    edit = {"part": "link", "layer": 1, "head": 1, "query": 8, "key": 1}
    found = page.evaluate(RUN, [ids, ["weights", "logits"], [edit]])
    T = len(ids)
    cut = unpack(found["weights"][1]).view(4, T, T)
    whole = caught(story, ids)["weights"][1].clone()
    whole[1, 8, 1] = 0
    whole[1, 8] /= whole[1, 8].sum()
    close(cut, whole)
    assert found["logits"] != page.evaluate(RUN, [ids, ["logits"], []])
    every = [{**edit, "query": 0, "key": 0}]
    alone = page.evaluate(RUN, [ids, ["weights", "logits"], every])
    assert unpack(alone["weights"][1]).view(4, T, T)[1, 0].sum() == 0
    assert unpack(alone["logits"][0]).isfinite().all()
    # 64 go through the layers at once.
    longer = [*ids, *torch.randint(1440, (61,)).tolist()]
    far = {**edit, "query": 68, "key": 2}
    found = page.evaluate(RUN, [longer, ["weights"], [far]])
    whole = caught(story, longer)["weights"][1].clone()
    whole[1, 68, 2] = 0
    whole[1, 68] /= whole[1, 68].sum()
    close(unpack(found["weights"][1]), whole.flatten())


def test_patches(page: Page, story: gpt2.GPT2, tokenizer: Any) -> None:
    """Tom's stream in Ella's run, as in Chapter 15; and two at once."""
    ella, tom, ben = (
        tokenizer.encode_prompt(f"{name}, who had a cold, lost")
        for name in ("Ella", "Tom", "Ben")
    )
    assert len(ella) == len(tom) == len(ben)
    found = page.evaluate(
        """async ([ella, tom, ben]) => {
            const record = ["stream", "mixed"];
            const trace = await machine.run(tom, {record});
            const other = await machine.run(ben, {record});
            const run = async edits =>
                pack((await machine.run(ella, {edits})).last);
            const at = {part: "stream", layer: 1, positions: [1]};
            const head = {part: "head", layer: 1, head: 1};
            return [await run([{...at, to: trace}]),
                    await run([{...head, to: [trace, other]}]),
                    await run([{...head, to: trace}])];
        }""",
        [ella, tom, ben],
    )
    streams = [caught(story, ids) for ids in (tom, ben)]

    def stream(x: Tensor) -> Tensor:
        x[:, 1] = streams[0]["stream"][1][1]
        return x

    def head(n: int) -> Callable[[Tensor], Tensor]:
        def change(x: Tensor) -> Tensor:
            mixed = [one["mixed"][1][1] for one in streams[:n]]
            x[0, :, 48:96] = torch.stack(mixed).mean(0)
            return x

        return change

    proj = story.h[1].attn.c_proj
    for ours, changes in zip(
        found,
        ({story.h[1]: stream}, {proj: head(2)}, {proj: head(1)}),
        strict=True,
    ):
        close(unpack(ours), edited(story, ella, changes)[-1])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"part": "heads", "layer": 0}, "part"),
        ({"part": "head", "layer": 4, "head": 0}, "layer"),
        ({"part": "head", "layer": 0, "head": 4}, "head"),
        ({"part": "attention", "layer": 0, "to": "one"}, "to must"),
        ({"part": "attention", "layer": 0, "to": {"ids": []}}, "record it"),
    ],
    ids=str,
)
def test_odd_edits_are_refused(edit: Any, message: str, page: Page) -> None:
    with pytest.raises(Error, match=message):
        page.evaluate("edits => machine.run([1, 2], {edits})", [edit])
    with pytest.raises(Error, match="record may have"):
        page.evaluate("() => machine.run([1], {record: ['all']})")


def test_a_trace_too_short_to_patch_is_refused(page: Page) -> None:
    with pytest.raises(Error, match="no position 2"):
        page.evaluate(
            """async () => {
                const to = await machine.run([1, 2], {record: ["stream"]});
                return machine.run([1, 2, 3],
                    {edits: [{part: "stream", layer: 0, to}]});
            }"""
        )


def test_votes(page: Page, story: gpt2.GPT2, ids: list[int]) -> None:
    her, his = 9, 12
    for against, position in ((None, None), (his, None), (his, 4)):
        found = page.evaluate(
            """([ids, id, against, position]) => machine.votes(ids, {
                id, against: against ?? undefined,
                position: position ?? undefined})""",
            [ids, her, against, position],
        )
        at = len(ids) - 1 if position is None else position
        traced = caught(story, ids)
        wanted = traced["logits"][0][at, her]
        direction = story.wte.weight[her]
        if against is not None:
            wanted = wanted - traced["logits"][0][at, against]
            direction = direction - story.wte.weight[against]
        assert found["total"] == pytest.approx(float(wanted), abs=1e-3)
        end = traced["stream"][-1][at]
        scale = (end.var(correction=0) + 1e-5).sqrt()
        heads = torch.stack(traced["heads"])[:, :, at]  # (L, H, C)
        heads = heads - heads.mean(-1, keepdim=True)
        votes = (heads * story.ln_f.weight) @ direction / scale
        close(torch.tensor(found["heads"]), votes)
        assert len(found["feedForward"]) == len(found["bias"]) == 4


def test_vectors_and_neighbours(page: Page, story: gpt2.GPT2) -> None:
    rows, places, near = page.evaluate(
        """async () => {
            const row = await machine.vectors("token", [7]);
            return [pack(await machine.vectors("token", [7, 1439, 0])),
                    pack(await machine.vectors("position")),
                    await machine.nearest(row, {k: 4})];
        }"""
    )
    table = story.wte.weight
    close(unpack(rows), table[[7, 1439, 0]].flatten())
    close(unpack(places), story.wpe.weight.flatten())
    cosines = torch.cosine_similarity(table, table[7:8])
    best = cosines.topk(4)
    assert [one["id"] for one in near] == best.indices.tolist()
    close(torch.tensor([one["cosine"] for one in near]), best.values)


def test_the_lens(page: Page, story: gpt2.GPT2, ids: list[int]) -> None:
    """What the stream would say at every height, as in Chapter 15."""
    stream = caught(story, ids)["stream"]
    found = page.evaluate(
        """async ids => {
            const {stream} = await machine.run(ids, {record: ["stream"]});
            return [pack(await machine.unembed(stream[2])),
                    pack(await machine.unembed(stream[2], {norm: false})),
                    await machine.top(stream[2], {k: 3})];
        }""",
        ids,
    )
    lens = story.unembed(story.ln_f(stream[2]))
    close(unpack(found[0]), lens.flatten())
    close(unpack(found[1]), story.unembed(stream[2]).flatten())
    best = lens.topk(3).indices.tolist()
    assert [[one["id"] for one in row] for row in found[2]] == best


# Generation.


def test_greedy_text(
    page: Page, story: gpt2.GPT2, tokenizer: gpt2.Tokenizer
) -> None:
    wanted = gpt2.complete(
        story, tokenizer, "Ella lost", 60, gpt2.Sampling(temperature=0)
    )
    found = page.evaluate(
        """async sampling => {
            const ids = await machine.encodePrompt("Ella lost");
            const pieces = await all(
                machine.generate(ids, {length: 60, sampling}));
            return pieces.map(piece => piece.text).join("");
        }""",
        GREEDY,
    )
    assert found == wanted


def test_runs_between_two_tokens_change_nothing(page: Page) -> None:
    quiet, busy = page.evaluate(
        """async () => {
            const options = {length: 30, seed: 5};
            const quiet = await all(machine.generate([1439], options));
            const busy = [];
            for await (const token of machine.generate([1439], options)) {
                busy.push(token);
                await machine.run([5, 6, 7], {record: ["stream"]});
                await machine.predict([8, 9]);
                await machine.predict([1439, 3], {edits: [
                    {part: "attention", layer: 0}]});
            }
            return [quiet, busy];
        }"""
    )
    assert len(quiet) == 30
    assert [t["id"] for t in quiet] == [t["id"] for t in busy]
    assert quiet == [
        {**t, "probability": pytest.approx(t["probability"], rel=1e-4)}
        for t in busy
    ]


def test_the_end_of_a_text_and_of_the_positions(
    page: Page, story: gpt2.GPT2, ids: list[int]
) -> None:
    ended, whole = page.evaluate(
        """async ([ids, sampling]) => [
            await all(machine.generate(ids, {sampling})),
            await all(machine.generate(ids, {sampling, end: false}))]""",
        [ids, GREEDY],
    )
    assert len(ids) + len(whole) == story.config.n_ctx
    tokens = [token["id"] for token in whole]
    assert [token["id"] for token in ended] == tokens[: tokens.index(1439)]


def test_generation_with_edits(
    page: Page, story: gpt2.GPT2, ids: list[int]
) -> None:
    edit, module, change = EDITS["head"]
    found = page.evaluate(
        """async ([ids, edits, sampling]) => (await all(machine.generate(
            ids, {length: 5, edits: [edits], sampling}))).map(t => t.id)""",
        [ids, edit, GREEDY],
    )
    wanted = list(ids)
    for _ in range(5):
        logits = edited(story, wanted, {module(story): change})
        wanted.append(int(logits[-1].argmax()))
    assert found == wanted[len(ids) :]


def test_characters_come_whole(page: Page, tokenizer: gpt2.Tokenizer) -> None:
    """A bytes-only model would stream é as nothing, and then é."""
    pieces = page.evaluate(
        """async () => {
            const found = [];
            const decoder = new TextDecoder("utf-8");
            for await (const token of machine.generate(
                [1439], {length: 100, seed: 1, sampling: {temperature: 5}}))
                found.push(token);
            return [found.map(t => t.text).join(""), found.map(t => t.id)];
        }"""
    )
    text, ids = pieces
    assert tokenizer.decode(ids).startswith(text.rstrip("\ufffd"))


def test_what_is_given_up_is_not_begun(page: Page) -> None:
    first, second, reason, after = page.evaluate(
        """async () => {
            const gone = new AbortController();
            const first = machine.predict([1], {k: 1});
            const second = machine.predict([2], {k: 1, signal: gone.signal});
            const third = machine.predict([3], {k: 1});
            gone.abort(new Error("typed on"));
            const reason = await second.catch(error => error.message);
            return [(await first).candidates.length,
                    (await third).candidates.length, reason,
                    (await machine.encode("a")).length];
        }"""
    )
    assert (first, second, after) == (1, 1, 1)
    assert reason == "typed on"


def test_closing(blank: Page) -> None:
    waiting, again = blank.evaluate(
        """async () => {
            const machine = await GPT2.machine("echo/step-0400");
            const waiting = machine.predict([1]);
            machine.close();
            const reason = await waiting.catch(error => error.message);
            const other = await GPT2.machine("echo/step-0400");
            return [reason, other !== machine && other.info.name];
        }"""
    )
    assert "closed" in waiting
    assert again == "echo/step-0400"


def test_a_model_that_does_not_ship(blank: Page) -> None:
    with pytest.raises(Error, match=r"huge\.js cannot be loaded"):
        blank.evaluate("GPT2.machine('huge')")
    assert blank.evaluate("GPT2.machine().then(m => m.info.name)") == "story"


def test_the_series(blank: Page) -> None:
    path = STORY.parent / "echo" / "step-3000"
    model = gpt2.load_model(path)
    ids = torch.randint(model.config.n_vocab, (30,)).tolist()
    found = blank.evaluate(
        """async ids => {
            const machine = await GPT2.machine("echo/step-3000");
            return pack((await machine.run(ids)).last);
        }""",
        ids,
    )
    with torch.no_grad():
        close(unpack(found), model(torch.tensor([ids]))[0, -1])


# The reader's own model.


@pytest.fixture
def own(tmp_path: Path, shake: Any) -> tuple[Path, gpt2.GPT2]:
    return tmp_path, write_tiny(tmp_path, KINDS[0], shake)


def choose(page: Page, folder: Path) -> Page:
    paths = [path for path in folder.iterdir() if path.is_file()]
    page.set_input_files("input", paths)
    return page


OPEN = """async options => {
    const machine = await GPT2.machine();
    let events = 0, last = null;
    machine.addEventListener("model", () => events++);
    const found = await machine.inspect(files(), options);
    const onProgress = progress => (last = progress);
    const info = await machine.open(files(), {...options, onProgress});
    const logits = pack((await machine.run([1, 2, 3])).last);
    return {found, info, logits, events, last};
}"""


def test_the_readers_own_model(
    blank: Page, own: tuple[Path, gpt2.GPT2]
) -> None:
    folder, model = own
    seen = choose(blank, folder).evaluate(OPEN, {})
    with torch.no_grad():
        wanted = model(torch.tensor([[1, 2, 3]]))[0, -1]
    close(unpack(seen["logits"]), wanted)
    count = model.num_parameters()
    for said in (seen["found"], seen["info"]):
        assert said["parameters"] == count
        assert said["bytes"] >= 4 * count
    assert seen["found"]["dtype"] == "float32"
    assert seen["found"]["memory"] > seen["found"]["bytes"]
    assert seen["found"]["config"]["n_ctx"] == 70
    assert seen["events"] == 1
    assert seen["last"] == {"done": 4 * count, "all": 4 * count}
    shipped = blank.evaluate(
        "GPT2.machine().then(m => m.open()).then(info => info.name)"
    )
    assert shipped == "story"


def test_rounded_to_bfloat16(blank: Page, own: tuple[Path, gpt2.GPT2]) -> None:
    folder, model = own
    seen = choose(blank, folder).evaluate(OPEN, {"dtype": "bfloat16"})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.bfloat16())
        wanted = model(torch.tensor([[1, 2, 3]]))[0, -1]
    close(unpack(seen["logits"]), wanted)
    with pytest.raises(Error, match="float64"):
        blank.evaluate(OPEN, {"dtype": "float64"})


def test_names_and_buffers_as_transformers_writes_them(
    blank: Page, own: tuple[Path, gpt2.GPT2]
) -> None:
    folder, model = own
    path = folder / "model.safetensors"
    state = {f"transformer.{k}": v for k, v in load_file(path).items()}
    for n in range(2):
        mask = torch.ones(1, 1, 70, 70).tril()
        state[f"transformer.h.{n}.attn.bias"] = mask.bool()
        state[f"transformer.h.{n}.attn.masked_bias"] = torch.tensor(-1e4)
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    save_file(state, path)
    seen = choose(blank, folder).evaluate(OPEN, {})
    assert seen["found"]["parameters"] == model.num_parameters()
    with torch.no_grad():
        wanted = model(torch.tensor([[1, 2, 3]]))[0, -1]
    close(unpack(seen["logits"]), wanted)
    state["lm_head.weight"][3, 2] += 1
    save_file(state, path)
    with pytest.raises(Error, match=r"safetensors: lm_head\.weight is not"):
        choose(blank, folder).evaluate(OPEN, {})
    del state["transformer.wte.weight"]  # the output is the embedding, then
    save_file(state, path)
    choose(blank, folder).evaluate(OPEN, {})


def test_a_checkpoint_of_a_training_run(
    blank: Page, tmp_path: Path, shake: Any
) -> None:
    """What `gpt2.save` writes can be opened as it is."""
    tokenizer = gpt2.Tokenizer.train("abc abd " * 20, 262)
    tokenizer.add_bos_token = True
    config = gpt2.GPT2Config(262, 16, 12, 3, 2)
    model = shake(gpt2.GPT2(config)).eval().requires_grad_(False)
    gpt2.save(model, tokenizer, tmp_path)
    found = choose(blank, tmp_path).evaluate(
        """async () => {
            const machine = await GPT2.machine();
            await machine.open(files());
            return machine.predict(await machine.encodePrompt("abd"));
        }"""
    )["candidates"]
    wanted = gpt2.predict(model, tokenizer, "abd").candidates
    assert [c["id"] for c in found] == [c.id for c in wanted]
    logits = [c["logit"] for c in found]
    assert logits == pytest.approx([c.logit for c in wanted], abs=1e-4)


def test_a_table_with_more_rows_than_tokens(
    blank: Page, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[3], shake)  # 30 rows, 17 tokens
    seen = choose(blank, tmp_path).evaluate(
        """async () => {
            const machine = await GPT2.machine();
            const {notes} = await machine.inspect(files());
            await machine.open(files());
            const {candidates} = await machine.predict([1], {k: 99});
            return [notes, candidates.map(c => c.id)];
        }"""
    )
    assert "13 rows" in seen[0][0]
    assert sorted(seen[1]) == list(range(17))


WRONG = {
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no config": lambda f: (f / "config.json").unlink(),
    "no vocabulary": lambda f: (f / "vocab.json").unlink(),
    "no merges": lambda f: (f / "merges.txt").unlink(),
    "config": lambda f: (f / "config.json").write_text('{"n_embd": 3}'),
    "not JSON": lambda f: (f / "config.json").write_text("{"),
    "too large": lambda f: (f / "vocab.json").write_bytes(b" " * 64_000_001),
    "not UTF-8": lambda f: (f / "merges.txt").write_bytes(b"\xff"),
    "another format": lambda f: (f / "model.safetensors").rename(
        f / "pytorch_model.bin"
    ),
    "too short": lambda f: (f / "model.safetensors").write_bytes(b"\1" * 99),
    "one token too many": lambda f: (f / "vocab.json").write_text(
        json.dumps(
            {c: i for i, c in enumerate("abcdefghijklmnopq")}
            | {"<|endoftext|>": 17}
        )
    ),
    "too many tokens": lambda f: (f / "vocab.json").write_text(
        json.dumps(
            {c: i for i, c in enumerate("abcdefghijklmnopqrstu")}
            | {"<|endoftext|>": 21}
        )
    ),
}
NAMED = {
    "no weights": "no model.safetensors",
    "no config": "config.json",
    "no vocabulary": "vocab.json",
    "no merges": "merges.txt",
    "config": "config.json: n_vocab",
    "not JSON": "config.json: .*JSON",
    "too large": "vocab.json: it has 64000001 bytes",
    "not UTF-8": "merges.txt: ",
    "another format": "pytorch_model.bin cannot be read here",
    "too short": "model.safetensors: .*header",
    "one token too many": "needs the id 17",
    "too many tokens": "needs the id 21",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_by_name(
    name: str, blank: Page, own: tuple[Path, gpt2.GPT2]
) -> None:
    folder, _ = own
    WRONG[name](folder)
    choose(blank, folder)
    for method in ("inspect", "open"):
        with pytest.raises(Error, match=NAMED[name]):
            blank.evaluate(
                f"GPT2.machine().then(machine => machine.{method}(files()))"
            )
    assert blank.evaluate(
        """async () => {
            const machine = await GPT2.machine();
            await machine.predict([1]);
            return machine.info.name;
        }"""
    ) == "story"  # fmt: skip


def test_of_files_with_one_name_the_outermost_counts(
    blank: Page, own: tuple[Path, gpt2.GPT2]
) -> None:
    """As a browser gives the files of a folder with folders in it."""
    folder, _ = own
    found = choose(blank, folder).evaluate(
        """async () => {
            const at = (file, path) => Object.defineProperty(
                file, "webkitRelativePath", {value: path});
            const outer = [...files()].map(
                file => at(file, `own/${file.name}`));
            const inner = at(new File(["{}"], "config.json"),
                             "own/older/config.json");
            const machine = await GPT2.machine();
            return Promise.all([[inner, ...outer], [...outer, inner]].map(
                async all => (await machine.inspect(all)).config.n_ctx));
        }"""
    )
    assert found == [70, 70]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("at", [2, 3])
def test_numbers_that_are_not_finite_bring_the_shipped_model_back(
    at: int, dtype: torch.dtype, blank: Page, own: tuple[Path, gpt2.GPT2]
) -> None:
    folder, _ = own
    path = folder / "model.safetensors"
    state = {name: x.to(dtype) for name, x in load_file(path).items()}
    state["h.1.mlp.c_fc.bias"][at] = float("nan")
    save_file(state, path)
    reason, info, length = choose(blank, folder).evaluate(
        """async () => {
            const machine = await GPT2.machine();
            const reason = await machine.open(files()).catch(e => e.message);
            const {candidates} = await machine.predict([1439]);
            return [reason, machine.info, candidates.length];
        }"""
    )
    assert "h.1.mlp.c_fc.bias" in reason
    assert info["name"] == "story" and length == 10


def test_a_model_of_some_size(blank: Page, tmp_path: Path, shake: Any) -> None:
    """Several slices of a file, in float32: greedy tokens as the package's.

    GPT-2 124M itself is measured by `benchmarks/live.py`.
    """
    config = gpt2.GPT2Config(5003, 64, 320, 5, 3)
    model = shake(gpt2.GPT2(config), 0.05).eval().requires_grad_(False)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    gpt2.Tokenizer.bytes_only().save(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 2**24
    prompt = torch.randint(257, (1, 20))
    found, logits = choose(blank, tmp_path).evaluate(
        """async ([ids, sampling]) => {
            const machine = await GPT2.machine();
            await machine.open(files());
            const options = {length: 30, sampling, end: false};
            const tokens = await all(machine.generate(ids, options));
            return [tokens.map(token => token.id),
                    pack((await machine.run(ids)).last)];
        }""",
        [prompt[0].tolist(), GREEDY],
    )
    close(unpack(logits), model(prompt)[0, -1])
    wanted = gpt2.generate(
        model, prompt, 30, gpt2.Sampling(temperature=0), n_vocab=257
    )
    assert found == wanted[0, 20:].tolist()
    assert len({*found}) > 5


# The WebAssembly.


def test_the_kernels_are_what_the_c_code_gives() -> None:
    if importlib.util.find_spec("ziglang") is None:
        reason = "the compiler is not installed: pip install ziglang"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    assert live_kernels.script() == live_kernels.TARGET.read_text("utf-8")


def test_the_kernels_are_small_and_ask_for_memory_only(page: Page) -> None:
    for kernels in KERNELS[:2]:
        imports = page.evaluate(
            """kind => {
                GPT2.engine();
                const bytes = GPT2.fromBase64(GPT2.KERNELS[kind]);
                const module = new WebAssembly.Module(bytes);
                return WebAssembly.Module.imports(module);
            }""",
            kernels,
        )
        assert imports == [
            {"module": "env", "name": "memory", "kind": "memory"}
        ]


def test_the_scripts_of_the_site(site: Path) -> None:
    """The models in them are those of the package, byte by byte."""
    live = site / "_static" / "live"
    text = (live / "story.js").read_text("utf-8")
    files = json.loads(text.split(" = ", 1)[1].rstrip(";\n"))
    data = base64.b64decode(files["model.safetensors"])
    assert data == (STORY / "model.safetensors").read_bytes()
    assert len(list((live / "echo").iterdir())) == 11


# What the page "The whole machine" asks has the answers that it hints at.


def likeliest(logits: Tensor, tokenizer: gpt2.Tokenizer) -> str:
    return tokenizer.decode([int(logits.argmax())])


def test_the_page_asks_of_one_head(story: gpt2.GPT2, tokenizer: Any) -> None:
    for name in ("Ella", "Tom"):
        ids = tokenizer.encode_prompt(f"{name}, who had a cold, lost")
        weights = record_attention(story, torch.tensor([ids]))[:, 0, :, -1, 1]
        assert (weights > 0.9).nonzero().tolist() == [[1, 1]]


def test_the_page_asks_when_the_guess_is_settled(
    story: gpt2.GPT2, tokenizer: Any
) -> None:
    text, early = "Ella lost", []
    for word in ("", " her", " red", " kite"):
        text += word
        stream = caught(story, tokenizer.encode_prompt(text))["stream"]
        guesses = [
            likeliest(story.unembed(story.ln_f(x[-1])), tokenizer)
            for x in stream
        ]
        assert text.endswith(guesses[0])
        early.append(len({*guesses[1:]}) == 1)
    assert early[1] is False and early[3] is True


def test_the_page_asks_what_can_be_spared(
    story: gpt2.GPT2, tokenizer: Any
) -> None:
    ids = tokenizer.encode_prompt("Tom, who had a cold, lost")
    assert sum(layer.attn.n_head for layer in story.h) == 16
    for change, needed in ((zero, {0}), (mean_so_far, {0, 3})):
        lost = {
            n
            for n, layer in enumerate(story.h)
            if likeliest(
                edited(story, ids, {layer.mlp: change})[-1], tokenizer
            )
            != " his"
        }
        assert lost == needed


def test_the_page_asks_which_filter_leaves_more_than_one(
    story: gpt2.GPT2, tokenizer: Any
) -> None:
    tokens = torch.tensor([tokenizer.encode_prompt("Ella lost her")])
    logits = story(tokens)[:, -1]
    left = [
        int(
            gpt2.Sampling(**{name: end})
            .filter(logits, tokens)
            .isfinite()
            .sum()
        )
        for name, end in (("top_k", 1), ("top_p", 0.05), ("min_p", 0.5))
    ]
    assert left[:2] == [1, 1] and left[2] > 1
    hot = (logits / 2).softmax(-1)  # temperature 2
    lowest = logits.argmin()
    assert hot[0, lowest] > logits.softmax(-1)[0, lowest]


def test_the_page_asks_about_tokens(tokenizer: gpt2.Tokenizer) -> None:
    for space in ("", " "):
        kite, kites = (
            tokenizer.encode(f"{space}{word}") for word in ("kite", "kites")
        )
        assert kites[: len(kite)] != kite
    assert len(tokenizer.encode(" ella")) > len(tokenizer.encode(" Ella")) == 1
