"""A model packed for fast generation on a CPU.

`packed` is the model, `kernels` what multiplies with its matrices; `compiled`,
`layers` and `compiling` are for `compiled.c`.
"""
