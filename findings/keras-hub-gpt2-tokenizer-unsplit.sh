#!/bin/sh
# keras-hub 0.32.0: GPT2Tokenizer does not split text before it merges, so its
# ids differ from GPT-2's.
#
# GPT-2 merges bytes only within the pieces that a regular expression cuts out of
# the text. keras-hub passes its expression (which is Llama 3's) to tokenizers'
# `Split` as a str, and a str is matched literally. So nothing is split, and
# bytes merge across the boundaries of pieces. With GPT-2's own vocabulary, a
# word in single quotes that begins with s or t comes out differently.
#
# Observed (Linux x86-64, backend torch, tokenizers 0.23.3), on a vocabulary of
# 256 bytes and the merges ' + s and space + ':
#     text          a 's
#     tokenizers    a | Ġ' | s
#     keras-hub     a | Ġ | 's
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras-hub==0.32.0 keras==3.15.1 \
    torch==2.13.0 tokenizers==0.23.3
KERAS_BACKEND=torch TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import keras_hub
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

words = sorted(pre_tokenizers.ByteLevel.alphabet())
words += ["'s", "Ġ'", "<|endoftext|>"]
ids = {word: i for i, word in enumerate(words)}
merges = [("'", "s"), ("Ġ", "'")]

theirs = Tokenizer(models.BPE(ids, merges))
theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
right = theirs.encode("a 's").tokens

ours = keras_hub.models.GPT2Tokenizer(ids, [" ".join(m) for m in merges])
came = [words[int(i)] for i in np.asarray(ours("a 's"))]

print("keras-hub", version("keras-hub"))
print("tokenizers   ", " | ".join(right))
print("keras-hub    ", " | ".join(came))
assert right == ["a", "Ġ'", "s"], right
assert came == ["a", "Ġ", "'s"], came
PYTHON
