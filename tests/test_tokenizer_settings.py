"""Settings of tokenizers: the ids of other programs, or a refusal by name.

Folders are written by tokenizers and by transformers, with small vocabularies
of their own, and read by this package, and the other way round.
"""

import json
import random
import re
import unicodedata
import warnings
from itertools import product

import pytest

from gpt2.config import GPT2Config
from gpt2.tokenizer.bpe import END_OF_TEXT, TokenizerError
from gpt2.tokenizer.settings import Finding, Settings
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.loading import read_tokenizer

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


def assert_same(ours: Tokenizer, encode, seed: int) -> None:
    """Check that two tokenizers give the same ids, prompts included."""
    for text in texts(seed):
        expected = encode(text)
        if not expected:  # a model needs something to continue
            expected = [ours.start_of_text]
        assert ours.encode_prompt(text, allow_special=True) == expected, text
        plain = ours.encode(text, allow_special=True)
        slow = ours.encode_slowly(text, allow_special=True)
        assert plain == slow, text
        before, after = len(ours.settings.before), len(ours.settings.after)
        if plain:
            assert plain == expected[before : len(expected) - after]


def ids_of(theirs):
    """Return the function from a text to ids of transformers' tokenizer."""
    return lambda text: theirs(text)["input_ids"]


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
    assert_same(ours, ids_of(auto), seed)
    assert len(auto) == ours.n_vocab
    assert auto.eos_token_id == ours.end_of_text


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normalization_is_that_of_tokenizers(form):
    """But for newer characters, which tokenizers leaves as they are."""
    normalizer = getattr(normalizers, form)()
    settings = Settings(normalizers=(form,))
    every = list(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    newer = [
        c
        for c in every
        if normalizer.normalize_str(c) != settings.normalize(c)
    ]
    assert all(normalizer.normalize_str(c) == c for c in newer)
    assert len(newer) < 200
    # In any order: marks are sorted, and what belongs together is composed.
    marks = [c for c in every if unicodedata.combining(c) and c < "\u0700"]
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(["a", "é", "각", "\u11a8", *marks], k=6))
        assert settings.normalize(text) == normalizer.normalize_str(text)


# What is refused


def ignored(**options):
    """Write a step for tokenizers that need not exist."""
    return lambda whole: whole.update(options)


def in_model(**options):
    return lambda whole: whole["model"].update(options)


def split_by(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            BYTE_LEVEL(add_prefix_space=False, use_regex=False),
        ]
    )


