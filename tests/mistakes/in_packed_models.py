"""Mistakes in `compiled.c` and in what hands it its sizes."""

from mistakes.mutation import Mutation

INFERENCE, COMPILING = "test_inference.py", "test_compiling.py"
WAITING = f"{INFERENCE}::test_the_workers_wait_for_each_other"
C = "inference/compiled.c"


def in_c(name: str, old: str, new: str) -> Mutation:
    """One that the tests of packed models must catch."""
    return Mutation(name, C, old, new, (INFERENCE,))


def without_barrier(name: str, before: str, after: str) -> Mutation:
    """One in which a worker does not wait for the others."""
    barrier = f"{before}            BARRIER\n{after}"
    return Mutation(name, C, barrier, before + after, (WAITING,))


MUTATIONS = [
    # Sizes.
    in_c(
        "the feed-forward width is four times the model's",
        "I = m->n_inner, H = m->n_head, D",
        "I = 4 * m->n_embd, H = m->n_head, D",
    ),
    in_c(
        "words are counted without the last, incomplete one",
        "return (n + size - 1) / size;",
        "return n / size + (n < size);",
    ),
    in_c(
        "a sequence's padding is looked up at the first one's",
        "real ? real + head / H * n_keys : NULL",
        "real",
    ),
    in_c(
        "new keys take the places of the first",
        "memory.past + t, room, D, (uint32_t *)desk.row",
        "t, room, D, (uint32_t *)desk.row",
    ),
    in_c(
        "all packed layers share one memory",
        "memory.keys += memory.alone * n_sequences",
        "memory.keys += 0 * n_sequences",
    ),
    # Tails.
    in_c(
        "the last block of columns is written whole",
        "long wanted = least(WIDE, m->n_out - block * WIDE) * sizeof(float);",
        "long wanted = WIDE * sizeof(float);",
    ),
    in_c(
        "words that are left over from the lanes are dropped",
        "for (; i < n_words; i++) {\n        UNROLLED\n        for (int r",
        "for (; i < 0; i++) {\n        UNROLLED\n        for (int r",
    ),
    in_c(
        "a single row is left over from the tiles",
        "BY(8) BY(4) BY(2) BY(1)",
        "BY(8) BY(4) BY(2)",
    ),
    in_c(
        "a row's last word keeps what was there before",
        "    row[pieces(n, per_word(kind)) - 1] = 0;\n",
        "",
    ),
    # Scales.
    in_c(
        "attention's scores are not scaled",
        "q[r * q_step + i] / sqrtf((float)size)",
        "q[r * q_step + i]",
    ),
    in_c(
        "the 128 are not taken off again",
        "(ints)sums[r] - 128 * m->totals[block]",
        "(ints)sums[r]",
    ),
    in_c(
        "all rows have the first one's step",
        "(m->scales[block] * sizes[r])",
        "(m->scales[block] * sizes[0])",
    ),
    in_c(
        "the norm divides by the variance",
        "1 / sqrtf(variance / n + epsilon)",
        "1 / (variance / n + epsilon)",
    ),
    in_c(
        "the tanh form of GELU has another constant",
        "1.5957691216f",
        "1.702f",
    ),
    in_c(
        "the residual stream is overwritten",
        "out += before;",
        "out += 0 * before;",
    ),
    in_c(
        "rounding to bfloat16 only cuts off",
        "(bits + 0x7fff + (bits >> 16 & 1)) >> 16",
        "bits >> 16",
    ),
    in_c(
        "an odd value takes the even one's place",
        "((uint16_t *)word)[position % 2]",
        "((uint16_t *)word)[0]",
    ),
    # Masks.
    in_c(
        "the next key is looked at",
        "for (long s = t + r + 1; s < n_scores; s++)",
        "for (long s = t + r + 2; s < n_scores; s++)",
    ),
    in_c(
        "a packed model looks at padding",
        "if (!real[s]) row[s] = LOWEST;",
        ";",
    ),
    in_c(
        "a row that is not finite is a row of zeros",
        "return as_float(NOT_A_NUMBER);",
        "return 1;",
    ),
    in_c(
        "scores that overflow are hidden",
        "if (widest >= INFINITE) total",
        "if (0) total",
    ),
    in_c(
        "infinite weights are packed",
        "failed |= largest >= limit;",
        "failed |= largest > INFINITE;",
    ),
    # Barriers.
    without_barrier(
        "nobody waits for the rows of c_attn",
        "            }\n",
        "            multiply(kind, me, &layer->c_attn",
    ),
    without_barrier(
        "nobody waits for queries, keys and values",
        "                     desk.wide + at * 3 * C, n, STORE, desk.sums);\n",
        "        }\n",
    ),
    Mutation(
        "nobody waits for the keys to be remembered",
        C,
        "        BARRIER\n        // A later query",
        "        // A later query",
        (WAITING,),
    ),
    without_barrier(
        "nobody waits for the activations",
        "desk.wide, n, (int)m->activation, desk.sums);\n",
        "            EACH(r, n)",
    ),
    without_barrier(
        "nobody waits for the layer to end",
        """            multiply(kind, me, &layer->c_mlp, desk.rows, desk.sizes,
                     x + at * C, n, ADD, desk.sums);
""",
        "        }\n",
    ),
    # What C is told.
    Mutation(
        "a cache of other heads is believed",
        "inference/layers.py",
        "            cache.config.n_head,\n",
        "            self.config.n_head,\n",
        (INFERENCE,),
    ),
    Mutation(
        "a cache that is full is believed",
        "inference/layers.py",
        "if not 0 <= self.length <= self.n_positions - n_new:",
        "if not 0 <= self.length:",
        (INFERENCE,),
    ),
    Mutation(
        "a matrix of another size is believed",
        "inference/layers.py",
        "            check_layer(layer, *sizes)\n",
        "",
        (INFERENCE,),
    ),
    Mutation(
        "ids in the last block are taken for tokens",
        "inference/packed.py",
        '        check_ids(tokens, self.config.n_vocab, "tokens")\n',
        "",
        (INFERENCE,),
    ),
    Mutation(
        "what all tokens share is left out",
        "inference/packed.py",
        "logits += (rows @ self.shared)[:, None]",
        "pass",
        (INFERENCE,),
    ),
    Mutation(
        "a fork goes unseen",
        "inference/compiled.py",
        "_threads_of = _threads_of or os.getpid()",
        "_threads_of = os.getpid()",
        (INFERENCE,),
    ),
    # What is loaded.
    Mutation(
        "a library is loaded whatever it holds",
        "inference/compiling.py",
        "return stored == hashlib",
        "return stored != hashlib",
        (COMPILING,),
    ),
    Mutation(
        "a folder of others is used",
        "files/cache.py",
        'if info.st_mode & 0o022:\n        raise NotPrivateError(f"other',
        'if False:\n        raise NotPrivateError(f"other',
        (COMPILING,),
    ),
    Mutation(
        "a relative path is a cache",
        "files/cache.py",
        "    if not root.is_absolute():\n        try:",
        "    if not str(root):\n        try:",
        (COMPILING,),
    ),
    Mutation(
        "links are followed",
        "files/cache.py",
        "os.O_RDONLY | os.O_NOFOLLOW |",
        "os.O_RDONLY |",
        (COMPILING,),
    ),
]
