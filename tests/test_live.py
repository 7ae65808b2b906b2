"""The model in plain JavaScript, in a real browser, against `gpt2`.

The page is opened from a file, without a server, and reads the checkpoints
from a file input, as a reader's page would.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import test_site
import test_tokenizer
import torch
from book_rules import ROOT
from playwright.sync_api import Error, Page
from safetensors.torch import save_file
from test_tokenizer import FRAGMENTS, OWN, TEXT
from torch import Tensor

import gpt2
from gpt2.attention import attention_weights, causal_mask
from gpt2.tokenizer.bpe import END_OF_TEXT, split_text
from gpt2.tokenizer.newer import as_of_unicode_16

pytestmark = pytest.mark.xdist_group("live")

LIVE = ROOT / "book" / "live"
STORY = Path(gpt2.__file__).parent / "pretrained" / "story"
KERNELS = ["relaxed", "simd", "plain"]

browser = test_site.browser  # one for this module, or a skip without one
real = test_tokenizer.real

HELPERS = """
const readFiles = async () => {
    globalThis.files = new Map();
    for (const file of document.querySelector("input").files) {
        files.set(file.name, file);
        if (!file.name.endsWith(".safetensors"))
            globalThis[file.name] = await file.text();
    }
};
const readModel = async kind => {
    // "plain" and "simd" stand for browsers that have no better.
    const all = globalThis.allKernels ??= GPT2.KERNELS;
    const {relaxed, simd} = all;
    GPT2.KERNELS = {relaxed: all, simd: {simd}, plain: {}}[kind];
    globalThis.model = await GPT2.readModel(
        files, await GPT2.readFolder(files));
    if (model.math.kind !== kind) throw new Error("got " + model.math.kind);
};
const readTokenizer = async () => {
    globalThis.tokenizer = await GPT2.readTokenizer(files);
};
const pack = numbers => {
    const bytes = new Uint8Array(Float32Array.from(numbers).buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192)
        text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
};
"""
RUN = """tokens => {
    const trace = {};
    const watch = GPT2.watcher(
        model, tokens.length, trace, ["stream", "weights"], []);
    const logits = pack(model.logits(tokens, {watch}));
    const {stream, weights} = trace;
    return [logits, ...stream.map(pack), ...weights.map(pack)];
}"""


def page_of(folder: Path) -> str:
    """The HTML of a page that loads all scripts of a folder."""
    sources = sorted(folder.glob("*.js"))
    scripts = [f'<script src="{path.as_uri()}"></script>' for path in sources]
    return (
        '<!doctype html><meta charset="utf-8"><title>Live</title>'
        '<input type="file" multiple>'
        f"{''.join(scripts)}<script>{HELPERS}</script>"
    )


@pytest.fixture(scope="module")
def blank(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A page, opened from a file, with the scripts and a file input."""
    path = tmp_path_factory.mktemp("live") / "page.html"
    path.write_text(page_of(LIVE), "utf-8")
    page = browser.new_page()
    page.set_default_timeout(120_000)  # a machine may be busy with the rest
    page.goto(path.as_uri())
    yield page
    page.close()


Loader = Callable[..., Page]


def loader(page: Page) -> Loader:
    """Return what gives a page a folder's files and reads the model."""

    def load(folder: Path, kernels: str = "relaxed") -> Page:
        paths = [path for path in folder.iterdir() if path.is_file()]
        page.set_input_files("input", paths)
        page.evaluate("readFiles()")
        if kernels:
            page.evaluate("kernels => readModel(kernels)", kernels)
        return page

    return load


@pytest.fixture
def load(blank: Page) -> Loader:
    """`load(folder)` gives the page a folder's files and reads the model."""
    return loader(blank)


@pytest.fixture(scope="module")
def story() -> gpt2.GPT2:
    return gpt2.load_model(STORY, dtype=torch.float32)


def unpack(text: str) -> Tensor:
    return torch.tensor(np.frombuffer(base64.b64decode(text), "<f4"))


