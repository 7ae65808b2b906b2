"""Models packed for fast generation on a CPU.

`packed` has the model, and `kernels` its matrices. `compiling`, `compiled` and
`layers` run `compiled.c`; `plain` does without it.
"""
