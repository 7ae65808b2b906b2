"""Text in, text out: pieces, stops, and a prediction explained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest
import torch
from generating import with_spare_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gpt2.completion import (
    complete,
    encode_prompt,
    predict,
    stream_text,
    until,
)
from gpt2.config import GPT2Config
from gpt2.generation import generate
from gpt2.model import GPT2
from gpt2.sampling import Sampling
from gpt2.tokenizer.tokenizer import END_OF_TEXT, Tokenizer

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.bytes_only()


@pytest.fixture
def babbler(shake: Callable[..., GPT2]) -> GPT2:
    """A model of bytes that says anything, mostly not UTF-8."""
    config = GPT2Config(n_vocab=257, n_ctx=32, n_embd=12, n_head=3, n_layer=2)
    return shake(GPT2(config)).eval()


def reciter(ids: Sequence[int], n_vocab: int = 257) -> GPT2:
    """A model that, after a prompt of one token, says these ids.

    Its layers do nothing, each token has an axis of its own, and each position
    points far along that of the token to be said there.
    """
    width = n_vocab
    model = GPT2(
        GPT2Config(
            n_vocab=n_vocab, n_ctx=len(ids) + 1, n_embd=width, n_head=1,
            n_layer=1, n_inner=1,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.wte.weight.copy_(torch.eye(width))
        model.wpe.weight[: len(ids)] = 100 * torch.eye(width)[list(ids)]
        model.ln_f.weight.fill_(1)
    return model.eval()


def recited(
    text: str | bytes,
    max_new_tokens: int = 100,
    stop: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> list[str]:
    """The pieces in which a text comes that a model says."""
    tokenizer = tokenizer or Tokenizer.bytes_only()
    data = text.encode() if isinstance(text, str) else text
    ids = tokenizer.encode_bytes(data)
    pieces = stream_text(
        reciter(ids, tokenizer.n_vocab),
        tokenizer,
        "?",
        max_new_tokens,
        GREEDY,
        stop=stop,
    )
    return list(pieces)


# Prompts.


def test_names_of_special_tokens_in_a_prompt() -> None:
    """Characters, unless the caller knows who wrote the prompt."""
    plain = Tokenizer.bytes_only()
    user = Tokenizer(plain.ranks, {END_OF_TEXT: 256, "<|user|>": 257})
    prompt = "<|user|>a"
    assert encode_prompt(user, prompt) == plain.encode(prompt)
    assert encode_prompt(user, prompt, True) == [257, *plain.encode("a")]
    model = reciter(plain.encode("xyz"), 258)  # after a token, y comes
    found = predict(model, user, prompt, 1, allow_special=True)
    assert (found.ids, found.candidates[0].text) == ((257, 64), "y")
    assert found.texts == ("<|user|>", "a")
    for new in (complete, stream_text):
        pieces = new(model, user, prompt, 9, GREEDY, allow_special=True)
        assert "".join(pieces) == "yz"
    for call in (complete, stream_text, predict):
        with pytest.raises(ValueError, match="9 tokens"):
            call(model, user, prompt)


# Pieces.


def test_an_empty_prompt_is_the_beginning_of_a_text(
    tokenizer: Tokenizer,
) -> None:
    assert encode_prompt(tokenizer, "") == [tokenizer.end_of_text]
    assert encode_prompt(tokenizer, "ab") == tokenizer.encode("ab")
    ordinary = encode_prompt(tokenizer, END_OF_TEXT)
    assert tokenizer.end_of_text not in ordinary  # as anyone may write it


def test_pieces_are_whole_characters() -> None:
    text = "naïve, 日本 and 👩‍🚀\n"
    assert recited(text) == list(text)


def test_bytes_that_are_no_characters() -> None:
    assert recited(b"a\xffb\xe6\x97") == ["a", "\ufffd", "b", "\ufffd"]
    # The last token ends within a character.
    assert recited("日本", max_new_tokens=4) == ["日", "\ufffd"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("prompt", ["", "Once", "é"])
def test_the_pieces_are_what_generate_gives(
    babbler: GPT2, tokenizer: Tokenizer, prompt: str, seed: int
) -> None:
    ids = torch.tensor([encode_prompt(tokenizer, prompt)])
    sampling = Sampling(0.8, top_k=50, repetition_penalty=1.2)
    end = tokenizer.end_of_text
    expected = generate(
        babbler, ids, 20, sampling, seed=seed, stop_tokens=[end]
    )
    added = expected[0, ids.size(1) :].tolist()
    pieces = list(
        stream_text(babbler, tokenizer, prompt, 20, sampling, seed=seed)
    )
    assert "".join(pieces) == tokenizer.decode(i for i in added if i != end)
    assert all(pieces)
    generator = torch.Generator().manual_seed(seed)
    again = stream_text(
        babbler, tokenizer, prompt, 20, sampling, seed=generator
    )
    assert list(again) == pieces
    whole = complete(babbler, tokenizer, prompt, 20, sampling, seed=seed)
    assert whole == "".join(pieces)


def test_complete_takes_what_stream_text_takes(tokenizer: Tokenizer) -> None:
    model = reciter(tokenizer.encode("one two three"))
    assert complete(model, tokenizer, "?", 5, GREEDY) == "one t"
    found = complete(model, tokenizer, "?", sampling=GREEDY, stop=["two"])
    assert found == "one "
    drawn = inspect.signature(complete).replace(return_annotation=None)
    other = inspect.signature(stream_text).replace(return_annotation=None)
    assert drawn == other


def test_it_ends_at_the_end_of_the_text(tokenizer: Tokenizer) -> None:
    end = tokenizer.end_of_text
    ids = [*tokenizer.encode("over"), end, *tokenizer.encode("more")]
    pieces = stream_text(reciter(ids), tokenizer, "?", sampling=GREEDY)
    assert list(pieces) == ["o", "v", "e", "r"]
    pieces = stream_text(reciter([end, 65]), tokenizer, "?", sampling=GREEDY)
    assert list(pieces) == []


def test_pieces_come_before_the_next_token_is_computed(
    tokenizer: Tokenizer,
) -> None:
    model = reciter(tokenizer.encode("abc"))
    events: list[str] = []
    model.register_forward_pre_hook(lambda *_: events.append("step"))
    for piece in stream_text(model, tokenizer, "?", sampling=GREEDY):
        events.append(piece)
    assert events == ["step", "a", "step", "b", "step", "c"]


def test_after_a_stop_nothing_is_computed(tokenizer: Tokenizer) -> None:
    model = reciter(tokenizer.encode("abcdef"))
    inputs: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    pieces = stream_text(model, tokenizer, "?", sampling=GREEDY, stop=["bc"])
    assert list(pieces) == ["a"]
    assert len(inputs) == 3  # for a, b and c


def test_no_room(babbler: GPT2, tokenizer: Tokenizer) -> None:
    assert list(stream_text(babbler, tokenizer, "x" * 32)) == []
    assert list(stream_text(babbler, tokenizer, "x", 0)) == []
    with pytest.raises(ValueError, match=r"33 tokens, .* at most 32"):
        stream_text(babbler, tokenizer, "x" * 33)
    with pytest.raises(ValueError, match="seed must be"):
        stream_text(babbler, tokenizer, "x", seed=-1)


def test_the_model_is_left_as_it_was(
    babbler: GPT2, tokenizer: Tokenizer
) -> None:
    for module in babbler.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    expected = list(stream_text(babbler, tokenizer, "x", sampling=GREEDY))
    babbler.train()
    found = list(stream_text(babbler, tokenizer, "x", sampling=GREEDY))
    assert found == expected
    assert babbler.training
    stop = [expected[3]]
    list(stream_text(babbler, tokenizer, "x", sampling=GREEDY, stop=stop))
    assert babbler.training
    pieces = stream_text(babbler, tokenizer, "x", sampling=GREEDY)
    next(pieces)
    assert babbler.training  # half read
    predict(babbler, tokenizer, "x")
    assert babbler.training


def test_ids_that_the_model_does_not_have(
    model: GPT2, tokenizer: Tokenizer
) -> None:
    """The tokenizer is another model's: nothing has begun then."""
    for text in ("z", ""):
        with pytest.raises(ValueError, match="between 0 and 16; got"):
            stream_text(model, tokenizer, text)
    with pytest.raises(ValueError, match="between 0 and 16"):
        predict(model, tokenizer, "z")


