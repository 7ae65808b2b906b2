"""What goes wrong with checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or not one of a GPT-2."""