def close(found: Tensor, expected: Tensor) -> None:
    """Equal within 1e-4, or as nearly as float32 can hold larger numbers.

    The residual stream of the story model has numbers of several hundred;
    there PyTorch's own float32 is 1e-4 away from its float64.
    """
    assert found.shape == expected.shape
    assert found.isfinite().all()
    bound = max(1e-4, 2e-6 * float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= bound


def expected(model: gpt2.GPT2, tokens: list[int]) -> list[Tensor]:
    """Logits, the residual stream before each layer and after the last, and
    each layer's attention weights."""
    ids = torch.tensor([tokens])
    x = model.wte(ids) + model.wpe(torch.arange(len(tokens)))
    stream, weights = [x], []
    for layer in model.h:
        query, key, _ = layer.attn.project(layer.ln_1(x))
        mask = causal_mask(len(tokens), len(tokens))
        weights.append(attention_weights(query, key, mask))
        x = layer(x)
        stream.append(x)
    return [model(ids), *stream, *weights]


def compare(page: Page, model: gpt2.GPT2, tokens: list[int]) -> None:
    with torch.no_grad():
        wanted = expected(model, tokens)
    found = page.evaluate(RUN, tokens)
    for packed, tensor in zip(found, wanted, strict=True):
        close(unpack(packed), tensor.flatten())


@pytest.mark.parametrize("kernels", KERNELS)
def test_story_model(kernels: str, load: Loader, story: gpt2.GPT2) -> None:
    page = load(STORY, kernels)
    lengths = (1, 20, 100) if kernels == "plain" else (1, 2, 20, 64, 65, 256)
    for length in lengths:
        ids = torch.randint(story.config.n_vocab, (length,))
        compare(page, story, ids.tolist())


# Widths that fill no panel and no vector, and heads of five numbers.
KINDS = [
    ("gelu_new", (17, 70, 15, 3, 2), None, torch.float32),
    ("gelu", (17, 16, 12, 3, 2), 7, torch.float16),
    ("relu", (17, 16, 12, 3, 2), 50, torch.bfloat16),
    ("gelu_new", (30, 16, 40, 2, 2), 9, torch.bfloat16),
]


def write_tiny(folder: Path, kind: Any, shake: Any) -> gpt2.GPT2:
    """Write a tiny random checkpoint, and return it in float32."""
    activation, sizes, n_inner, dtype = kind
    config = gpt2.GPT2Config(
        *sizes,
        n_inner=n_inner,
        activation=activation,
        layer_norm_epsilon=0.01,  # large enough to be seen
    )
    model = shake(gpt2.GPT2(config)).eval().to(dtype)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    letters = [*"abcdefghijklmnop", END_OF_TEXT]
    ids = {letter: i for i, letter in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return model.float()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tiny_models(
    kind: Any, kernels: str, load: Loader, tmp_path: Path, shake: Any
) -> None:
    model = write_tiny(tmp_path, kind, shake)
    page = load(tmp_path, kernels)
    for length in range(1, model.config.n_ctx + 1):
        compare(page, model, torch.randint(17, (length,)).tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_two_bytes(
    dtype: torch.dtype, load: Loader, tmp_path: Path
) -> None:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    save_file({"all": numbers}, tmp_path / "model.safetensors")
    found = load(tmp_path, "").evaluate(
        """async () => {
            const file = files.get("model.safetensors");
            const entries = await GPT2.readHeader(file);
            for await (const {numbers} of GPT2.readTensors(file, entries))
                return pack(numbers instanceof Uint16Array
                            ? GPT2.widen(numbers) : numbers);
        }"""
    )
    torch.testing.assert_close(
        unpack(found), numbers.float(), rtol=0, atol=0, equal_nan=True
    )


def test_rounding_to_bfloat16(blank: Page) -> None:
    """To the nearest; of two that are equally near, to the even one."""
    bits = torch.arange(-(2**31), 2**31, 2**15 - 3)
    bits = torch.cat([bits, bits // 2**16 * 2**16 + 2**15])  # half-way
    numbers = bits.to(torch.int32).view(torch.float32)
    numbers = numbers[numbers.bfloat16().isfinite()]
    found = blank.evaluate(
        """text => {
            const bytes = GPT2.fromBase64(text);
            return pack(GPT2.widen(
                GPT2.asBfloat16(new Float32Array(bytes.buffer))));
        }""",
        base64.b64encode(numbers.numpy().tobytes()).decode(),
    )
    assert torch.equal(unpack(found), numbers.bfloat16().float())


def test_a_number_on_the_border_of_two_slices(
    load: Loader, tmp_path: Path
) -> None:
    """Numbers of two bytes before those of four may shift them by two."""
    halves = torch.tensor([1.0, -2.0, 3.0]).bfloat16()
    numbers = torch.randn(2**21 + 5)
    end = 6 + 4 * len(numbers)
    header = {
        "halves": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]},
        "numbers": {
            "dtype": "F32",
            "shape": [len(numbers)],
            "data_offsets": [6, end],
        },
    }
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        len(text).to_bytes(8, "little")
        + text
        + halves.view(torch.int16).numpy().tobytes()
        + numbers.numpy().tobytes()
    )
    found = load(tmp_path, "").evaluate(
        """async () => {
            const file = files.get("model.safetensors");
            const entries = [...await GPT2.readHeader(file)];
            const size = entries[1][1].shape[0];
            const all = {
                halves: new Float32Array(3), numbers: new Float32Array(size)};
            for await (const {name, at, numbers}
                       of GPT2.readTensors(file, entries))
                all[name].set(GPT2.asFloat32(numbers), at);
            return [pack(all.halves), pack(all.numbers)];
        }"""
    )
    assert unpack(found[0]).tolist() == [1, -2, 3]
    assert torch.equal(unpack(found[1]), numbers)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_cache_changes_nothing(
    kernels: str, load: Loader, story: gpt2.GPT2
) -> None:
    tokens = torch.randint(story.config.n_vocab, (12,)).tolist()
    whole, pieces = load(STORY, kernels).evaluate(
        """tokens => {
            const run = (past, to, lastOnly) => pack(
                model.logits(tokens.slice(past, to), {past, lastOnly}));
            return [pack(model.logits(tokens)),
                    [run(0, 5), run(5, 6), run(6, 11), run(11, 12, true)]];
        }""",
        tokens,
    )
    close(torch.cat([unpack(piece) for piece in pieces]), unpack(whole))


@pytest.mark.parametrize("kernels", KERNELS)
def test_greedy_tokens(kernels: str, load: Loader, story: gpt2.GPT2) -> None:
    tokenizer = gpt2.Tokenizer.load(STORY)
    prompt = tokenizer.encode_prompt("Once upon a time")
    greedy = gpt2.Sampling(temperature=0)
    both = gpt2.generate(story, torch.tensor([prompt]), 50, greedy)[0]
    found = load(STORY, kernels).evaluate(
        """prompt => {
            const tokens = GPT2.generate(model, prompt, {temperature: 0});
            return Array.from({length: 50}, () => tokens.next().value);
        }""",
        prompt,
    )
    assert prompt + found == both.tolist()


def test_generation_ends_where_the_positions_do(
    load: Loader, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[0], shake)
    run = "n => [...GPT2.generate(model, Array(n).fill(1))].length"
    page = load(tmp_path)
    assert [page.evaluate(run, n) for n in (1, 69, 70)] == [69, 1, 0]
    for n in (0, 71):
        with pytest.raises(Error, match=f"{n} tokens|got {n}"):
            page.evaluate(run, n)


CLASSES = [
    regex.compile(as_of_unicode_16(name))
    for name in (r"\p{L}", r"\p{N}", r"\s")
]


def range_ends() -> list[str]:
    """The characters at either end of each range of letters, digits, space."""
    ends, before = [], None
    for code in [*range(0xD800), *range(0xE000, 0x110000)]:
        here = [bool(kind.match(chr(code))) for kind in CLASSES]
        if here != before:
            near = [chr(max(0, code - 1)), chr(code)]
            ends += [c for c in near if not "\ud800" <= c <= "\udfff"]
        before = here
    return list(dict.fromkeys(ends))


def hostile() -> list[str]:
    generator = np.random.default_rng(1)
    ends = range_ends()
    assert len(ends) > 1500
    texts = ["", TEXT, *FRAGMENTS, "\u0301", " \u0301a", "a" * 999]
    texts += ["\ufeffbyte order mark"]
    texts += [" " * 3000 + "x", "\n \t" * 500, "\x85\ufeff \u180e\u200b "]
    texts += [
        "<|endoftext|>a<|endoftext|><|endoftext|>",
        "\u0345\u0e33 \u0f77",
    ]
    texts += [f"a{c}a {c}1{c} {c}!{c}{c} 's" for c in ends]
    for _ in range(300):
        chosen = generator.choice([*FRAGMENTS, *ends[:400]], size=12)
        texts.append("".join(map(str, chosen)))
    return texts


def compare_tokens(page: Page, tokenizer: gpt2.Tokenizer) -> None:
    texts = hostile()
    found = page.evaluate(
        """async texts => {
            await readTokenizer();
            return texts.map(text => {
                const ids = tokenizer.encode(text);
                const special = tokenizer.encode(text, true);
                return [tokenizer.split(text), ids, special,
                        tokenizer.decode(ids), tokenizer.decode(special),
                        tokenizer.decode(ids.slice(1, -1)),
                        tokenizer.encodePrompt(text)];
            });
        }""",
        texts,
    )
    for text, seen in zip(texts, found, strict=True):
        ids = tokenizer.encode(text)
        special = tokenizer.encode(text, allow_special=True)
        part = tokenizer.decode(ids[1:-1])
        whole, other = tokenizer.decode(ids), tokenizer.decode(special)
        prompt = tokenizer.encode_prompt(text)
        assert seen == [
            *(split_text(text), ids, special),
            *(whole, other, part, prompt),
        ]


def test_tokens_of_hostile_text(load: Loader, tmp_path: Path) -> None:
    OWN.save(tmp_path)
    for folder in (tmp_path, STORY):
        page = load(folder, "")
        compare_tokens(page, gpt2.Tokenizer.load(folder))
        with pytest.raises(Error, match="surrogate"):
            page.evaluate("() => tokenizer.encode('a\\ud800')")
        with pytest.raises(Error, match="no token 99999"):
            page.evaluate("() => tokenizer.decode([99999])")


def test_tokens_of_gpt2s_vocabulary(
    load: Loader, tmp_path: Path, real: gpt2.Tokenizer
) -> None:
    real.save(tmp_path)
    compare_tokens(load(tmp_path, ""), real)


def test_letters_are_those_of_unicode_16(blank: Page) -> None:
    """Of every character, whatever the browser's own tables say."""
    found = blank.evaluate(
        """() => ["letter", "digit"].map(name => {
            const pattern = new RegExp(`^${GPT2.UNICODE_16[name]}$`, "u");
            const starts = [];
            for (let code = 0, before = false; code < 0x110000; code++) {
                const here = pattern.test(String.fromCodePoint(code));
                if (here !== before) starts.push(code);
                before = here;
            }
            return starts;
        })"""
    )
    for starts, pattern in zip(found, CLASSES, strict=False):
        wanted, before = [], False
        for code in range(0x110000):
            if (here := bool(pattern.match(chr(code)))) != before:
                wanted.append(code)
            before = here
        assert starts == wanted


def test_letters_that_an_older_browser_lacks(blank: Page) -> None:
    """The lists have only letters and digits of Unicode 16."""
    for kind, pattern in zip(("letters", "digits"), CLASSES, strict=False):
        listed = blank.evaluate("kind => GPT2.LATE[kind]", kind)
        for entry in listed.split():
            first, _, last = entry.partition("-")
            for code in range(int(first, 16), int(last or first, 16) + 1):
                assert pattern.match(chr(code)), f"{code:X}"


def test_merges_one_by_one(load: Loader) -> None:
    page = load(STORY, "")
    page.evaluate("readTokenizer()")
    assert page.evaluate("() => tokenizer.steps(' the')") == [
        ["Ġ", "t", "h", "e"], ["Ġt", "h", "e"], ["Ġt", "he"], ["Ġthe"]
    ]  # fmt: skip


SETTINGS: list[dict[str, float]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_k": 5},
    {"top_k": 10_000},
    {"top_p": 0.6},
    {"top_p": 1},
    {"min_p": 0.2},
    {"min_p": 1},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 1.7, "top_k": 30},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters(settings: dict[str, Any], blank: Page) -> None:
    logits = torch.linspace(0.5, 4, 20)[:, None] * torch.randn(20, 400)
    if "top_k" not in settings:  # of equal ones, torch keeps any
        logits[:, ::3] = logits[:, ::3].round()
    tokens = torch.randint(400, (20, 30))
    sampling = gpt2.Sampling(**settings)
    kept = sampling.filter(logits, tokens).softmax(-1)
    rows = blank.evaluate(
        """([rows, s, tokens]) => rows.map((row, i) => pack(
            GPT2.distribution(Float32Array.from(row), s, tokens[i])))""",
        [logits.tolist(), settings, tokens.tolist()],
    )
    found = torch.stack([unpack(row) for row in rows])
    assert ((found > 0) == (kept > 0)).all()
    torch.testing.assert_close(found, kept, rtol=1e-5, atol=1e-6)


def test_no_exponential_overflows(blank: Page) -> None:
    numbers = [999.0, 1000.0, -1000.0]
    found = blank.evaluate(
        "numbers => pack(GPT2.softmax(Float32Array.from(numbers)))", numbers
    )
    close(unpack(found), torch.tensor(numbers).softmax(0))


def test_the_largest_are_found_in_order(blank: Page) -> None:
    rows = torch.randn(30, 77).mul(3).round().tolist()
    for k in (1, 5, 76, 77, 100):
        found = blank.evaluate(
            "([rows, k]) => rows.map(row => GPT2.largest(row, k))", [rows, k]
        )
        for row, indices in zip(rows, found, strict=True):
            ordered = sorted(range(77), key=lambda i: -row[i])  # stable
            assert indices == ordered[:k]


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"top_k": 0}, {"top_p": 1.1}, {"top": 1}],
    ids=str,
)
def test_settings_out_of_range(settings: dict[str, Any], blank: Page) -> None:
    with pytest.raises(Error, match=next(iter(settings))):
        blank.evaluate(
            "s => GPT2.distribution(Float32Array.of(1, 2), s).length", settings
        )