@pytest.mark.parametrize("prompt", ["", "Once"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=5)], ids=str)
def test_a_padded_model_completes_with_tokens(
    babbler: GPT2, tokenizer: Tokenizer, prompt: str, sampling: Sampling
) -> None:
    wide = with_spare_rows(babbler)
    found = complete(wide, tokenizer, prompt, 20, sampling, seed=0)
    assert found == complete(babbler, tokenizer, prompt, 20, sampling, seed=0)


# Stops.


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ([], "one two three"),
        (["two"], "one "),
        (["four"], "one two three"),
        (["one"], ""),  # at the very first
        (["o"], ""),
        (["three"], "one two "),
        (["eel"], "one two three"),  # has begun when the text ends
        (["three", "two"], "one "),
        (["two", "three"], "one "),
        (["ne", "one two"], ""),  # what begins first, though it ends later
        (["e two four", "two"], "one "),
        ((" ",), "one"),
    ],
)
def test_stops(stop: Sequence[str], expected: str) -> None:
    assert "".join(recited("one two three", stop=stop)) == expected


def test_a_stop_within_a_token() -> None:
    tokenizer = Tokenizer.train("banana banana", 257 + 5)
    assert len(tokenizer.encode("banana")) == 1
    pieces = recited("banana!", stop=["nan"], tokenizer=tokenizer)
    assert pieces == ["ba"]


