"""Mistakes in how tokens are drawn, and how text is made of them."""

from mistakes.mutation import Mutation

SAMPLING = "test_sampling.py"
GENERATION = "test_generation.py"
BEAMS = "test_beams.py"
DROPOUT = "test_dropout.py"
COMPLETION = "test_completion.py"
PREDICTION = "test_prediction.py"
EVALUATION = "test_evaluation.py"
CIRCUITS = "test_circuits.py"
INFERENCE = "test_inference.py::test_rows_without_a_token_are_never_drawn"
COMMAND_LINE = (
    "test_command_line.py::test_generate_never_draws_a_row_without_a_token"
)
STORY_GRADES = "test_story_grades.py::test_a_sample_without_an_end_is_no_story"

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
        (GENERATION, COMPLETION),
    ),
    Mutation(
        "generation keeps its dropout",
        "dropout.py",
        "        training=False,\n",
        "",
        (DROPOUT, COMPLETION),
    ),
    Mutation(
        "generation leaves the model in eval mode",
        "dropout.py",
        "return cast(Model, _view(model, uncompiled=training))",
        "return model.eval()",
        (DROPOUT, COMPLETION, EVALUATION),
    ),
    Mutation(
        "what is compiled runs with dropout",
        "dropout.py",
        "_view(model, uncompiled=training)",
        "_view(model, uncompiled=False)",
        (DROPOUT,),
    ),
    Mutation(
        "a hook on the copy is everybody's",
        "dropout.py",
        "        _forward_hooks=module._forward_hooks.copy(),\n",
        "",
        (DROPOUT, CIRCUITS),
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
        "generation.py",
        "rows = rows.repeat_interleave(n)",
        "rows = rows.repeat(n)",
        (GENERATION,),
    ),
    Mutation(
        "a stop token stops nothing",
        "generation.py",
        "torch.isin(drawn, running.stops)",
        "torch.isin(drawn, running.stops[:0])",
        (GENERATION, COMPLETION),
    ),
    Mutation(
        "what has ended goes on",
        "generation.py",
        "drawn = torch.where(ended, running.tokens[:, -1], drawn)",
        "drawn = drawn",
        (GENERATION,),
    ),
    Mutation(
        "one token fewer than there is room for",
        "generation.py",
        "min(max_new_tokens, n_ctx - longest)",
        "min(max_new_tokens, n_ctx - longest - 1)",
        (GENERATION,),
    ),
    Mutation(
        "the prompt is read again for every token",
        "generation.py",
        "            yield drawn\n",
        "            yield drawn\n            model(running.tokens)\n",
        (GENERATION,),
    ),
    Mutation(
        "errors wait for the first token",
        "generation.py",
        "    return steps()\n",
        "    yield from steps()\n",
        (GENERATION, COMPLETION),
    ),
    Mutation(
        "the padding of one sample is another's",
        "generation.py",
        "self.real[::n]",
        "self.real[: len(self.real) // n]",
        (GENERATION, BEAMS),
    ),
    Mutation(
        "greedy decoding has no penalty",
        "sampling.py",
        "if self.repetition_penalty != 1:",
        "if self.repetition_penalty != 1 and self.temperature:",
        (SAMPLING, GENERATION),
    ),
    Mutation(
        "lists of different lengths are told to become a tensor",
        "generation.py",
        "isinstance(tokens[0], Sequence)",
        "isinstance(tokens[0], int)",
        (GENERATION,),
    ),
    Mutation(
        "a row without a token is drawn",
        "generation.py",
        "logits[:, : self._n_vocab]",
        "logits[:, : self._n_vocab + 1]",
        (GENERATION, BEAMS, COMPLETION, INFERENCE),
    ),
    Mutation(
        "the last token is never drawn",
        "generation.py",
        "logits[:, : self._n_vocab]",
        "logits[:, : self._n_vocab - 1]",
        (GENERATION, COMPLETION),
    ),
    Mutation(
        "rows without a token are dropped after the filters",
        "generation.py",
        "            logits = running.next_logits()  # (B * n_samples, V)\n",
        "            n, running._n_vocab = running._n_vocab, 2**31\n"
        "            logits = running.next_logits()\n"
        "            running._n_vocab = n\n"
        "            logits = sampling.filter(\n"
        "                logits, running.tokens, running.real\n"
        "            )[:, :n]\n",
        (GENERATION,),
    ),
    Mutation(
        "a prompt may have rows without a token",
        "generation.py",
        'check_ids(tokens, self._n_vocab, "tokens")',
        'check_ids(tokens, n_rows, "tokens")',
        (GENERATION,),
    ),
    Mutation(
        "text is made of rows without a token",
        "completion.py",
        "        n_vocab=tokenizer.n_vocab,\n",
        "",
        (COMPLETION,),
    ),
    Mutation(
        "a prediction counts rows without a token",
        "completion.py",
        "logits = logits[:, : tokenizer.n_vocab]",
        "logits = logits[:, :]",
        (COMPLETION,),
    ),
    Mutation(
        "beams have rows without a token",
        "beams.py",
        "        n_vocab,\n    )\n    beams",
        "        None,\n    )\n    beams",
        (BEAMS,),
    ),
    Mutation(
        "the command's beams have rows without a token",
        "commands/generate.py",
        "        n_vocab=tokenizer.n_vocab,\n",
        "",
        (COMMAND_LINE,),
    ),
    Mutation(
        "a graded sample has rows without a token",
        "evaluation/stories.py",
        "            n_vocab=tokenizer.n_vocab,\n",
        "",
        (STORY_GRADES,),
    ),
    Mutation(
        "an answer competes with rows without a token",
        "evaluation/text.py",
        "        n_vocab=tokenizer.n_vocab,\n",
        "",
        (EVALUATION,),
    ),
    Mutation(
        "losses leave out rows without a token",
        "evaluation/text.py",
        "logits.log_softmax(dim=-1).gather",
        "logits[..., :257].log_softmax(dim=-1).gather",
        (EVALUATION,),
    ),
    Mutation(
        "all beams begin equal",
        "beams.py",
        "self.scores[self.first] = 0.0",
        "self.scores[:] = 0.0",
        (BEAMS,),
    ),
    Mutation(
        "a beam goes on with another's cache",
        "generation.py",
        "        self._cache.select(rows)\n        self.tokens",
        "        self._cache.select(torch.arange(len(rows)))\n"
        "        self.tokens",
        (BEAMS,),
    ),
    Mutation(
        "a beam that has ended pays for what fills it up",
        "beams.py",
        "steps[self.ended, last[self.ended]] = 0.0",
        "steps[self.ended, last[self.ended]] = -1.0",
        (BEAMS,),
    ),
    Mutation(
        "beams are compared by their sums",
        "beams.py",
        "finals = self.scores / lengths**length_penalty",
        "finals = self.scores",
        (BEAMS,),
    ),
    # Text.
    Mutation(
        "a token may be HTML",
        "prediction.py",
        "html.escape(visible(text))",
        "visible(text)",
        (PREDICTION,),
    ),
    Mutation(
        "the bar is as long for every token",
        "prediction.py",
        "2 * candidate.probability / largest",
        "2 * candidate.probability / candidate.probability",
        (PREDICTION,),
    ),
    Mutation(
        "spaces are not seen",
        "prediction.py",
        'text.replace(" ", "␣")',
        "text",
        (PREDICTION,),
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
]
