"""Mistakes in the other components of the model."""

from mistakes.mutation import Mutation

ATTENTION = "test_attention.py"
FEED_FORWARD = "test_feed_forward.py"
LAYER = "test_layer.py"
MODEL = "test_model.py"
PARITY = "test_parity.py"

MUTATIONS = [
    # Which keys a query sees.
    Mutation(
        "the layer is not causal",
        "layer.py",
        "mask=mask,",
        "mask=mask, causal=False,",
        (LAYER, MODEL, PARITY),
    ),
    # Linear maps.
    Mutation(
        "a map forgets its bias",
        "linear.py",
        "torch.addmm(self.bias, rows, self.weight)",
        "(rows @ self.weight)",
        ("test_linear.py", FEED_FORWARD, PARITY),
    ),
    # The cache.
    Mutation(
        "all layers share one cache",
        "model.py",
        "cache.of_layers(n)",
        "n * cache.of_layers(n)[:1]",
        (MODEL,),
    ),
    Mutation(
        "cached positions are not counted",
        "model.py",
        "torch.arange(past, past + n_new,",
        "torch.arange(0, n_new,",
        (MODEL,),
    ),
    # Activations and norms.
    Mutation(
        "the exact GELU instead of GPT-2's",
        "feed_forward.py",
        'F.gelu(x, approximate="tanh")',
        "F.gelu(x)",
        (FEED_FORWARD, LAYER, PARITY),
    ),
    Mutation(
        "GPT-2's GELU instead of the exact one",
        "feed_forward.py",
        "F.gelu(x)",
        'F.gelu(x, approximate="tanh")',
        (FEED_FORWARD, PARITY),
    ),
    Mutation(
        "the variance is divided by C - 1",
        "layer_norm.py",
        "self.weight.shape, self.weight, ",
        "self.weight.shape, self.weight * (1 - 1 / x.size(-1)) ** 0.5, ",
        ("test_layer_norm.py", LAYER, PARITY),
    ),
    Mutation(
        "epsilon is always the default",
        "layer_norm.py",
        "self.bias, self.epsilon",
        "self.bias, 1e-5",
        ("test_layer_norm.py", PARITY),
    ),
    # The residual stream.
    Mutation(
        "attention replaces the residual stream",
        "layer.py",
        "x = x + self.attn(",
        "x = self.attn(",
        (LAYER, PARITY),
    ),
    Mutation(
        "the feed-forward network replaces the residual stream",
        "layer.py",
        "return x + self.mlp(self.ln_2(x))",
        "return self.mlp(self.ln_2(x))",
        (LAYER, PARITY),
    ),
    Mutation(
        "the second norm is missing",
        "layer.py",
        "self.mlp(self.ln_2(x))",
        "self.mlp(x)",
        (LAYER, PARITY),
    ),
    Mutation(
        "the first norm is used twice",
        "layer.py",
        "self.mlp(self.ln_2(x))",
        "self.mlp(self.ln_1(x))",
        (LAYER, PARITY),
    ),
    Mutation(
        "the feed-forward network does not see what attention added",
        "layer.py",
        "x = x + self.attn(self.ln_1(x), mask=mask, cache=cache)\n"
        "        return x + ",
        "found = self.attn(self.ln_1(x), mask=mask, cache=cache)\n"
        "        return x + found + ",
        (LAYER, PARITY),
    ),
    Mutation(
        "the final norm is missing",
        "model.py",
        "return self.ln_f(x)",
        "return x",
        (MODEL, PARITY),
    ),
    Mutation(
        "positions are missing",
        "model.py",
        "self.wte(tokens) + self.wpe(positions)",
        "self.wte(tokens) + 0 * self.wpe(positions)",
        (MODEL, PARITY),
    ),
    Mutation(
        "padding uses up positions",
        "model.py",
        "positions = positions_of(attention_mask)[:, past:]",
        "positions = torch.arange(past, past + n_new)",
        (MODEL, PARITY),
    ),
    Mutation(
        "one token too many is accepted",
        "model.py",
        "(last := int(positions.max())) >= n_ctx",
        "(last := int(positions.max())) > n_ctx",
        (MODEL,),
    ),
    Mutation(
        "a list of ids is taken for a tensor",
        "model.py",
        "isinstance(tokens, Tensor) and tokens.dtype in whole",
        "tokens.dtype in whole",
        (MODEL,),
    ),
    Mutation(
        "positions start at 1",
        "embeddings.py",
        "cumsum(dim=-1) - 1",
        "cumsum(dim=-1) - 0",
        ("test_embeddings.py", MODEL),
    ),
    Mutation(
        "negative ids are let through",
        "embeddings.py",
        "ids[(ids < 0) | (ids >= n_rows)]",
        "ids[ids >= n_rows]",
        ("test_embeddings.py", "test_generation.py", "test_evaluation.py"),
    ),
    # The output and the loss.
    Mutation(
        "the output passes no gradient to the embeddings",
        "model.py",
        "F.linear(hidden, self.wte.weight)",
        "F.linear(hidden, self.wte.weight.detach())",
        (MODEL, PARITY),
    ),
    Mutation(
        "the output has a matrix of its own",
        "model.py",
        "self.drop = nn.Dropout(config.embd_dropout)",
        "self.drop = nn.Dropout(config.embd_dropout)\n"
        "        self.lm_head = Embedding(config.n_vocab, config.n_embd)",
        (MODEL, PARITY),
    ),
    Mutation(
        "the last column instead of the last token",
        "model.py",
        "n_new - 1 - real.flip(-1).argmax(dim=-1)",
        "n_new - 1 - 0 * real.flip(-1).argmax(dim=-1)",
        (MODEL,),
    ),
    Mutation(
        "the targets are not shifted",
        "model.py",
        "inputs, targets = [tokens[:, :-1]], tokens[:, 1:]",
        "inputs, targets = [tokens[:, :-1]], tokens[:, :-1]",
        (MODEL, PARITY),
    ),
    Mutation(
        "the targets are shifted twice",
        "model.py",
        "inputs, targets = [tokens[:, :-1]], tokens[:, 1:]",
        "inputs, targets = [tokens[:, :-1]], tokens[:, 1:].roll(-1, -1)",
        (MODEL, PARITY),
    ),
    Mutation(
        "tokens after padding are predicted",
        "model.py",
        "attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()",
        "attention_mask[:, 1:].bool()",
        (MODEL, PARITY),
    ),
    Mutation(
        "padding is predicted",
        "model.py",
        "attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()",
        "attention_mask[:, :-1].bool()",
        (MODEL, PARITY),
    ),
    # Dropout.
    Mutation(
        "the feed-forward network's output has no dropout",
        "feed_forward.py",
        "self.dropout(self.c_proj(hidden))",
        "self.c_proj(hidden)",
        (FEED_FORWARD, LAYER, PARITY),
    ),
    Mutation(
        "the embeddings have no dropout",
        "model.py",
        "self.drop(self.wte",
        "nn.Identity()(self.wte",
        (MODEL, PARITY),
    ),
    Mutation(
        "the embeddings keep their dropout in eval",
        "model.py",
        "self.drop(self.wte",
        "F.dropout(self.wte",
        (MODEL, PARITY),
    ),
    # Initialisation.
    Mutation(
        "the feed-forward network's output map starts too large",
        "feed_forward.py",
        "config.inner_size, config.n_embd, std=config.residual_std",
        "config.inner_size, config.n_embd",
        (FEED_FORWARD, MODEL),
    ),
    Mutation(
        "one addition per layer is counted instead of two",
        "config.py",
        "math.sqrt(2 * self.n_layer)",
        "math.sqrt(self.n_layer)",
        ("test_config.py", ATTENTION, FEED_FORWARD, MODEL),
    ),
    Mutation(
        "positions start as large as tokens",
        "model.py",
        "Embedding(config.n_ctx, config.n_embd, std=0.01)",
        "Embedding(config.n_ctx, config.n_embd)",
        (MODEL,),
    ),
]