def test_a_stop_of_several_bytes_per_character() -> None:
    assert recited("a日本b", stop=["本"]) == ["a", "日"]


@pytest.mark.parametrize("stop", [[""], ["a", ""], "ab", ""])
def test_bad_stops(
    babbler: GPT2, tokenizer: Tokenizer, stop: Sequence[str]
) -> None:
    with pytest.raises(ValueError, match="stop must be a list of strings"):
        stream_text(babbler, tokenizer, "x", stop=stop)  # at once


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop, seen as a whole."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places, default=len(text))]


few_letters = st.text("ab", max_size=6)
some_stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


# The first might still have come, and the third begins before the second.
@example(pieces=["abcab"], stops=["abcabc", "c", "b"])
@given(pieces=st.lists(few_letters, max_size=6), stops=some_stops)
@settings(deadline=None)
def test_until_however_the_text_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
    found = list(until(pieces, stops))
    assert "".join(found) == cut("".join(pieces), stops)
    assert all(found)


@given(text=few_letters, stops=some_stops)
@settings(deadline=None, max_examples=50)
def test_until_holds_back_what_is_not_decided_and_no_more(
    text: str, stops: list[str]
) -> None:
    """What has been shown is what every way to go on has in common."""
    futures = [
        cut(text + "".join(end), stops)
        for length in range(5)
        for end in product("abc", repeat=length)
    ]
    shown: list[str] = []

    def pieces() -> Iterator[str]:
        yield text
        decided.append("".join(shown))

    decided: list[str] = []
    for piece in until(pieces(), stops):
        shown.append(piece)
    if decided:  # it asked for more
        shared = max(
            (
                text[:n]
                for n in range(len(text) + 1)
                if all(future.startswith(text[:n]) for future in futures)
            ),
            key=len,
        )
        assert decided == [shared]
    else:
        assert set(futures) == {"".join(shown)}


# Predictions.


def test_predict(babbler: GPT2, tokenizer: Tokenizer) -> None:
    found = predict(babbler, tokenizer, "aé", 257, seed=1)
    assert found.ids == tuple(tokenizer.encode("aé"))
    assert found.texts == ("a", "\ufffd", "\ufffd")
    with torch.no_grad():
        logits = babbler(torch.tensor([found.ids]))[0, -1]
    best = found.candidates
    assert sorted(candidate.id for candidate in best) == list(range(257))
    assert [candidate.logit for candidate in best] == pytest.approx(
        logits.sort(descending=True).values.tolist(), abs=1e-5
    )
    expected = logits.softmax(-1)
    for candidate in best:
        assert candidate.text == tokenizer.decode([candidate.id])
        assert candidate.logit == pytest.approx(
            float(logits[candidate.id]), abs=1e-5
        )
        share = pytest.approx(float(expected[candidate.id]))
        assert candidate.probability == candidate.chance == share
    assert sum(c.probability for c in best) == pytest.approx(1)
    assert found.sampled in best


