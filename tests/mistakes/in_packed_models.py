"""Mistakes in `compiled.c` and in the Python code that calls it."""

from mistakes.mutation import Mutation

WEIGHTS = "test_weights.py"
INFERENCE, COMPILING = "test_inference.py", "test_compiling.py"
WAITING = f"{INFERENCE}::test_the_threads_wait_for_each_other"
C = "inference/compiled.c"


def in_c(name: str, old: str, new: str) -> Mutation:
    """Return one that the tests of packed models must catch."""
    return Mutation(name, C, old, new, (INFERENCE,))


def without_barrier(name: str, before: str, after: str) -> Mutation:
    """Return one in which a thread does not wait for the others."""
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
        "the last, incomplete word is not counted",
        "return (n + size - 1) / size;",
        "return n / size + (n < size);",
    ),
    in_c(
        "every sequence gets the padding of the first",
        "mask ? mask + head / H * n_keys : NULL",
        "mask",
    ),
    in_c(
        "new keys overwrite the first",
        "cache.length + t, capacity, D, work.words);",
        "t, capacity, D, work.words);",
    ),
    in_c(
        "all packed layers share one cache",
        "cache.keys += cache.per_layer * n_sequences",
        "cache.keys += 0 * n_sequences",
    ),
    # Tails.
    in_c(
        "the last panel is stored whole",
        "long n_columns = min(LANES, m->n_out - at);\n            if",
        "long n_columns = LANES;\n            if",
    ),
    in_c(
        "the last, incomplete strip is not counted",
        "return ceil_div(n, STRIP * per_word(dtype));",
        "return n / (STRIP * per_word(dtype));",
    ),
    in_c(
        "a row is stored in the tile before",
        "while (first + (n_tile = tile_rows(n_rows - first)) <= r)",
        "while (first + (n_tile = tile_rows(n_rows - first)) < r)",
    ),
    in_c(
        "a row's last words are not padded with zeros",
        "    memset(row, 0, row_words(dtype, n) * sizeof *row);\n",
        "",
    ),
    in_c(
        "a part of a panel is multiplied by the first part of the rows",
        "x + (r * n + k * n_tile) * strip_words(dtype);",
        "x + (r * n) * strip_words(dtype);",
    ),
    # Scales.
    in_c(
        "attention's scores are not scaled",
        "q[r * q_stride + i] / sqrtf((float)head_size)",
        "q[r * q_stride + i]",
    ),
    in_c(
        "the zero point is ignored",
        "(vec_i32)out - ZERO_POINT * zero_point",
        "(vec_i32)out",
    ),
    in_c(
        "all rows have the scale of the first",
        "(scales * row_scales[r])",
        "(scales * row_scales[0])",
    ),
    in_c(
        "the 8 that nibbles are too large is not taken off",
        "(i < n_sums ? (int32_t)scales[n_rows + i / VECTORS] : 0)",
        "0",
    ),
    in_c(
        "all columns have the scales of a panel's first half",
        "(v < VECTORS / 2 ? both << 16 : both & upper)",
        "(both << 16)",
    ),
    in_c(
        "high nibbles are read as low ones",
        "(i % 2 ? nibbles >> 4 : nibbles)",
        "nibbles",
    ),
    in_c(
        "7 is not the largest int4",
        "fmaxf(fminf(value, 7), -8)",
        "fmaxf(fminf(value, 8), -8)",
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
        "out += load_some(dst, n_columns);",
        ";",
    ),
    in_c(
        "rounding to bfloat16 truncates",
        "(bits + 0x7fff + (bits >> 16 & 1)) >> 16",
        "bits >> 16",
    ),
    in_c(
        "an odd value takes the even one's place",
        "((uint16_t *)words)[2 * i + position % 2]",
        "((uint16_t *)words)[2 * i]",
    ),
    # Masks.
    in_c(
        "a query sees the next key",
        "masked_softmax(weights, n_scores, first + r + 1, mask);",
        "masked_softmax(weights, n_scores, first + r + 2, mask);",
    ),
    in_c(
        "a packed model sees padding",
        "if (!mask[s]) scores[s] = MASKED;",
        ";",
    ),
    in_c(
        "a row that is not finite becomes zeros",
        "return as_float(NAN_BITS);",
        "return 1;",
    ),
    in_c(
        "scores that overflow are hidden",
        "bits >= INF_BITS ? as_float(NAN_BITS) : 1 / total",
        "1 / total",
    ),
    in_c(
        "infinite weights are packed",
        "failed |= largest >= limit;",
        "failed |= largest > INF_BITS;",
    ),
    # Barriers.
    Mutation(
        "no thread waits for the rows",
        C,
        "    if (work.n_rows > 1) {\n        BARRIER\n    }\n",
        "",
        (WAITING,),
    ),
    without_barrier(
        "no thread waits for queries, keys and values",
        "work.hidden + at * 3 * C, 3 * C, n, STORE, work.sums);\n",
        "        }\n",
    ),
    Mutation(
        "no thread waits for the keys to be appended",
        C,
        "        BARRIER\n        // Attention. Later",
        "        // Attention. Later",
        (WAITING,),
    ),
    without_barrier(
        "no thread waits for the activations",
        "work.hidden, I_stride, n, (int)m->activation, work.sums);\n",
        "            pack_rows(dtype, me, work.hidden",
    ),
    without_barrier(
        "no thread waits for the layer to end",
        "                 x + at * C, C, n, ADD, work.sums);\n",
        "        }\n",
    ),
    # What C is given.
    Mutation(
        "a cache with other heads is accepted",
        "inference/layers.py",
        "            cache.config.n_head,\n",
        "            self.config.n_head,\n",
        (INFERENCE,),
    ),
    Mutation(
        "a full cache is accepted",
        "inference/layers.py",
        "if not 0 <= self.length <= self.n_positions - n_new:",
        "if not 0 <= self.length:",
        (INFERENCE,),
    ),
    Mutation(
        "a matrix of another size is accepted",
        "inference/layers.py",
        "            check_layer(layer, expected)\n",
        "",
        (INFERENCE,),
    ),
    Mutation(
        "ids of the last panel's padding are accepted",
        "inference/packed.py",
        '        check_ids(tokens, self.config.n_vocab, "tokens")\n',
        "",
        (INFERENCE,),
    ),
    Mutation(
        "the mean embedding is left out of the logits",
        "inference/packed.py",
        "logits += (rows @ self._mean)[:, None]",
        "pass",
        (INFERENCE,),
    ),
    Mutation(
        "a fork is not detected",
        "inference/compiled.py",
        "_threads_of = _threads_of or os.getpid()",
        "_threads_of = os.getpid()",
        (INFERENCE,),
    ),
    Mutation(
        "a wrong library is used",
        "inference/kernels.py",
        "return bool(error < 0.02 * expected.abs().max())",
        "return True",
        (INFERENCE,),
    ),
    Mutation(
        "a plain product leaves the scales out",
        "inference/kernels.py",
        "groups.mul_(self.scale[ids]).flatten(-2)",
        "groups.flatten(-2)",
        (INFERENCE,),
    ),
    Mutation(
        "plain layers see padding",
        "inference/plain.py",
        "mask = padding_mask(attention_mask, x.size(1))",
        "pass",
        (INFERENCE,),
    ),
    Mutation(
        "the pieces of a matrix are packed over each other",
        "inference/compiled.py",
        "self.panels[at // PANEL].data_ptr(),",
        "self.panels[0].data_ptr(),",
        (INFERENCE,),
    ),
    Mutation(
        "what is packed of the file stays in memory",
        "inference/compiled.py",
        "            if consume:\n                release(columns)\n",
        "",
        (
            f"{WEIGHTS}::test_weights_are_never_held_twice"
            "[float32-int8-28-safetensors]",
        ),
    ),
    # What is loaded.
    Mutation(
        "a library is loaded whatever it holds",
        "inference/compiling.py",
        "return stored == hashlib",
        "return stored != hashlib",
        (f"{COMPILING}::test_it_is_compiled_once_and_kept",),
    ),
    Mutation(
        "a folder of others is used",
        "files/cache.py",
        'if info.st_mode & 0o022:\n        raise NotPrivateError(f"other',
        'if False:\n        raise NotPrivateError(f"other',
        (
            f"{COMPILING}::test_where_others_could_write_nothing_is_kept"
            "_or_loaded",
        ),
    ),
    Mutation(
        "a relative path is a cache",
        "files/cache.py",
        "    if not root.is_absolute():\n        try:",
        "    if not str(root):\n        try:",
        (f"{COMPILING}::test_a_relative_cache_home_is_not_one",),
    ),
    Mutation(
        "links are followed",
        "files/cache.py",
        "os.O_RDONLY | os.O_NOFOLLOW |",
        "os.O_RDONLY |",
        (f"{COMPILING}::test_one_that_is_not_what_was_built_is_built_again",),
    ),
]
