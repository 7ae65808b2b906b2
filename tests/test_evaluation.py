"""Scores, losses and grades, compared with sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2.config import GPT2Config
from gpt2.evaluation.text import (
    Choice,
    choose_endings,
    continues_greedily,
    last_word,
    score,
    text_loss,
)
from gpt2.model import GPT2, next_token_loss
from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.tokenizer.tokenizer import Tokenizer

BYTES = Tokenizer.bytes_only()
CONFIG = GPT2Config(n_vocab=257, n_ctx=16, n_embd=12, n_head=3, n_layer=2)


@pytest.fixture
def writer(shake) -> GPT2:
    """A random model of bytes, far from uniform."""
    return shake(GPT2(CONFIG)).eval()


def by_hand(model: GPT2, ids: list[int]) -> list[float]:
    """The log-probability of each id but the first, with one call each."""
    found = []
    for n in range(1, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:n]]))[0, -1].double()
        highest = float(logits.max())
        shifted = [math.exp(x - highest) for x in logits.tolist()]
        own = math.exp(logits[ids[n]] - highest)
        found.append(math.log(own / sum(shifted)))
    return found


def test_score_of_each_token(writer: GPT2) -> None:
    sequences = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    for batch_size in (1, 2, 3):
        scores = list(score(writer, sequences, batch_size))
        for one, ids in zip(scores, sequences, strict=True):
            expected = torch.tensor(by_hand(writer, ids))
            torch.testing.assert_close(one.log_probabilities, expected)


def test_likeliest_is_what_greedy_decoding_writes(writer: GPT2) -> None:
    ids = [65]
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(writer(torch.tensor([ids]))[0, -1].argmax()))
    wrong = [*ids[:4], (ids[4] + 1) % 257, *ids[5:]]
    right, other = score(writer, [ids, wrong])
    assert right.likeliest.all()
    assert other.likeliest[:3].all()
    assert not other.likeliest[3]


def test_score_is_the_loss(writer: GPT2) -> None:
    ids = list(range(40, 57))
    (one,) = score(writer, [ids])
    loss = next_token_loss(writer, torch.tensor([ids]))
    torch.testing.assert_close(-one.log_probabilities.mean(), loss)
    assert one.nats == pytest.approx(16 * loss.item())
    assert repr(one) == f"Score(n_tokens=16, nats={one.nats:.4f})"


def test_only_the_last_tokens_are_scored(writer: GPT2) -> None:
    sequences = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    whole = score(writer, sequences)
    for n, one, ends in zip(
        (2, 1, 2),
        whole,
        score(writer, sequences, 2, n_last=[2, 1, 2]),
        strict=True,
    ):
        torch.testing.assert_close(
            ends.log_probabilities, one.log_probabilities[-n:]
        )
        assert torch.equal(ends.likeliest, one.likeliest[-n:])


@pytest.mark.parametrize("n_last", [0, 3, -1])
def test_score_refuses_more_tokens_than_can_be_predicted(
    writer: GPT2, n_last: int
) -> None:
    with pytest.raises(ValueError, match=f"n_last.* 2 .*{n_last}$"):
        score(writer, [[1, 2], [1, 2, 3]], n_last=[1, n_last])


class Plain:
    """A language model that is not a module, like a packed model."""

    def __init__(self, model: GPT2) -> None:
        self.model, self.config, self.device = model, model.config, "cpu"

    def __call__(self, tokens, attention_mask=None, **options):
        return self.model(tokens, attention_mask, **options)


def test_a_model_need_not_be_a_module(writer: GPT2) -> None:
    text = "The fog was as thick as porridge."
    plain = text_loss(Plain(writer), BYTES, text)
    assert plain == text_loss(writer, BYTES, text)
    question = Choice("Moo", (" a", " the dog", " no."), 0)
    asked = [("Moo", " a"), ("x", "b")]
    for model in (writer, Plain(writer)):
        found = (
            choose_endings(model, BYTES, [question]),
            continues_greedily(model, BYTES, asked),
        )
        assert found == (
            choose_endings(writer, BYTES, [question]),
            continues_greedily(writer, BYTES, asked),
        )


def test_score_is_without_dropout_and_leaves_the_mode(writer: GPT2) -> None:
    expected = next(iter(score(writer, [[1, 2, 3]]))).log_probabilities
    writer.train()
    again = next(iter(score(writer, [[1, 2, 3]]))).log_probabilities
    assert torch.equal(expected, again)
    assert writer.training


@pytest.mark.parametrize("ids", [[], [1], list(range(18))])
def test_score_refuses_lengths(writer: GPT2, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"\b2 .*\b17\b.*{len(ids)}$"):
        list(score(writer, [ids]))


@pytest.mark.parametrize("strange", [257, -1, -100])
@pytest.mark.parametrize("place", [0, 2])
def test_score_refuses_ids(writer: GPT2, place: int, strange: int) -> None:
    """At once, and also in the last place, which is only a target."""
    ids = [1, 2, 3]
    ids[place] = strange
    with pytest.raises(ValueError, match=f"tokens .*{strange}$"):
        score(writer, [[1, 2], ids])


def test_a_half_read_score_leaves_the_mode(writer: GPT2) -> None:
    writer.train()
    scores = score(writer, [[1, 2, 3], [4, 5, 6]], batch_size=1)
    next(scores)
    assert all(module.training for module in writer.modules())


# --- text ---


def windows_by_hand(model: GPT2, text: str, stride: int) -> float:
    """The loss of a text, window by window and token by token."""
    ids = [256, *BYTES.encode(text)]
    nats, begin, done = 0.0, 0, 1
    while done < len(ids):
        window = ids[begin : begin + 17]
        for place, log_p in enumerate(by_hand(model, window), 1):
            if begin + place >= done:
                nats -= log_p
        done = begin + len(window)
        begin += stride
    return nats


@pytest.mark.parametrize("stride", [1, 3, 8, 16])
def test_sliding_window(writer: GPT2, stride: int) -> None:
    text = "The fog was as thick as porridge."
    loss = text_loss(writer, BYTES, text, stride=stride)
    assert loss.n_tokens == loss.n_bytes == len(text)
    assert loss.nats == pytest.approx(windows_by_hand(writer, text, stride))


def test_a_text_that_fits_is_one_window(writer: GPT2) -> None:
    loss = text_loss(writer, BYTES, "Moo.")
    expected = -sum(by_hand(writer, [256, *BYTES.encode("Moo.")]))
    assert loss.nats == pytest.approx(expected)
    for number in (f"{expected / 4:.4f} nats", f"{loss.perplexity:.3f}"):
        assert number in repr(loss)
    assert loss.nats_per_token == pytest.approx(expected / 4)
    assert loss.perplexity == pytest.approx(math.exp(expected / 4))
    assert loss.bits_per_byte == pytest.approx(expected / 4 / math.log(2))


def test_bytes_are_counted_in_utf_8(writer: GPT2) -> None:
    loss = text_loss(writer, BYTES, "Größe")
    assert loss.n_bytes == 7


def test_special_tokens_may_be_text(writer: GPT2) -> None:
    text = f"Moo.{END_OF_TEXT}Baa."
    plain = text_loss(writer, BYTES, text, allow_special=False)
    assert plain.n_tokens == plain.n_bytes == len(text)
    assert plain.nats == pytest.approx(windows_by_hand(writer, text, 8))
    both = text_loss(writer, BYTES, [text, text], allow_special=False)
    assert both.nats == pytest.approx(2 * plain.nats)
    with pytest.raises(ValueError, match="empty text"):
        text_loss(writer, BYTES, END_OF_TEXT * 2)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    model = GPT2(CONFIG)
    torch.nn.init.zeros_(model.wte.weight)
    loss = text_loss(model, BYTES, "anything at all, however long it may be")
    assert loss.perplexity == pytest.approx(257)
    assert loss.bits_per_byte == pytest.approx(math.log2(257))


def test_text_loss_refuses(writer: GPT2) -> None:
    with pytest.raises(ValueError, match="empty text"):
        text_loss(writer, BYTES, "")
    for stride in (0, 17):
        with pytest.raises(ValueError, match=rf"stride .*\b16\b.*{stride}$"):
            text_loss(writer, BYTES, "text", stride=stride)


def test_documents_are_measured_one_by_one(writer: GPT2) -> None:
    texts = ["The fog was as thick as porridge.", "Moo.", "Größe"]
    alone = [text_loss(writer, BYTES, text, stride=5) for text in texts]
    for text in (
        END_OF_TEXT.join(texts),
        "".join(
            f"{END_OF_TEXT}{END_OF_TEXT}{text}{END_OF_TEXT}" for text in texts
        ),
    ):
        whole = text_loss(writer, BYTES, text, stride=5)
        assert whole.nats == pytest.approx(sum(one.nats for one in alone))
        assert whole.n_tokens == whole.n_bytes == 33 + 4 + 7
    with pytest.raises(ValueError, match="empty text"):
        text_loss(writer, BYTES, END_OF_TEXT)


def test_names_of_special_tokens_mean_the_tokens() -> None:
    """As in the corpus that a model is trained on."""
    user = Tokenizer(BYTES.ranks, {END_OF_TEXT: 256, "<|user|>": 257})
    model = GPT2(replace(CONFIG, n_vocab=258))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.bias.fill_(1)
        model.wte.weight[257] = 1.0  # whatever came before, the user is next
    likely, other = (
        text_loss(model, user, text) for text in ("<|user|>", "u")
    )
    assert likely.n_tokens == 1
    assert likely.n_bytes == len("<|user|>")
    assert likely.nats < other.nats - 10
    question = Choice("<|user|>" * 9, ("aaaa", "<|user|>"), 1)
    assert choose_endings(model, user, [question]).n_right == 1
    asked = [("<|user|>", "<|user|>" * 2), ("", "<")]
    assert continues_greedily(model, user, asked) == [True, False]


# --- choices ---


class Biased(GPT2):
    """Always the same logits: `a` at e**2 to 1, `b` at e to 1."""

    def forward(self, tokens, attention_mask=None, **_):
        logits = torch.zeros(*tokens.shape, 257)
        logits[..., BYTES.encode("a")] = 2.0
        logits[..., BYTES.encode("b")] = 1.0
        return logits


def test_normalised_by_length() -> None:
    model = Biased(CONFIG)
    # One b against four a: the sum prefers the short, the mean the likelier.
    questions = [
        Choice("x", ("b", "aaaa"), 0),
        Choice("x", ("b", "aaaa"), 1),
        Choice("", ("c", "a", "b"), 1),
    ]
    result = choose_endings(model, BYTES, questions, batch_size=2)
    assert result.n_questions == 3
    assert result.n_right == 2  # the first and the last
    assert result.n_right_normalized == 2  # the second and the last


def test_endings_are_scored_after_their_context(writer: GPT2) -> None:
    """The choice does not depend on which ending is labelled right."""
    context, endings = "Moo", (" a", " the dog", " no.")
    sums, means = [], []
    for ending in endings:
        ids = BYTES.encode(context + ending)
        costs = by_hand(writer, ids)[2:]
        sums.append(sum(costs))
        means.append(sum(costs) / len(ending))
    best, best_mean = sums.index(max(sums)), means.index(max(means))
    whole = [
        sum(by_hand(writer, BYTES.encode(context + ending))) / len(ending)
        for ending in endings
    ]
    assert best_mean != whole.index(max(whole)), "the context must matter"
    for label in range(3):
        result = choose_endings(
            writer, BYTES, [Choice(context, endings, label)]
        )
        assert result.n_right == (label == best)
        assert result.n_right_normalized == (label == best_mean)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_is_one_of_the_endings(writer: GPT2, label: int) -> None:
    with pytest.raises(ValueError, match=f"label .*2.*{label} for 'Moo'"):
        choose_endings(writer, BYTES, [Choice("Moo", ("a", "b", "c"), label)])


def test_an_empty_ending_or_answer_is_refused(writer: GPT2) -> None:
    with pytest.raises(ValueError, match=r"empty.*'Moo'"):
        choose_endings(writer, BYTES, [Choice("Moo", ("a", ""), 0)])
    with pytest.raises(ValueError, match=r"'Moo'.*empty"):
        continues_greedily(writer, BYTES, [("Moo", "")])


def test_nothing_is_scored_letter_by_letter(writer: GPT2) -> None:
    with pytest.raises(ValueError, match=r"endings must .*'red'"):
        Choice("Moo", "red", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pairs .*'ab'"):
        continues_greedily(writer, BYTES, ["ab"])  # type: ignore[list-item]


def test_a_question_that_does_not_fit_is_named(writer: GPT2) -> None:
    fits = Choice("x" * 14, ("abc", "a"), 0)
    assert choose_endings(writer, BYTES, [fits]).n_questions == 1
    for ending in ("abcd", "a"):
        question = Choice("Moo" + "x" * 11, (ending, "abcd"), 0)
        with pytest.raises(ValueError, match=r"17 tokens; .* 14 and 4 .*Moo"):
            choose_endings(writer, BYTES, [fits, question])


def test_no_questions_are_refused(writer: GPT2) -> None:
    with pytest.raises(ValueError, match="questions"):
        choose_endings(writer, BYTES, [])


# --- last words ---


def test_continues_greedily() -> None:
    model = Biased(CONFIG)
    answers = {
        ("x", "a"): True,
        ("x", "aaa"): True,
        ("x", "ab"): False,
        ("x", "ba"): False,
        ("x", "b"): False,
        ("", "a"): True,
    }
    found = continues_greedily(model, BYTES, list(answers), 2)
    assert found == list(answers.values())


class Padded(Biased):
    """The same with three more rows, each likelier than `a`."""

    def forward(self, tokens, attention_mask=None, **_):
        logits = super().forward(tokens)
        return torch.nn.functional.pad(logits, (0, 3), value=5.0)


def test_losses_are_over_all_rows_and_answers_over_tokens() -> None:
    model = Padded(replace(CONFIG, n_vocab=260))
    (one,) = score(model, [[1, *BYTES.encode("ab")]])
    total = 255 + math.exp(2) + math.exp(1) + 3 * math.exp(5)
    expected = torch.tensor([2.0, 1.0]) - math.log(total)
    torch.testing.assert_close(one.log_probabilities, expected)
    loss = text_loss(model, BYTES, "ab").nats
    assert loss == pytest.approx(-float(expected.sum()))
    # Greedy decoding never answers with a row that has no token.
    asked = [("x", "aaa"), ("x", "ab")]
    assert continues_greedily(model, BYTES, asked) == [True, False]


class FirstWins(GPT2):
    """Predicts the first token of its input, everywhere."""

    def forward(self, tokens, attention_mask=None, **_):
        first = torch.nn.functional.one_hot(tokens[:, :1], 257)
        return first.expand(-1, tokens.size(1), -1).float()


def test_a_long_prompt_keeps_its_end() -> None:
    prompt = "nothing of this is read, but the end"
    asked = [(prompt, prompt[-16]), (prompt, prompt[0]), ("ab", "a")]
    assert prompt[-16] != prompt[0]
    found = continues_greedily(FirstWins(CONFIG), BYTES, asked)
    assert found == [True, False, False]  # the last began with an end of text


def test_last_word() -> None:
    assert last_word("the cat sat\n") == ("the cat", " sat")
    for text in ("cat", " cat", " cat "):
        with pytest.raises(ValueError, match=r"two.*cat"):
            last_word(text)


def test_tokenizer_is_the_right_size(tmp_path: Path) -> None:
    assert BYTES.n_vocab == CONFIG.n_vocab
    assert BYTES.end_of_text == 256
