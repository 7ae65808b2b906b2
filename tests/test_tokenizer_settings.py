"""Settings of tokenizers: the ids of other programs, or a refusal by name.

Folders are written by tokenizers and by transformers, with small vocabularies
of their own, and read by this package, and the other way round.
"""

import random
from itertools import product

import pytest

from gpt2.tokenizer.bpe import END_OF_TEXT
from gpt2.tokenizer.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "Ella lost her red cap, 1234 times. And then Ben found it: it's 567!",
    "  Größe, naïve cafe\u0301, ﬁne ①②, 日本語, 각각, 😀 …\n\n\tlast 2,000\n",
] * 30
PIECES = [
    *["Ella", " lost", "her", "'s", "'S", " ", "  ", "\n", "\t", "\u3000"],
    *["1", "12", " 3", "4 ", "①", "½", "٣", ".", ", ", "(", "é", "e\u0301"],
    *["ﬁ", "각", "\u1100\u1161", "Å", "日本", "😀", "\u0345", "\u200d", "_"],
    *["<s>", "</s>", END_OF_TEXT, "<mask>", "kite", "kites", "akite", "e"],
]
BYTE_LEVEL = pre_tokenizers.ByteLevel
SPECIAL = ["<s>", "</s>", "<unk>", "<mask>", END_OF_TEXT]


def texts(seed: int, number: int = 60) -> list[str]:
    """Short texts at random, on which the settings differ."""
    rng = random.Random(seed)
    return ["", *CORPUS[:2]] + [
        "".join(rng.choices(PIECES, k=rng.randint(1, 12)))
        for _ in range(number)
    ]


def trained(
    pre=None, norm=None, post=None, added=(), special=SPECIAL, model=(), full=1
):
    """Train a tokenizer with tokenizers."""
    tokenizer = tokenizers.Tokenizer(models.BPE(**dict(model)))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre or BYTE_LEVEL(add_prefix_space=False)
    if norm is not None:
        tokenizer.normalizer = norm
    trainer = trainers.BpeTrainer(
        vocab_size=400 if full else 120,
        special_tokens=list(special),
        initial_alphabet=BYTE_LEVEL.alphabet() if full else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if post is not None:
        tokenizer.post_processor = post
    tokenizer.add_tokens(list(added))
    return tokenizer


def assert_same(ours: Tokenizer, ids_of, seed: int) -> None:
    """Check that two tokenizers give the same ids, prompts included."""
    for text in texts(seed):
        expected = ids_of(text)
        if not expected:  # a model needs something to continue
            expected = [ours.start_of_text]
        assert ours.encode_prompt(text, allow_special=True) == expected, text
        plain = ours.encode(text, allow_special=True)
        slow = ours.encode_slowly(text, allow_special=True)
        assert plain == slow, text
        before, after = len(ours.settings.before), len(ours.settings.after)
        if plain:
            assert plain == expected[before : len(expected) - after]


SPLITS = {
    "gpt2": BYTE_LEVEL(add_prefix_space=False),
    "prefix": BYTE_LEVEL(),
    "digits": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            BYTE_LEVEL(add_prefix_space=False),
        ]
    ),
    "digits, prefix": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL()]
    ),
    "numbers": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=False),
            BYTE_LEVEL(add_prefix_space=False),
        ]
    ),
    "spelled out": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(
                    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+"
                    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
                ),
                "isolated",
            ),
            BYTE_LEVEL(add_prefix_space=False, use_regex=False),
        ]
    ),
}
NORMALIZERS = {
    "none": None,
    "NFC": normalizers.NFC(),
    "NFKD, NFC": normalizers.Sequence([normalizers.NFKD(), normalizers.NFC()]),
}
POSTS = {
    "none": None,
    "offsets": processors.ByteLevel(trim_offsets=True),
    "around": processors.TemplateProcessing(
        "<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    ),
    "in front": processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                "<|endoftext|> $A", special_tokens=[(END_OF_TEXT, 4)]
            ),
        ]
    ),
    "roberta": processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
}
ADDED = {
    "none": (),
    "words": ("kite", AddedToken("kites", normalized=False), "e", "é"),
    "flags": (
        AddedToken("kite", single_word=True),
        AddedToken("<mask>", lstrip=True, special=True),
        AddedToken("her", rstrip=True, lstrip=True, normalized=False),
    ),
}
# Every setting with every other would be 270 folders.
FOLDERS = random.Random(0).sample(
    list(product(SPLITS, NORMALIZERS, POSTS, ADDED)), 50
)


@pytest.mark.parametrize("names", FOLDERS, ids=" | ".join)
def test_ids_are_those_of_tokenizers(names, tmp_path):
    split, norm, post, added = names
    theirs = trained(
        SPLITS[split], NORMALIZERS[norm], POSTS[post], ADDED[added]
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    seed = FOLDERS.index(names)
    assert_same(ours, lambda text: theirs.encode(text).ids, seed)
    ours.save(tmp_path / "ours")
    again = Tokenizer.load(tmp_path / "ours")
    assert again.ranks == ours.ranks
    assert again.special_tokens == ours.special_tokens
    assert again.settings == ours.settings
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert_same(ours, lambda text: auto(text)["input_ids"], seed)
    assert len(auto) == ours.n_vocab
    assert auto.eos_token_id == ours.end_of_text
