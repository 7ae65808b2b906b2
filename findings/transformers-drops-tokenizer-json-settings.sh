#!/bin/sh
# transformers 5.23.0: AutoTokenizer drops the normalizer and the pre-tokenizer
# of a tokenizer.json if tokenizer_config.json names the class GPT2Tokenizer or
# GPT2TokenizerFast. The ids differ from those of tokenizers, which wrote the
# file, and from those without the class; nothing is said.
#
# transformers 4 wrote GPT2Tokenizer into the folders of its GPT2TokenizerFast.
# 5 makes such a tokenizer from the vocabulary and the merges, with GPT-2's own
# pre-tokenizer.
#
# Observed (tokenizers 0.23.3, Linux x86-64), for "Hi 12" with a normalizer that
# lowers case and a pre-tokenizer that parts digits:
#     tokenizers                   h i Ġ 1 2
#     without a class              h i Ġ 1 2
#     class GPT2Tokenizer          H i Ġ 12
#     class GPT2TokenizerFast      H i Ġ 12
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from transformers import AutoTokenizer

words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12"]
bpe = models.BPE({word: i for i, word in enumerate(words)}, [("1", "2")])
tokenizer = Tokenizer(bpe)
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
right = tokenizer.encode("Hi 12").tokens

print("transformers", version("transformers"))
print("tokenizers                  ", *right)
assert right == ["h", "i", "Ġ", "1", "2"], right
for name in ("", "GPT2Tokenizer", "GPT2TokenizerFast"):
    folder = Path(name or "none")
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    facts["tokenizer_class"] = name or "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    came = AutoTokenizer.from_pretrained(folder).tokenize("Hi 12")
    print(f"{name and 'class ' + name or 'without a class':28}", *came)
    assert came == (["H", "i", "Ġ", "12"] if name else right), came
PYTHON
