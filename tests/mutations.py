"""Mistakes one could make in the package, each of which some test must notice.

Every mutation replaces one piece of one source file in a copy of the package,
and names the test files that must then fail, each by itself. `python
tests/mutations.py` runs them all and says which went unnoticed;
`test_mutations.py` does the same within the suite.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from mistakes import in_files, in_packed_models
from mistakes.mutation import Mutation

PROJECT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 600.0
"""Seconds for all runs together, so that an endless loop ends."""


ATTENTION, FEED_FORWARD = "test_attention.py", "test_feed_forward.py"
LAYER, MODEL, PARITY = "test_layer.py", "test_model.py", "test_parity.py"
DATA, TRAINING = "test_data.py", "test_training.py"
SAMPLING, COMPLETION = "test_sampling.py", "test_completion.py"
EVALUATION, CIRCUITS = "test_evaluation.py", "test_circuits.py"

MUTATIONS = [
    # Who looks at whom.
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
        "the fused kernel lines up the first query with the first cached key",
        "attention.py",
        "mask is None and query.size(-2) == key.size(-2)",
        "mask is None",
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
        "the layer is not causal",
        "layer.py",
        "mask=mask,",
        "mask=mask, causal=False,",
        (LAYER, MODEL, PARITY),
    ),
    Mutation(
        "padding is looked at",
        "attention.py",
        "return real | itself",
        "return real | True",
        (ATTENTION, MODEL, PARITY),
    ),
    Mutation(
        "padding may look at nothing, not even itself",
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
        "is_causal=True",
        "is_causal=True, scale=1.0",
        (ATTENTION, LAYER, PARITY),
    ),
    Mutation(
        "the softmax runs over the queries",
        "attention.py",
        "scores.softmax(dim=-1)",
        "scores.softmax(dim=-2)",
        (ATTENTION,),
    ),
    # Maps and heads.
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
    Mutation(
        "a map forgets its bias",
        "linear.py",
        "torch.addmm(self.bias, rows, self.weight)",
        "(rows @ self.weight)",
        ("test_linear.py", FEED_FORWARD, PARITY),
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
        "an overfull cache goes unnoticed",
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
    Mutation(
        "all layers share one memory",
        "model.py",
        "memory[i]",
        "memory[0]",
        (MODEL,),
    ),
    Mutation(
        "cached positions are not counted",
        "model.py",
        "torch.arange(past, n_tokens,",
        "torch.arange(0, n_new,",
        (MODEL,),
    ),
    # Activations and norms.
    Mutation(
        "the exact GELU in the place of GPT-2's",
        "feed_forward.py",
        'F.gelu(x, approximate="tanh")',
        "F.gelu(x)",
        (FEED_FORWARD, LAYER, PARITY),
    ),
    Mutation(
        "GPT-2's GELU in the place of the exact one",
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
        "epsilon is always GPT-2's",
        "layer_norm.py",
        "self.bias, self.epsilon",
        "self.bias, 1e-5",
        ("test_layer_norm.py", PARITY),
    ),
    # The stream.
    Mutation(
        "attention replaces the stream",
        "layer.py",
        "x = x + self.attn(",
        "x = self.attn(",
        (LAYER, PARITY),
    ),
    Mutation(
        "the feed-forward network replaces the stream",
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
        "the feed-forward network does not see what attention found",
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
        "positions begin at 1",
        "embeddings.py",
        "cumsum(dim=-1) - 1",
        "cumsum(dim=-1) - 0",
        ("test_embeddings.py", MODEL),
    ),
    # The output and the loss.
    Mutation(
        "the output does not teach the embeddings",
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
        "the last column in the place of the last token",
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
        "padding is predicted from",
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
        "the weights spelled out have no dropout",
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
    # How a model begins.
    Mutation(
        "attention's way back into the stream begins too large",
        "attention.py",
        "width, width, std=config.residual_std",
        "width, width",
        (ATTENTION, MODEL),
    ),
    Mutation(
        "the feed-forward network's way back begins too large",
        "feed_forward.py",
        "config.inner_size, config.n_embd, std=config.residual_std",
        "config.inner_size, config.n_embd",
        (FEED_FORWARD, MODEL),
    ),
    Mutation(
        "one addition per layer is counted",
        "config.py",
        "math.sqrt(2 * self.n_layer)",
        "math.sqrt(self.n_layer)",
        ("test_config.py", ATTENTION, FEED_FORWARD, MODEL),
    ),
    Mutation(
        "positions begin as large as tokens",
        "model.py",
        "Embedding(config.n_ctx, config.n_embd, std=0.01)",
        "Embedding(config.n_ctx, config.n_embd)",
        (MODEL,),
    ),
    # Drawing tokens.
    Mutation(
        "tokens that have come before become likelier",
        "sampling.py",
        "torch.where(logits > 0, logits / penalty, logits * penalty)",
        "torch.where(logits > 0, logits * penalty, logits / penalty)",
        (SAMPLING,),
    ),
    Mutation(
        "a negative logit is divided by the penalty",
        "sampling.py",
        "torch.where(logits > 0, logits / penalty, logits * penalty)",
        "logits / penalty",
        (SAMPLING,),
    ),
    Mutation(
        "padding is penalised",
        "sampling.py",
        "if real is None else real\n",
        "if real is None else torch.ones_like(real)\n",
        (SAMPLING,),
    ),
    Mutation(
        "the temperature is multiplied by",
        "sampling.py",
        "return (logits - highest) / temperature",
        "return (logits - highest) * temperature",
        (SAMPLING,),
    ),
    Mutation(
        "top-k keeps all that are equal",
        "sampling.py",
        "return nothing.scatter(-1, kept.indices, kept.values)",
        "return torch.where(logits < kept.values[..., -1:], nothing, logits)",
        (SAMPLING,),
    ),
    Mutation(
        "top-p drops the token that crosses the line",
        "sampling.py",
        "before >= p,",
        "before + probabilities > p,",
        (SAMPLING,),
    ),
    Mutation(
        "min-p compares logits with a probability",
        "sampling.py",
        "keepdim=True).values + math.log(p)",
        "keepdim=True).values - p",
        (SAMPLING,),
    ),
    Mutation(
        "top-p is applied twice",
        "sampling.py",
        "        if self.top_k is not None:\n",
        "        if self.top_p is not None:\n"
        "            logits = keep_top_p(logits, self.top_p)\n"
        "        if self.top_k is not None:\n",
        (SAMPLING,),
    ),
    Mutation(
        "the seed is ignored",
        "sampling.py",
        "return torch.Generator(device).manual_seed(number)",
        "return None",
        (SAMPLING, COMPLETION),
    ),
    Mutation(
        "generation keeps its dropout",
        "sampling.py",
        "        training=False,\n",
        "",
        (SAMPLING, COMPLETION),
    ),
    Mutation(
        "generation leaves the model in eval mode",
        "sampling.py",
        "return cast(GPT2, _twin(model, uncompiled=training))",
        "return model.eval()",
        (SAMPLING, COMPLETION, EVALUATION),
    ),
    Mutation(
        "what is compiled runs with dropout",
        "sampling.py",
        "_twin(model, uncompiled=training)",
        "_twin(model, uncompiled=False)",
        (SAMPLING,),
    ),
    Mutation(
        "a hook on the copy is everybody's",
        "sampling.py",
        "        _forward_hooks=module._forward_hooks.copy(),\n",
        "",
        (SAMPLING, CIRCUITS),
    ),
    Mutation(
        "a penalty makes infinite numbers",
        "sampling.py",
        "lowered = lowered.clamp(numbers.min, numbers.max)",
        "pass",
        (SAMPLING,),
    ),
    Mutation(
        "a tiny temperature makes infinite numbers",
        "sampling.py",
        "return (logits - highest) / temperature",
        "return logits / temperature",
        (SAMPLING,),
    ),
    Mutation(
        "negative ids are let through",
        "sampling.py",
        "ids[(ids < 0) | (ids >= n_vocab)]",
        "ids[ids >= n_vocab]",
        (SAMPLING, EVALUATION),
    ),
    Mutation(
        "samples are given to the wrong prompts",
        "sampling.py",
        "rows = rows.repeat_interleave(n_samples)",
        "rows = rows.repeat(n_samples)",
        (SAMPLING,),
    ),
    Mutation(
        "a stop token stops nothing",
        "sampling.py",
        "isin(drawn, stops)\n            if bool",
        "isin(drawn, stops[:0])\n            if bool",
        (SAMPLING, COMPLETION),
    ),
    Mutation(
        "what has ended goes on",
        "sampling.py",
        "drawn = torch.where(ended, tokens[:, -1], drawn)",
        "drawn = drawn",
        (SAMPLING,),
    ),
    Mutation(
        "one token fewer than there is room for",
        "sampling.py",
        "min(max_new_tokens, n_ctx - longest)",
        "min(max_new_tokens, n_ctx - longest - 1)",
        (SAMPLING,),
    ),
    Mutation(
        "the prompt is read again for every token",
        "sampling.py",
        "        yield drawn\n",
        "        yield drawn\n        model(tokens, real)\n",
        (SAMPLING,),
    ),
    Mutation(
        "all beams begin equal",
        "sampling.py",
        "scores[first] = 0.0",
        "scores[:] = 0.0",
        (SAMPLING,),
    ),
    Mutation(
        "a beam goes on with another's cache",
        "sampling.py",
        "cache.select(kept)",
        "cache.select(torch.arange(len(kept)))",
        (SAMPLING,),
    ),
    Mutation(
        "a beam that has ended pays for what fills it up",
        "sampling.py",
        "steps[ended, tokens[ended, -1]] = 0.0",
        "steps[ended, tokens[ended, -1]] = -1.0",
        (SAMPLING,),
    ),
    Mutation(
        "beams are compared by their sums",
        "sampling.py",
        "finals = scores / lengths.clamp(min=1).float() ** length_penalty",
        "finals = scores",
        (SAMPLING,),
    ),
    Mutation(
        "the beginning of a stop is shown",
        "completion.py",
        "held.startswith(s, i) or s.startswith(held[i:])",
        "held.startswith(s, i)",
        (COMPLETION,),
    ),
    Mutation(
        "the first stop of the list, not of the text",
        "completion.py",
        "held[: min(found, default=len(held))]",
        "held[: next(found, len(held))]",
        (COMPLETION,),
    ),
    # Measuring, and looking inside.
    Mutation(
        "a token is scored where it stands",
        "evaluation.py",
        "targets = tokens[:, 1:, None]",
        "targets = tokens[:, :-1, None]",
        (EVALUATION,),
    ),
    Mutation(
        "overlapping windows count twice",
        "evaluation.py",
        "one.log_probabilities[-n_new:]",
        "one.log_probabilities[:]",
        (EVALUATION,),
    ),
    Mutation(
        "a window has one token too few",
        "evaluation.py",
        "min(begin + n_ctx + 1, len(ids))",
        "min(begin + n_ctx, len(ids))",
        (EVALUATION,),
    ),
    Mutation(
        "a character is taken for a byte",
        "evaluation.py",
        "len(text.encode())",
        "len(text)",
        (EVALUATION,),
    ),
    Mutation(
        "an ending is compared together with its context",
        "evaluation.py",
        "one.log_probabilities[-n:].double()",
        "one.log_probabilities.double()",
        (EVALUATION,),
    ),
    Mutation(
        "an answer need only end right",
        "evaluation.py",
        "one.likeliest[-n:].all()",
        "one.likeliest[-1:].all()",
        (EVALUATION,),
    ),
    Mutation(
        "a long prompt keeps its beginning",
        "evaluation.py",
        "*tokenizer.encode(prompt)][-room:]",
        "*tokenizer.encode(prompt)][:room]",
        (EVALUATION,),
    ),
    Mutation(
        "a head that looks at itself is a previous-token head",
        "circuits.py",
        "weights.diagonal(offset=-1,",
        "weights.diagonal(offset=0,",
        (CIRCUITS,),
    ),
    Mutation(
        "an induction head looks at the same token",
        "circuits.py",
        "diagonal(offset=1 - length,",
        "diagonal(offset=-length,",
        (CIRCUITS,),
    ),
    Mutation(
        "a token may be drawn twice",
        "circuits.py",
        "torch.randperm(len(choices), generator=generator)[:length]",
        "torch.randint(len(choices), (length,), generator=generator)",
        (CIRCUITS,),
    ),
    # Files.
    Mutation(
        "n_ctx is read before n_positions",
        "config.py",
        '("n_positions", "n_ctx")',
        '("n_ctx", "n_positions")',
        ("test_config.py",),
    ),
    Mutation(
        "another scaling of attention is accepted",
        "config.py",
        '"scale_attn_by_inverse_layer_idx": False,',
        "",
        ("test_config.py",),
    ),
    # Training.
    Mutation(
        "every step sees the same rows",
        "data.py",
        "np.random.default_rng((seed, step))",
        "np.random.default_rng(seed)",
        (DATA,),
    ),
    Mutation(
        "a held-out document begins without its end of text",
        "data.py",
        "cut = int(later[0])",
        "cut = int(later[0]) + 1",
        (DATA,),
    ),
    Mutation(
        "the warm-up begins a step late",
        "training/settings.py",
        "(step + 1) / self.n_warmup",
        "step / self.n_warmup",
        (TRAINING,),
    ),
    Mutation(
        "norms and biases decay, too",
        "training/optimizer.py",
        '"weight_decay": 0.0',
        '"weight_decay": settings.weight_decay',
        (TRAINING,),
    ),
    Mutation(
        "the parts of a batch count alike, however long they are",
        "training/loop.py",
        "share = n_here / n_predicted",
        "share = 1 / len(parts)",
        (TRAINING,),
    ),
    Mutation(
        "a seam is never found",
        "commands/corpus.py",
        'r".*\\S(?=[ \\n])"',
        'r"(?!)"',
        (TRAINING,),
    ),
    Mutation(
        "Muon's mean is not taken up",
        "training/optimizer.py",
        "else workers.part_of(value, parameter)",
        "else workers.part_of(value * (what != 'momentum_buffer'), parameter)",
        (TRAINING,),
    ),
    Mutation(
        "three checkpoints stay",
        "training/checkpoint.py",
        "_KEPT = 2",
        "_KEPT = 3",
        (TRAINING,),
    ),
    Mutation(
        "an optimizer's shapes are not looked at",
        "training/optimizer.py",
        "if (tensor.shape, tensor.dtype) != (shape, dtype):",
        "if tensor.dtype != dtype:",
        (TRAINING,),
    ),
    Mutation(
        "an optimizer's count of steps is not looked at",
        "training/optimizer.py",
        "if is_count and least != step:",
        "if False:",
        (TRAINING,),
    ),
    Mutation(
        "a folder that was removed is not missed",
        "training/hold.py",
        "if inode != self.inode:",
        "if False:",
        (TRAINING,),
    ),
    Mutation(
        "all processes drop the same numbers",
        "training/loop.py",
        "self.settings.seed, self.progress.step, self.workers.rank",
        "self.settings.seed, self.progress.step, 0",
        (TRAINING,),
    ),
    Mutation(
        "a resumed run leaves out a step",
        "training/loop.py",
        "self.progress = state.progress",
        "self.progress = state.progress\n        self.progress.step += 1\n",
        (TRAINING,),
    ),
    *in_files.MUTATIONS,
    *in_packed_models.MUTATIONS,
]

OPTIONS = [
    "-x",  # one failure is enough
    "--tb=short",
    # The full-size model takes long and notices no more than the tiny ones.
    *("-k", "not full_size"),
    # Neither plugins nor the collection of garbage at the end are needed, and
    # they would take most of the time.
    "--disable-plugin-autoload",
    *("-p", "no:unraisableexception"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:faulthandler"),  # a crash is an outcome like another
]

Run = tuple[Mutation | None, str]
"""A mutation, or None for the source as it is, and a test file."""


def run(what: Run) -> tuple[int, str]:
    """Run one test file against a copy of the package, in this process.

    Returns:
        pytest's exit code (0 passed, 1 failed) and what it wrote.
    """
    mutation, test_file = what
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        ignore = shutil.ignore_patterns("__pycache__", "data")
        for name in ("gpt2", "tests"):
            shutil.copytree(PROJECT / name, copy / name, ignore=ignore)
        shutil.copy(PROJECT / "pyproject.toml", copy)
        if mutation is not None:
            mutation.apply(copy / "gpt2")
        os.chdir(copy)
        elsewhere = [
            path for path in sys.path if Path(path).resolve() != PROJECT
        ]
        sys.path[:] = [str(copy), *elsewhere]
        sys.dont_write_bytecode = True
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exit_code = pytest.main([f"tests/{test_file}", *OPTIONS])
        tested = Path(sys.modules["gpt2"].__file__ or "")
        assert tested.is_relative_to(copy), f"{tested} was tested"
        os.chdir(PROJECT)
    return int(exit_code), output.getvalue()


def all_runs() -> list[Run]:
    """Each mutation with each of its test files; these files unmutated."""
    runs: list[Run] = [
        (mutation, file)
        for mutation in MUTATIONS
        for file in mutation.noticed_by
    ]
    return [(None, file) for file in sorted({file for _, file in runs})] + runs


def run_all(runs: Sequence[Run]) -> Mapping[Run, tuple[int, str]]:
    """Do the runs side by side, each in a fresh process.

    The processes are forked from one that has imported the large libraries and
    nothing of this package: that takes seconds only once. One that crashes, as
    a mistake in C may have it do, has minus the signal as its exit code.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "hypothesis",
            "pytest",
            "torch.testing",
            "transformers.models.gpt2.modeling_gpt2",
        ]
    )
    end = time.monotonic() + TIME_LIMIT

    def alone(what: Run) -> tuple[int, str]:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, what))
        process.start()
        sender.close()
        try:
            if not receiver.poll(max(0, end - time.monotonic())):
                process.kill()
                raise TimeoutError(f"the runs took over {TIME_LIMIT} s")
            return receiver.recv()
        except EOFError:
            process.join()
            return process.exitcode or 0, "the process crashed"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(runs, pool.map(alone, runs), strict=True))


def _send(sender: Connection, what: Run) -> None:
    sender.send(run(what))


def is_expected(mutation: Mutation | None, exit_code: int) -> bool:
    """Tell whether the source as it is passes, and a mistake does not."""
    if mutation is None:
        return exit_code == pytest.ExitCode.OK
    return exit_code == pytest.ExitCode.TESTS_FAILED or exit_code < 0


def main() -> None:
    """Run all, print the outcome of each, and exit with 1 if one survived."""
    unexpected = 0
    for (mutation, file), (exit_code, output) in run_all(all_runs()).items():
        fine = is_expected(mutation, exit_code)
        unexpected += not fine
        name = "as it is" if mutation is None else mutation.name
        verdict = "ok   " if fine else "WRONG"
        sys.stdout.write(f"{verdict} {file} | {name}\n")
        if "-v" in sys.argv or not fine:
            sys.stdout.write(output)
    sys.exit(unexpected > 0)


if __name__ == "__main__":
    main()
