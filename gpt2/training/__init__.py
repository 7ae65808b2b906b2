"""The training loop, and what it takes to stop and resume it.

`corpus` prepares the data, `settings` holds the settings with their defaults,
`loop` is the loop, `optimizer` builds its optimizers, `workers` connects its
processes, `checkpoint` reads and writes what `resume` needs, and `metrics`
records the losses and plots them.
"""
