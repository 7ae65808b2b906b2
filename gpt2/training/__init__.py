"""The training loop, and what it needs to be stopped and to go on.

`settings` says how a run goes, `optimizer` takes the steps, `workers` shares
them among processes, `checkpoint` writes all of it down, `loop` is the loop,
`metrics` keeps its record and draws the curve.
"""
