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
        "cache.length + t, capacity, D,\n",
        "t, capacity, D,\n",
    ),
    in_c(
        "all packed layers share one cache",
        "cache.keys += cache.per_layer * n_sequences",
        "cache.keys += 0 * n_sequences",
    ),
    # Tails.
    in_c(
        "the last panel is stored whole",
        "long n_bytes = min(LANES, m->n_out - panel * LANES) * sizeof(float);",
        "long n_bytes = LANES * sizeof(float);",
    ),
    in_c(
        "the words left over from unrolling are dropped",
        "for (; i < n_words; i++) {\n        UNROLL\n        for (int r",
        "for (; i < 0; i++) {\n        UNROLL\n        for (int r",
    ),
    in_c(
        "a single row left over from the tiles is dropped",
        "TILES_OF(8) TILES_OF(4) TILES_OF(2) TILES_OF(1)",
        "TILES_OF(8) TILES_OF(4) TILES_OF(2)",
    ),
    in_c(
        "a row's last word is not padded with zeros",
        "    row[ceil_div(n, per_word(dtype)) - 1] = 0;\n",
        "",
    ),
    # Scales.
    in_c(
        "attention's scores are not scaled",
        "q[r * q_stride + i] / sqrtf((float)head_size)",
        "q[r * q_stride + i]",
    ),
    in_c(
        "the zero point is ignored",
        "(vec_i32)sums[r] - ZERO_POINT * m->column_sums[panel]",
        "(vec_i32)sums[r]",
    ),
    in_c(
        "all rows have the scale of the first",
        "(m->scales[panel] * row_scales[r])",
        "(m->scales[panel] * row_scales[0])",
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
        "out += old;",
        "out += 0 * old;",
    ),
    in_c(
        "rounding to bfloat16 truncates",
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
        "if (bits >= INF_BITS) total",
        "if (0) total",
    ),
    in_c(
        "infinite weights are packed",
        "failed |= largest >= limit;",
        "failed |= largest > INF_BITS;",
    ),
    # Barriers.
    without_barrier(
        "no thread waits for the rows of c_attn",
        "            }\n",
        "            gemm(dtype, me, &layer->attn_c_attn",
    ),
    without_barrier(
        "no thread waits for queries, keys and values",
        "                 work.hidden + at * 3 * C, n, STORE, work.sums);\n",
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
        "work.hidden, n, (int)m->activation, work.sums);\n",
        "            FOR_SHARE(r, n)",
    ),
    without_barrier(
        "no thread waits for the layer to end",
        "                 x + at * C, n, ADD, work.sums);\n",
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
        "product *= self.scale",
        "pass",
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
        "self.panels[at // LANES].data_ptr(),",
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
