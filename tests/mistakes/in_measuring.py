"""Mistakes in measuring a model and in looking inside it."""

from mistakes.mutation import Mutation

EVALUATION = "test_evaluation.py"
CIRCUITS = "test_circuits.py"
STORIES = "test_story_grades.py"
COMPLETION = "test_completion.py"
COMMAND_LINE = "test_command_line.py"

MUTATIONS = [
    # Losses and answers.
    Mutation(
        "a token is scored where it stands",
        "evaluation/text.py",
        "targets = tokens[:, 1:, None]",
        "targets = tokens[:, :-1, None]",
        (EVALUATION,),
    ),
    Mutation(
        "of a padded sequence the padding is scored",
        "evaluation/text.py",
        "slice(end - n, end)",
        "slice(-n, None)",
        (EVALUATION,),
    ),
    Mutation(
        "overlapping windows count twice",
        "evaluation/text.py",
        "n_new.append(end - done)",
        "n_new.append(end - begin - 1)",
        (EVALUATION,),
    ),
    Mutation(
        "a window has one token too few",
        "evaluation/text.py",
        "min(begin + n_ctx + 1, len(ids))",
        "min(begin + n_ctx, len(ids))",
        (EVALUATION,),
    ),
    Mutation(
        "a character is taken for a byte",
        "evaluation/text.py",
        "len(document.encode())",
        "len(document)",
        (EVALUATION,),
    ),
    Mutation(
        "an ending is compared together with its context",
        "evaluation/text.py",
        "batch_size, n_last=n_ending)",
        "batch_size)",
        (EVALUATION,),
    ),
    Mutation(
        "an answer need only end right",
        "evaluation/text.py",
        "one.likeliest.all()",
        "one.likeliest[-1:].all()",
        (EVALUATION,),
    ),
    Mutation(
        "a long prompt keeps its beginning",
        "evaluation/text.py",
        "*before][-room:]",
        "*before][:room]",
        (EVALUATION,),
    ),
    Mutation(
        "several documents are one",
        "evaluation/text.py",
        "for document in split_documents(text):",
        "for document in [text] * bool(text):",
        (EVALUATION,),
    ),
    Mutation(
        "a special token is measured letter by letter",
        "evaluation/text.py",
        "tokenizer.encode(document, allow_special=True)",
        "tokenizer.encode(document)",
        (EVALUATION,),
    ),
    Mutation(
        "the letters of a string are endings",
        "evaluation/text.py",
        "if isinstance(self.endings, str):",
        "if False:",
        (EVALUATION,),
    ),
    Mutation(
        "the letters of a string are a prompt and an answer",
        "evaluation/text.py",
        "if isinstance(pair, str):",
        "if False:",
        (EVALUATION,),
    ),
    Mutation(
        "a label that no ending has is named without its line",
        "commands/evaluate.py",
        "if str(label) not in allowed:",
        "if False:",
        (f"{COMMAND_LINE}::test_eval_of_other_lines",),
    ),
    Mutation(
        "files to measure on run into each other",
        "commands/evaluate.py",
        "END_OF_TEXT.join(texts.values())",
        '"".join(texts.values())',
        (f"{COMMAND_LINE}::test_eval_separates_documents",),
    ),
    Mutation(
        "a byte-order mark is text on standard input",
        "commands/common.py",
        'data.decode("utf-8-sig")',
        "data.decode()",
        (
            f"{COMMAND_LINE}"
            "::test_the_encoding_of_a_text_does_not_matter_to_eval",
        ),
    ),
    # Special tokens in prompts.
    Mutation(
        "special tokens are characters to complete",
        "completion.py",
        "allow_special=allow_special,",
        "",
        (f"{COMPLETION}::test_names_of_special_tokens_in_a_prompt",),
    ),
    Mutation(
        "special tokens are characters to beam search",
        "commands/generate.py",
        "encode_prompt(tokenizer, prompt, options.special_tokens)",
        "encode_prompt(tokenizer, prompt)",
        (f"{COMMAND_LINE}::test_special_tokens_in_a_prompt",),
    ),
    Mutation(
        "special tokens are characters to the command generate",
        "commands/generate.py",
        "allow_special=options.special_tokens,",
        "",
        (f"{COMMAND_LINE}::test_special_tokens_in_a_prompt",),
    ),
    # Heads.
    Mutation(
        "a head that looks at itself is a previous-token head",
        "evaluation/circuits.py",
        "weights.diagonal(offset=-1,",
        "weights.diagonal(offset=0,",
        (CIRCUITS,),
    ),
    Mutation(
        "an induction head looks at the same token",
        "evaluation/circuits.py",
        "diagonal(offset=1 - length,",
        "diagonal(offset=-length,",
        (CIRCUITS,),
    ),
    Mutation(
        "a token may be drawn twice",
        "evaluation/circuits.py",
        "torch.randperm(len(choices), generator=generator)[:length]",
        "torch.randint(len(choices), (length,), generator=generator)",
        (CIRCUITS,),
    ),
    Mutation(
        "the second telling is another one",
        "evaluation/circuits.py",
        "return rows.repeat(1, 2)",
        "return torch.cat([rows, rows.flip(1)], 1)",
        (CIRCUITS,),
    ),
    Mutation(
        "the end of the first telling counts as induction",
        "evaluation/circuits.py",
        "followed[..., 1:].mean",
        "followed.mean",
        (CIRCUITS,),
    ),
    Mutation(
        "the model itself is rebuilt to record its attention",
        "evaluation/circuits.py",
        "    model = without_dropout(model)\n",
        "",
        (CIRCUITS,),
    ),
    # Stories.
    Mutation(
        "the end of a story costs nothing",
        "evaluation/stories.py",
        "[[end, *tokenizer.encode(text), end] for",
        "[[end, *tokenizer.encode(text)] for",
        (STORIES,),
    ),
    Mutation(
        "the stories of the training are measured",
        "evaluation/stories.py",
        "random.Random(seed + 2**32)",
        "random.Random(seed)",
        (STORIES,),
    ),
    Mutation(
        "what comes after a story's end is graded, too",
        "evaluation/stories.py",
        "story = ids[: ids.index(end)] if end in ids else ids",
        "story = ids",
        (STORIES,),
    ),
]