def test_seeds(load: Loader) -> None:
    one, again, other = load(STORY).evaluate(
        """() => [1, 1, 2].map(seed => {
            const tokens = GPT2.generate(model, [1], {top_p: 0.95}, seed);
            return Array.from({length: 30}, () => tokens.next().value);
        })"""
    )
    assert one == again != other


def mulberry32(seed: int) -> Iterator[float]:
    """Tommy Ettinger's generator, as the page has it."""
    while True:
        seed = (seed + 0x6D2B79F5) % 2**32
        mixed = (seed ^ seed >> 15) * (seed | 1) % 2**32
        mixed ^= (mixed + (mixed ^ mixed >> 7) * (mixed | 61)) % 2**32
        yield (mixed ^ mixed >> 14) / 2**32


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_generator_is_the_same_in_every_browser(
    seed: int, blank: Page
) -> None:
    found = blank.evaluate(
        """seed => {
            const random = GPT2.seeded(seed);
            return Array.from({length: 20}, () => random());
        }""",
        seed,
    )
    assert found == list(islice(mulberry32(seed), 20))


def test_where_one_token_ends_and_the_next_begins(blank: Page) -> None:
    for number, token in ((0, 1), (0.2499, 1), (0.25, 3), (0.5, 4), (1, 4)):
        found = blank.evaluate(
            "number => GPT2.draw([0, 0.25, 0, 0.25, 0.5, 0], number)", number
        )
        assert found == token


