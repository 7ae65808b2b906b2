"""What others have published about the real GPT-2, in its token ids.

`book/the-real-gpt2.ipynb` shows it with its sources, and measures it where
the weights are; `tests/test_real_checkpoint.py` compares most of it.
"""

from __future__ import annotations

Ids = list[int]

END = 50256  # <|endoftext|>

# The solutions to ARENA 2.0, chapter 1: a text, its ids, and the likeliest
# next tokens with their ids and probabilities.
LIKELIEST: tuple[str, Ids, list[tuple[str, int, float]]] = (
    "John and Mary went to the",
    [7554, 290, 5335, 1816, 284, 262],
    [
        (" church", 4928, 0.0648),
        (" house", 2156, 0.0367),
        (" temple", 12505, 0.0145),
        (" same", 976, 0.0104),
        (" Church", 4564, 0.0097),
    ],
)

# Greedy continuations. huggingface/transformers,
# tests/models/gpt2/test_modeling_gpt2.py; the second from the tests of its
# TensorFlow model; the README of jaymody/picoGPT; and
# huggingface/transformers, issue 10289, where three ids repeat.
# fmt: off
GREEDY: dict[str, tuple[Ids, Ids]] = {
    "The dog": (
        [464, 3290],
        [373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688,
         27262, 13, 198, 198, 464, 3290],
    ),
    "The flying machine": (
        [464, 7348, 4572],
        [318, 257, 1402, 11, 18700, 11, 290, 18700, 6215, 326, 460, 307, 973,
         329, 597, 2099, 286],
    ),
    "Alan Turing theorized that computers would one day become": (
        [36235, 39141, 18765, 1143, 326, 9061, 561, 530, 1110, 1716],
        [262, 749, 3665, 8217, 319, 262, 5440, 13, 198, 198, 464, 3644],
    ),
    "the ids 100, 200, 300": ([100, 200, 300], ([84, 12, 75] * 6)[:17]),
}

# The same file of tests: a batch whose shorter prompt is padded on the left.
BATCH: dict[str, tuple[Ids, Ids]] = {
    "Hello, my dog is a little": (
        [15496, 11, 616, 3290, 318, 257, 1310],
        [1643, 286, 257, 2085, 13, 314, 1101, 407, 1654, 611, 339, 338, 1016],
    ),
    "Today, I": (
        [8888, 11, 314],
        [1101, 1016, 284, 307, 1804, 257, 1256, 286, 2267, 319, 428, 13, 314],
    ),
}
# fmt: on

# TransformerLens, tests/integration/test_hooked_transformer.py; and
# huggingface/transformers, issue 9173. In nats per token.
LOSSES: dict[str, tuple[Ids, float]] = {
    "<|endoftext|>Hello world!": ([END, 15496, 995, 0], 5.331856),
    "Hello, my": ([15496, 11, 616], 3.0698),
}

# The right answers in LAMBADA, in percent: openai/gpt-2, issue 131; and
# EleutherAI/lm-evaluation-harness, issue 2159.
LAMBADA = {"the last token": 46.89, "the whole word": 32.56}

# Wang et al. (2022), figure 2: the heads that take part in one sentence.
HEADS = {
    "previous token": "2.2 4.11",
    "duplicate token": "0.1 0.10 3.0",
    "induction": "5.5 5.8 5.9 6.9",
    "S-inhibition": "7.3 7.9 8.6 8.10",
    "name mover": "9.6 9.9 10.0",
    "backup name mover": "9.0 9.7 10.1 10.2 10.6 10.10 11.2 11.9",
    "negative name mover": "10.7 11.10",
}
# Their appendices H and I: heads that are among the first so many of all, in
# how they look on random tokens that are told twice.
PLACES = {
    "previous token": ("2.2 4.11", 2),
    "induction": ("5.5 6.9", 5),
    "duplicate token": ("0.1 3.0", 3),
}
# Their section 2: the logit of the right name less that of the other, how
# often it is the higher one, and its probability.
LEAD, AHEAD, SHARE = 3.56, 0.993, 0.49
# Their sections 3.1 and 3.2: the mean attention of a group, of name movers to
# the right name, of the others to the second mention of the wrong one.
LOOKS = {"S-inhibition": 0.51, "name mover": 0.59}

# neelnanda-io/Easy-Transformer, branch clean-transformer-demo: for each part,
# the first and last three numbers of its output at an end of text that
# begins a text.
FIRST_PARTS = {
    "wte": [0.0514, -0.0277, 0.0499, 0.007, 0.1552, 0.1207],
    "wpe": [-0.018821, -0.19742, 0.0040267, -0.043044, 0.028267, 0.05449],
    "h.0.attn": [0.79663, 0.016986, 0.034781, 0.03312, -0.023129, 0.18103],
    "h.0.mlp": [-0.438, 0.3624, 0.5117, 1.7227, 1.5761, 0.0368],
    "h.0": [0.3911, 0.1543, 0.6005, 1.7198, 1.7365, 0.393],
}
# fmt: off
FIRST_LOGITS = [
    -43.4317, -39.8364, -43.066, -54.0878, -54.3452, -42.3645,
]
# fmt: on

# The files of openai-community/gpt2 on the Hugging Face hub.
FILE_BYTES, HEADER_BYTES, FILE_TENSORS = 548_105_171, 14_283, 160

# The table of Radford et al. (2019), corrected: the README of openai/gpt-2
# explains why its names, 117M and 345M, were wrong.
PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}
