"""Mistakes in `attention.py` and `cache.py`."""

from mistakes.mutation import Mutation

ATTENTION = "test_attention.py"
LAYER = "test_layer.py"
MODEL = "test_model.py"
PARITY = "test_parity.py"

MUTATIONS = [
    # Which keys a query sees.
    Mutation(
        "the mask lets one later key through",
        "attention.py",
        "everything.tril(diagonal=n_keys - n_queries)",
        "everything.tril(diagonal=n_keys - n_queries + 1)",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the mask hides a token from itself",
        "attention.py",
        "everything.tril(diagonal=n_keys - n_queries)",
        "everything.tril(diagonal=n_keys - n_queries - 1)",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the mask forgets the cached keys",
        "attention.py",
        "everything.tril(diagonal=n_keys - n_queries)",
        "everything.tril(diagonal=0)",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the fused kernel aligns the first query with the first cached key",
        "attention.py",
        "(mask is not None or query.size(-2) != key.size(-2))",
        "mask is not None",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the mask means the opposite",
        "attention.py",
        "scores.masked_fill(~mask, -math.inf)",
        "scores.masked_fill(mask, -math.inf)",
        (ATTENTION,),
    ),
    Mutation(
        "padding is seen",
        "attention.py",
        "return real | itself",
        "return real | True",
        (ATTENTION, MODEL, PARITY),
    ),
    Mutation(
        "padding sees nothing, not even itself",
        "attention.py",
        "return real | itself",
        "return real & (itself | True)",
        (ATTENTION, MODEL),
    ),
    # How much each key counts.
    Mutation(
        "the scores are not scaled",
        "attention.py",
        "scores = scores / math.sqrt(query.size(-1))",
        "scores = scores / 1",
        (ATTENTION, PARITY),
    ),
    Mutation(
        "the scores are divided by D, not by its root",
        "attention.py",
        "scores = scores / math.sqrt(query.size(-1))",
        "scores = scores / query.size(-1)",
        (ATTENTION, PARITY),
    ),
    Mutation(
        "the fused scores are not scaled",
        "attention.py",
        "is_causal=causal",
        "is_causal=causal, scale=1.0",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "the softmax runs over the queries",
        "attention.py",
        "scores.softmax(dim=-1)",
        "scores.softmax(dim=-2)",
        (ATTENTION,),
    ),
    # Linear maps and heads.
    Mutation(
        "queries and keys are swapped",
        "attention.py",
        "q, k, v = (self.split_heads(part) for part in parts)",
        "k, q, v = (self.split_heads(part) for part in parts)",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "keys and values are swapped",
        "attention.py",
        "q, k, v = (self.split_heads(part) for part in parts)",
        "q, v, k = (self.split_heads(part) for part in parts)",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "keys and values are swapped in cross-attention",
        "attention.py",
        "zip((query, key, value), ",
        "zip((query, value, key), ",
        (ATTENTION,),
    ),
    Mutation(
        "a square matrix is used transposed",
        "attention.py",
        "self.resid_dropout(self.c_proj(merged))",
        "self.resid_dropout(merged @ self.c_proj.weight.T + self.c_proj.bias)",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "the heads take every third number",
        "attention.py",
        "x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)",
        "x.unflatten(-1, (-1, self.n_head)).movedim(-1, 1)",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "the heads are merged without moving their axis back",
        "attention.py",
        "mixed.transpose(1, 2).flatten(2)",
        "mixed.reshape(mixed.size(0), mixed.size(2), -1)",
        (ATTENTION, LAYER, PARITY),
    ),
    # The cache.
    Mutation(
        "new keys are written over the first",
        "cache.py",
        "self.keys[:, :, self.length : end] = key",
        "self.keys[:, :, : key.size(2)] = key",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "new values are written over the first",
        "cache.py",
        "self.values[:, :, self.length : end] = value",
        "self.values[:, :, : value.size(2)] = value",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "a full cache takes more",
        "cache.py",
        "end > room",
        "end > 2 * room",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "selecting sequences forgets their order",
        "cache.py",
        "def select(self, rows: Tensor) -> None:",
        "def select(self, rows: Tensor) -> None:\n"
        "        rows = rows.sort().values\n",
        (ATTENTION, MODEL),
    ),
    # Dropout.
    Mutation(
        "attention keeps its dropout in eval",
        "attention.py",
        "self.attn_dropout.p if self.training else 0.0",
        "self.attn_dropout.p",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the fused kernel has no dropout",
        "attention.py",
        "self.attn_dropout.p if self.training else 0.0",
        "0.0",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the weights have no dropout where they are computed",
        "attention.py",
        "self.attn_dropout(weights)",
        "weights",
        (ATTENTION, PARITY),
    ),
    Mutation(
        "attention's output has no dropout",
        "attention.py",
        "self.resid_dropout(self.c_proj(merged))",
        "self.c_proj(merged)",
        (ATTENTION, LAYER, PARITY),
    ),
    # Initialisation.
    Mutation(
        "attention's output map starts too large",
        "attention.py",
        "width, width, std=config.residual_std",
        "width, width",
        (ATTENTION, MODEL),
    ),
]