def test_draws_follow_the_probabilities(blank: Page) -> None:
    counts = blank.evaluate(
        """() => {
            const random = GPT2.seeded(3), counts = [0, 0, 0, 0];
            for (let i = 0; i < 100000; i++)
                counts[GPT2.draw([0.5, 0, 0.2, 0.3], random())]++;
            return counts;
        }"""
    )
    assert counts[1] == 0
    assert counts == pytest.approx([50_000, 0, 20_000, 30_000], abs=700)


def damaged(header: dict[str, Any], what: str) -> dict[str, Any]:
    """Change the entry of `wpe.weight`."""
    entry = header["wpe.weight"]
    if what == "shape":
        entry["shape"][0] += 1
    elif what == "offsets":
        entry["data_offsets"][1] -= 4
    elif what == "dtype":
        entry["dtype"] = "F8_E4M3"
    elif what == "negative":
        entry["data_offsets"] = [n - 10**6 for n in entry["data_offsets"]]
    elif what == "beyond":
        entry["data_offsets"] = [n + 10**6 for n in entry["data_offsets"]]
    elif what == "missing":
        del header["wpe.weight"]
    return header


@pytest.mark.parametrize(
    "what",
    [
        "none",
        "shape",
        "offsets",
        "dtype",
        "negative",
        "beyond",
        "missing",
        "short",
    ],
)
def test_a_damaged_file_is_refused_by_name(
    what: str, load: Loader, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[0], shake)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = damaged(json.loads(data[8:end]), what)
    text = json.dumps(header).encode()
    tensors = data[end:-4] if what == "short" else data[end:]
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    if what == "none":
        load(tmp_path)
        return
    entries = [item for item in header.items() if item[0] != "__metadata__"]
    last = max(entries, key=lambda item: item[1]["data_offsets"][1])[0]
    # What is missing leaves a gap before the next tensor.
    named = {"short": last, "missing": "wte.weight"}.get(what, "wpe.weight")
    with pytest.raises(Error, match=named):
        load(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_cut_header_is_refused(
    size: int, load: Loader, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[0], shake)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Error, match=r"header.*bytes|bytes.*header"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "llama"),
        ("scale_attn_by_inverse_layer_idx", True),
        ("n_head", 4),
        ("n_layer", "2"),
        ("activation_function", "silu"),
        ("layer_norm_epsilon", 0),
    ],
)
def test_a_config_of_another_model_is_refused(
    name: str, value: Any, load: Loader, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[0], shake)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(Error, match=name.removesuffix("_function")):
        load(tmp_path)


def test_tokens_that_do_not_fit_are_refused(
    load: Loader, tmp_path: Path, shake: Any
) -> None:
    write_tiny(tmp_path, KINDS[0], shake)
    page = load(tmp_path)
    for tokens in ([], [17], [-1], [0.5], [0] * 71):
        with pytest.raises(Error, match=r"must lie|tokens fit"):
            page.evaluate("tokens => model.logits(tokens).length", tokens)
