"""Mistakes in how tokens are drawn, and how text is written from them."""

from mistakes.mutation import Mutation

SAMPLING = "test_sampling.py"
COMPLETION = "test_completion.py"
EVALUATION = "test_evaluation.py"
CIRCUITS = "test_circuits.py"

MUTATIONS = [
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
        "return cast(Model, _twin(model, uncompiled=training))",
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
    # Text.
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
]
