"""The error of everything that reads and converts checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, no GPT-2's, or cannot be converted."""
