"""The error of everything that reads checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint is missing or damaged, or is not a GPT-2's."""