REFUSED = {
    "lowercase": (dict(norm=normalizers.Lowercase()), "normalizer.*Lowercase"),
    "one of two": (
        dict(
            norm=normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
        ),
        "normalizer.*Strip",
    ),
    "prepend": (dict(norm=normalizers.Prepend(" ")), "normalizer.*Prepend"),
    "no pattern": (
        dict(pre=BYTE_LEVEL(add_prefix_space=False, use_regex=False)),
        "pre_tokenizer.*use_regex",
    ),
    "own pattern": (
        dict(pre=split_by(Regex(r"\\p{N}{1,3}| ?\\p{L}+|.+?"))),
        "pre_tokenizer.*Split",
    ),
    "white space": (
        dict(
            pre=pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Whitespace(),
                    BYTE_LEVEL(add_prefix_space=False),
                ]
            )
        ),
        "pre_tokenizer.*Whitespace",
    ),
    "digits behind": (
        dict(
            pre=pre_tokenizers.Sequence(
                [BYTE_LEVEL(add_prefix_space=False), pre_tokenizers.Digits()]
            )
        ),
        "pre_tokenizer.*Digits",
    ),
    "metaspace": (
        dict(pre=pre_tokenizers.Metaspace()),
        "pre_tokenizer.*Metaspace",
    ),
    "text twice": (
        dict(post=processors.TemplateProcessing("$A $A", special_tokens=[])),
        "post_processor.*Template",
    ),
}
CHANGED = {
    "no split": (ignored(pre_tokenizer=None), "pre_tokenizer null"),
    "odd split": (ignored(pre_tokenizer=[1]), r"pre_tokenizer \[1\]"),
    "odd form": (ignored(normalizer="NFC"), 'normalizer "NFC"'),
    "another decoder": (
        ignored(decoder={"type": "WordPiece"}),
        "decoder.*WordPiece",
    ),
    "odd template": (
        ignored(post_processor={"type": "TemplateProcessing"}),
        "post_processor",
    ),
    "unknown template": (
        ignored(post_processor={"type": "Other"}),
        "post_processor.*Other",
    ),
    "template beyond": (
        ignored(
            post_processor={
                "type": "BertProcessing",
                "sep": ["</s>", 1],
                "cls": ["?", 9999],
            }
        ),
        r"\b9999\b",
    ),
    "dropout": (in_model(dropout=0.1), r"dropout 0\.1"),
    "fallback": (in_model(byte_fallback=True), "byte_fallback true"),
    "suffix": (in_model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    "prefix": (in_model(continuing_subword_prefix="##"), "subword_prefix"),
    "unigram": (in_model(type="Unigram"), "Unigram"),
    "odd flag": (
        lambda whole: whole["added_tokens"][0].update(lstrip=1),
        "'lstrip'.* 1$",
    ),
    "odd special": (
        lambda whole: whole["added_tokens"][0].update(special=None),
        "'special'.* None$",
    ),
}
CONFIGS = {
    "no space": ({"add_prefix_space": False}, BYTE_LEVEL(), None),
    "a space": ({"add_prefix_space": True}, None, None),
    "no bos": ({"add_bos_token": False}, None, POSTS["in front"]),
    "other bos": (
        {"add_bos_token": True, "bos_token": "</s>"},
        None,
        POSTS["in front"],
    ),
    "no eos": ({"add_eos_token": False}, None, POSTS["around"]),
}


def refused(folder, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(folder))


@pytest.mark.parametrize("name", REFUSED)
def test_other_steps_are_refused_by_name(name, tmp_path):
    options, message = REFUSED[name]
    trained(**options).save(str(tmp_path / "tokenizer.json"))
    refused(tmp_path, rf"tokenizer\.json.*{message}")


@pytest.mark.parametrize("name", CHANGED)
def test_other_options_are_refused_by_name(name, tmp_path):
    change, message = CHANGED[name]
    whole = json.loads(trained().to_str())
    change(whole)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    refused(tmp_path, rf"tokenizer\.json.*{message}")


@pytest.mark.parametrize("name", CONFIGS)
def test_two_files_that_disagree_are_refused(name, tmp_path):
    config, pre, post = CONFIGS[name]
    trained(pre, post=post).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    key = next(iter(config))
    refused(tmp_path, rf"tokenizer_config\.json sets {key}.*tokenizer\.json")


def test_options_that_change_nothing_pass(tmp_path):
    theirs = trained()
    whole = json.loads(theirs.to_str())
    whole["model"] |= {"ignore_merges": True, "unk_token": "<unk>"}
    whole["truncation"] = {"max_length": 3}
    whole["decoder"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    ours = Tokenizer.load(tmp_path)
    assert_same(ours, lambda text: theirs.encode(text).ids, 0)
    assert ours.settings == Settings()


# Bytes, names and ends


def test_a_byte_that_is_missing_is_refused_where_it_is_needed(tmp_path):
    theirs = trained(full=0)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    for text in CORPUS[:2]:
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.encode(text) == ours.encode_slowly(text)
    for encode in (ours.encode, ours.encode_slowly, ours.encode_prompt):
        with pytest.raises(TokenizerError, match=r"0x71.*'quite'"):
            encode("quite")
    with pytest.raises(TokenizerError, match="0xff"):
        ours.encode_bytes(b"\xff")
    ours.save(tmp_path / "ours")
    assert Tokenizer.load(tmp_path / "ours").ranks == ours.ranks


FILES = {
    "tokenizer_config.json": {"eos_token": "</s>", "bos_token": "<s>"},
    "special_tokens_map.json": {"eos_token": {"content": "</s>"}},
    "config.json": {"eos_token_id": 1, "bos_token_id": [0, 1]},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("special", [SPECIAL, SPECIAL[:4]], ids=len)
@pytest.mark.parametrize("one", [True, False], ids=["one file", "two files"])
def test_the_folder_names_the_end_of_a_text(name, special, one, tmp_path):
    theirs = trained(special=special)
    if one:
        theirs.save(str(tmp_path / "tokenizer.json"))
    else:
        theirs.model.save(str(tmp_path))
    (tmp_path / name).write_text(json.dumps(FILES[name]))
    ours = Tokenizer.load(tmp_path)
    assert ours.end_of_text == theirs.token_to_id("</s>") == 1
    begins = (
        0 if "bos" in str(FILES[name]) else theirs.token_to_id(END_OF_TEXT)
    )
    assert ours.start_of_text == (1 if begins is None else begins)
    assert ours.encode_prompt("") == [ours.start_of_text]
    ours.save(tmp_path / "ours")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert auto.eos_token_id == 1
    assert auto.bos_token_id == ours.start_of_text
    assert len(auto) == ours.n_vocab == theirs.get_vocab_size()
    again = Tokenizer.load(tmp_path / "ours")
    assert again.settings == ours.settings
    assert again.special_tokens == ours.special_tokens


def test_what_somebody_chose_goes_before_the_default(tmp_path):
    theirs = trained()
    theirs.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    model = tmp_path / "config.json"
    end = theirs.token_to_id(END_OF_TEXT)
    for named, number, expected in (
        (END_OF_TEXT, 1, 1),  # a default, and a choice
        ("</s>", end, 1),
        ("</s>", 0, 1),  # the tokenizer's own file goes first
        ("</s>", 50256, 1),  # transformers' default for the model
        (END_OF_TEXT, 50256, end),
        (None, 300, end),  # an ordinary token ends nothing
    ):
        config.write_text(json.dumps({"eos_token": named}))
        model.write_text(json.dumps({"eos_token_id": number}))
        assert Tokenizer.load(tmp_path).end_of_text == expected


def test_without_an_end_the_error_says_how_to_name_one(tmp_path):
    trained(special=["<s>", "</s>"]).save(str(tmp_path / "tokenizer.json"))
    refused(tmp_path, r"'<s>', '</s>'.*tokenizer_config\.json.*eos_token")


ODD_CONFIGS = {
    "eos number": ({"eos_token": 5}, "'eos_token'.*5$"),
    "eos empty": ({"eos_token": ""}, "'eos_token'.*''$"),
    "extra": ({"extra_special_tokens": "a"}, "'extra_special_tokens'.*'a'"),
    "extra none": ({"extra_special_tokens": [None]}, "extra.*None$"),
    "space": ({"add_prefix_space": "yes"}, "'add_prefix_space'.*'yes'"),
    "decoder": ({"added_tokens_decoder": []}, "added_tokens_decoder"),
    "decoder key": ({"added_tokens_decoder": {"x": {}}}, "'x'"),
    "decoder token": ({"added_tokens_decoder": {"1": "x"}}, "'1'.*'x'"),
    "decoder flag": (
        {"added_tokens_decoder": {"1": {"content": "a", "rstrip": 1}}},
        "'rstrip'.*1$",
    ),
    "class": ({"tokenizer_class": "BertTokenizer"}, "'BertTokenizer'"),
}


@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_odd_names_and_settings_are_refused(name, tmp_path):
    config, message = ODD_CONFIGS[name]
    trained().model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    refused(tmp_path, rf"tokenizer_config\.json.*{message}")


@pytest.mark.parametrize(
    "name", ["vocab.txt", "tokenizer.model", "spiece.model", "tekken.json"]
)
def test_vocabularies_of_other_kinds_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_text("[PAD]\n[UNK]\n")
    refused(tmp_path, re.escape(name))
    assert Tokenizer.find(tmp_path) == (tmp_path / name, tmp_path / name)


def test_saving_removes_vocabularies_of_other_kinds(tmp_path):
    names = ("vocab.txt", "tokenizer.model", "tokenizer.json")
    for name in names:
        (tmp_path / name).write_text("")
    BYTES.save(tmp_path)
    assert not any((tmp_path / name).exists() for name in names)
    spaced = Tokenizer(
        BYTES.ranks, BYTES.special_tokens, settings=Settings(digits=r"\p{N}")
    )
    spaced.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json"}


def test_no_vocabulary_stands_in_for_one_of_another_kind(tmp_path):
    """Even if the model has as many rows as GPT-2."""
    config = GPT2Config()
    for name in ("config.json", "tokenizer_config.json"):
        path = tmp_path / name
        path.write_text('{"tokenizer_class": "BertTokenizer"}')
        with pytest.raises(TokenizerError, match=f"{name}.*BertTokenizer"):
            read_tokenizer(tmp_path, config)
        path.unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]")
    with pytest.raises(TokenizerError, match=r"vocab\.txt.*WordPiece"):
        read_tokenizer(tmp_path, config)


# Folders of transformers


BYTES = Tokenizer.bytes_only()
OWN = Tokenizer.train(CORPUS, 340)


def opened(folder, **options):
    return transformers.AutoTokenizer.from_pretrained(folder, **options)


def test_what_transformers_saves_has_the_same_ids(tmp_path):
    """The opening token, words and special tokens all stay what they were."""
    with_bos = Tokenizer(OWN.ranks, OWN.special_tokens, add_bos_token=True)
    for number, tokenizer in enumerate((OWN, with_bos)):
        tokenizer.save(tmp_path / "ours")
        theirs = opened(tmp_path / "ours")
        theirs.add_tokens(["kite", AddedToken("kites", normalized=False)])
        theirs.add_special_tokens({"pad_token": "<s>", "eos_token": "</s>"})
        theirs.save_pretrained(tmp_path / "theirs")
        ours = Tokenizer.load(tmp_path / "theirs")
        assert ours.add_bos_token is tokenizer.add_bos_token
        assert ours.end_of_text == theirs.eos_token_id
        assert ours.settings.pad == "<s>"
        again = opened(tmp_path / "theirs")
        assert_same(ours, ids_of(again), number)
        ours.save(tmp_path / "again")
        assert not (tmp_path / "again" / "tokenizer.json").exists()
        last = opened(tmp_path / "again")
        assert_same(ours, ids_of(last), number)
        assert Tokenizer.load(tmp_path / "again").settings == ours.settings


@pytest.mark.parametrize("options", [{}, {"add_prefix_space": True}])
def test_legacy_files_beside_two_files(options, tmp_path):
    OWN.save(tmp_path)
    end = OWN.n_vocab
    config = {"tokenizer_class": "GPT2Tokenizer"} | options
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    added = {"kite": end, "<s>": end + 1, "</s>": end + 2}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    names = {"eos_token": "</s>", "additional_special_tokens": ["<s>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    ours, theirs = Tokenizer.load(tmp_path), opened(tmp_path)
    assert_same(ours, ids_of(theirs), 0)
    assert ours.settings.words == {"kite": end}
    assert ours.end_of_text == end + 2


def test_a_named_token_without_an_id_gets_the_next(tmp_path):
    OWN.save(tmp_path)
    names = {"pad_token": "<s>", "mask_token": "<mask>", "eos_token": "</s>"}
    config = {"tokenizer_class": "GPT2Tokenizer"} | names
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = Tokenizer.load(tmp_path), opened(tmp_path)
    assert ours.n_vocab == len(theirs) == OWN.n_vocab + 3
    for name, role in zip(names.values(), ("pad", "mask", "eos"), strict=True):
        expected = getattr(theirs, f"{role}_token_id")
        assert ours.special_tokens[name] == expected


def test_of_two_vocabularies_transformers_reads_one_and_so_does_this(tmp_path):
    OWN.save(tmp_path)
    theirs = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = opened(tmp_path)
        same.add_tokens(["kite"])
        same.save_pretrained(tmp_path)  # leaves vocab.json as it was
        assert (tmp_path / "vocab.json").exists()
        ours = Tokenizer.load(tmp_path)
    assert ours.settings.words == {"kite": OWN.n_vocab}
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.warns(UserWarning, match=r"vocab\.json .*tokenizer\.json"):
        ours = Tokenizer.load(tmp_path)
    again = opened(tmp_path)
    assert_same(ours, ids_of(again), 0)
    assert_same(ours, lambda text: theirs.encode(text).ids, 0)


# Words


def test_words_are_found_in_any_text_and_kept():
    words = {"kite": OWN.n_vocab, "kites": OWN.n_vocab + 1}
    tokenizer = Tokenizer(
        OWN.ranks, OWN.special_tokens, settings=Settings(words=words)
    )
    kite, kites = words.values()
    ids = tokenizer.encode(f"a kites{END_OF_TEXT}kite")
    assert ids[-1] == kite
    assert kites in ids
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == f"a kites{END_OF_TEXT}kite"
    assert "".join(tokenizer.stream(ids)) == f"a kites{END_OF_TEXT}kite"
    assert "words=" in repr(tokenizer)
    assert "Finding" not in repr(tokenizer)


def test_flags_say_how_a_token_is_found():
    def encode(text, **flags):
        settings = Settings(
            words={"ab": 257}, finding={"ab": Finding(**flags)}
        )
        tokenizer = Tokenizer(BYTES.ranks, {END_OF_TEXT: 256}, False, settings)
        return [
            tokenizer.decode([i]) if i < 257 else 0
            for i in tokenizer.encode(text)
        ]

    assert encode("x ab c") == ["x", " ", 0, " ", "c"]
    assert encode("x  ab  ab c", lstrip=True) == ["x", 0, 0, " ", "c"]
    assert encode("x\u3000ab  c", lstrip=True, rstrip=True) == ["x", 0, "c"]
    assert encode("x ab\x1cab", lstrip=True)[2:] == [0, "\x1c", 0][1:]
    assert encode("abc ab, ab", single_word=True)[3:] == [" ", 0, ",", " ", 0]
