"""Mistakes in training and its data."""

from mistakes.mutation import Mutation

DATA = "test_data.py"
TRAINING = "test_training.py"

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
        (TRAINING,),
    ),
    Mutation(
        "norms and biases decay",
        "training/optimizer.py",
        '"weight_decay": 0.0',
        '"weight_decay": settings.weight_decay',
        (TRAINING,),
    ),
    Mutation(
        "micro-batches weigh the same, whatever they predict",
        "training/loop.py",
        "share = n_here / n_predicted",
        "share = 1 / len(parts)",
        (TRAINING,),
    ),
    Mutation(
        "blocks of text are never cut between words",
        "training/corpus.py",
        'r".*\\S(?=[ \\n])"',
        'r"(?!)"',
        (TRAINING,),
    ),
    Mutation(
        "Muon's momentum is not restored",
        "training/optimizer.py",
        "else workers.shard(value, parameter)",
        "else workers.shard(value * (what != 'momentum_buffer'), parameter)",
        (TRAINING,),
    ),
    Mutation(
        "three checkpoints are kept",
        "training/checkpoint.py",
        "_KEPT = 2",
        "_KEPT = 3",
        (TRAINING,),
    ),
    Mutation(
        "the shapes of an optimizer's state are not checked",
        "training/optimizer.py",
        "if (tensor.shape, tensor.dtype) != (shape, dtype):",
        "if tensor.dtype != dtype:",
        (TRAINING,),
    ),
    Mutation(
        "an optimizer's step count is not checked",
        "training/optimizer.py",
        "if is_count and least != step:",
        "if False:",
        (TRAINING,),
    ),
    Mutation(
        "a removed folder goes undetected",
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
        "a resumed run skips a step",
        "training/loop.py",
        "self.progress = state.progress",
        "self.progress = state.progress\n"
        "            self.progress.step += 1\n",
        (TRAINING,),
    ),
]