def test_predict_names_as_many_as_asked_for(
    babbler: GPT2, tokenizer: Tokenizer
) -> None:
    everything = predict(babbler, tokenizer, "x", 999, seed=0).candidates
    assert len(everything) == 257
    few = predict(babbler, tokenizer, "x", 3, seed=0).candidates
    assert few == everything[:3]
    assert len(predict(babbler, tokenizer, "x").candidates) == 10


@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 3},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_p": 0.6, "min_p": 0.1},
        {"repetition_penalty": 1.5},
        {"temperature": 0},
    ],
)
def test_predict_with_filters(
    babbler: GPT2, tokenizer: Tokenizer, filters: dict[str, float]
) -> None:
    tokens = torch.tensor([tokenizer.encode("wxyz")])
    plain = predict(babbler, tokenizer, "wxyz", 257, seed=0)
    with torch.no_grad():
        logits = babbler(tokens)[:, -1]
    sampling = Sampling(**filters)
    chances = sampling.filter(logits, tokens).softmax(-1)[0]
    for seed in range(5):
        found = predict(babbler, tokenizer, "wxyz", 257, sampling, seed=seed)
        for candidate, before in zip(
            found.candidates, plain.candidates, strict=True
        ):
            # What the model says is not changed by how one draws from it.
            assert candidate.logit == before.logit
            assert candidate.probability == before.probability
            chance = float(chances[candidate.id])
            assert candidate.chance == pytest.approx(chance, abs=1e-6)
        assert sum(c.chance for c in found.candidates) == pytest.approx(1)
        assert found.sampled in found.candidates
        assert found.sampled.chance > 0
        first = generate(babbler, tokens, 1, sampling, seed=seed)[0, -1]
        assert found.sampled.id == int(first)


@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 0}]
)
def test_predict_knows_only_tokens(
    babbler: GPT2, tokenizer: Tokenizer, filters: dict[str, float]
) -> None:
    """Probabilities, too, are those of the model without further rows."""
    wide, sampling = with_spare_rows(babbler), Sampling(**filters)
    for seed in range(5):
        found = predict(wide, tokenizer, "aé", 999, sampling, seed=seed)
        expected = predict(babbler, tokenizer, "aé", 999, sampling, seed=seed)
        assert found.sampled.id == expected.sampled.id
        assert sorted(c.id for c in found.candidates) == list(range(257))
        for name in ("logit", "probability", "chance"):
            assert [getattr(c, name) for c in found.candidates] == (
                pytest.approx(
                    [getattr(c, name) for c in expected.candidates], abs=1e-6
                )
            )
        assert sum(c.probability for c in found.candidates) == (
            pytest.approx(1)
        )


def test_predict_at_the_edges(babbler: GPT2, tokenizer: Tokenizer) -> None:
    assert len(predict(babbler, tokenizer, "x" * 32).ids) == 32
    with pytest.raises(ValueError, match="33 tokens"):
        predict(babbler, tokenizer, "x" * 33)
    empty = predict(babbler, tokenizer, "")
    assert empty.texts == (END_OF_TEXT,)
    with pytest.raises(ValueError, match="seed must be"):
        predict(babbler, tokenizer, "x", seed=-1)


def test_predict_without_dropout(babbler: GPT2, tokenizer: Tokenizer) -> None:
    expected = predict(babbler, tokenizer, "x", seed=0)
    babbler.train()
    assert predict(babbler, tokenizer, "x", seed=0) == expected
    assert babbler.training


def test_a_prompt_begins_a_text_where_the_tokenizer_asks_for_it(tmp_path):
    plain = Tokenizer.bytes_only()
    asks = Tokenizer(plain.ranks, plain.special_tokens, add_bos_token=True)
    end = plain.end_of_text
    for prompt in ("", "ab"):
        ids = plain.encode(prompt)
        assert encode_prompt(asks, prompt) == [end, *ids]
        assert encode_prompt(plain, prompt) == (ids or [end])
        assert asks.encode(prompt) == ids
    for tokenizer in (asks, plain):
        tokenizer.save(tmp_path)
        again = Tokenizer.load(tmp_path)
        assert again.add_bos_token is tokenizer.add_bos_token
