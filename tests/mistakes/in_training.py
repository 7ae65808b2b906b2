"""Mistakes in training and its data."""

from mistakes.mutation import Mutation

DATA = "test_data.py"
TRAINING = "test_training.py"
TEXTS = "test_texts.py"

MUTATIONS = [
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
        "the warm-up starts a step late",
        "training/settings.py",
        "(step + 1) / self.n_warmup",
        "step / self.n_warmup",
        (f"{TRAINING}::test_the_learning_rate_rises_and_falls",),
    ),
    Mutation(
        "norms and biases decay",
        "training/optimizer.py",
        '"weight_decay": 0.0',
        '"weight_decay": settings.weight_decay',
        (f"{TRAINING}::test_matrices_decay_and_nothing_else",),
    ),
    Mutation(
        "micro-batches weigh the same, whatever they predict",
        "training/loop.py",
        "share = n_here / n_predicted",
        "share = 1 / len(parts)",
        (f"{TRAINING}::test_parts_of_a_batch_add_up_to_the_whole",),
    ),
    Mutation(
        "blocks of text are never cut between words",
        "texts.py",
        'r".*\\S(?=[ \\n])"',
        'r"(?!)"',
        (f"{TEXTS}::test_blocks_end_where_words_do",),
    ),
    Mutation(
        "a byte-order mark is text in a file",
        "texts.py",
        'encoding="utf-8-sig"',
        'encoding="utf-8"',
        (TEXTS,),
    ),
    Mutation(
        "hidden folders are searched for texts",
        "texts.py",
        '[each for each in folders if not each.startswith(".")]',
        "folders",
        (TEXTS,),
    ),
    Mutation(
        "the texts of a folder come in any order",
        "texts.py",
        "sorted(_below(path, skipped), key=lambda file: file.parts)",
        "sorted(_below(path, skipped), key=lambda file: file.name)",
        (TEXTS,),
    ),
    Mutation(
        "a run reads its own files as texts",
        "training/corpus.py",
        "find_texts(source.files, leave_out=folder)",
        "find_texts(source.files)",
        (f"{TRAINING}::test_it_trains_on_folders_of_texts",),
    ),
    Mutation(
        "a short part is taken for the whole corpus",
        "training/preparation.py",
        "_check_lengths(tokens, held_out, context)",
        "_check_lengths(tokens, None, context)",
        (f"{TRAINING}::test_bad_use_is_told_in_one_line",),
    ),
    Mutation(
        "Muon's momentum is not restored",
        "training/optimizer.py",
        "else workers.shard(value, parameter)",
        "else workers.shard(value * (what != 'momentum_buffer'), parameter)",
        (f"{TRAINING}::test_the_optimizers_go_on_from_what_was_read",),
    ),
    Mutation(
        "three checkpoints are kept",
        "training/checkpoint.py",
        "_KEPT = 2",
        "_KEPT = 3",
        (f"{TRAINING}::test_the_last_two_checkpoints_stay_and_nothing_else",),
    ),
    Mutation(
        "the shapes of an optimizer's state are not checked",
        "training/optimizer.py",
        "if (tensor.shape, tensor.dtype) != (shape, dtype):",
        "if tensor.dtype != dtype:",
        (
            f"{TRAINING}::test_an_odd_optimizer_state_is_refused_before_it_is_used",
        ),
    ),
    Mutation(
        "an optimizer's step count is not checked",
        "training/optimizer.py",
        "if is_count and least != step:",
        "if False:",
        (
            f"{TRAINING}::test_an_odd_optimizer_state_is_refused_before_it_is_used",
        ),
    ),
    Mutation(
        "a removed folder goes undetected",
        "training/hold.py",
        "if inode != self.inode:",
        "if False:",
        (f"{TRAINING}::test_a_folder_that_was_removed_is_not_made_again",),
    ),
    Mutation(
        "all processes drop the same numbers",
        "training/loop.py",
        "self.settings.seed, self.progress.step, self.workers.rank",
        "self.settings.seed, self.progress.step, 0",
        (f"{TRAINING}::test_a_process_of_another_number_drops_others",),
    ),
    Mutation(
        "a resumed run skips a step",
        "training/loop.py",
        "self.progress = state.progress",
        "self.progress = state.progress\n"
        "            self.progress.step += 1\n",
        (f"{TRAINING}::test_the_best_model_lies_in_the_folder",),
    ),
    Mutation(
        "rows that do not count have a gradient",
        "training/cross_entropy.py",
        "share = (counts / counts.sum())[:, None]",
        "share = (torch.ones_like(counts) / counts.sum())[:, None]",
        (f"{TRAINING}::test_the_loss_in_pieces_is_the_loss",),
    ),
    Mutation(
        "only the last columns of the table reach the hidden states",
        "training/cross_entropy.py",
        "of_hidden += piece @",
        "of_hidden = piece @",
        (f"{TRAINING}::test_the_loss_in_pieces_is_the_loss",),
    ),
    Mutation(
        "training does not scale its scores",
        "training/attention.py",
        "alpha=scale",
        "alpha=1.0",
        (f"{TRAINING}::test_training_attends_like_the_model",),
    ),
    Mutation(
        "training attends to hidden keys if rows of a batch differ",
        "training/attention.py",
        "hidden.masked_fill_(~mask, -math.inf)",
        "hidden.masked_fill_(~mask[:1], -math.inf)",
        (f"{TRAINING}::test_training_attends_like_the_model",),
    ),
    Mutation(
        "a long gradient is not clipped",
        "training/loop.py",
        "if length > settings.clip:",
        "if length < settings.clip:",
        (f"{TRAINING}::test_a_step_is_what_it_says",),
    ),
    Mutation(
        "large blocks are returned to the system",
        "training/memory.py",
        "libc.mallopt(_MMAP_MAX, 0)",
        "libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)",
        (f"{TRAINING}::test_what_a_step_frees_is_kept_for_the_next",),
    ),
    Mutation(
        "blocks of text are encoded in any order",
        "training/corpus.py",
        "yield waiting.popleft().result()",
        "yield waiting.pop().result()",
        (f"{TRAINING}::test_blocks_are_encoded_in_order_and_a_few_at_a_time",),
    ),
    Mutation(
        "all blocks of a corpus are in memory at once",
        "training/corpus.py",
        "if len(waiting) > 2 * n_cores:",
        "if False:",
        (f"{TRAINING}::test_blocks_are_encoded_in_order_and_a_few_at_a_time",),
    ),
    Mutation(
        "the slope of the activation leaves out its inner derivative",
        "training/activation.py",
        "alpha=3 * _CUBIC",
        "alpha=_CUBIC",
        (f"{TRAINING}::test_the_fast_activation_is_the_activation",),
    ),
]
