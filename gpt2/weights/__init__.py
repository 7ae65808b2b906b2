"""Find, fetch, check, read and write checkpoints.

No other part of the package knows their formats. `layout` lists a GPT-2's
tensors, `formats` opens files, `hub` fetches them, and `locating`, `loading`
and `saving` take a checkpoint from its name to a model and back.
"""
