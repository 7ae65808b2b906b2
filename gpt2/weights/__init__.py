"""Checkpoints: find, fetch, check, read and write them.

The only place that knows file formats. `layout` says which tensors there are,
`formats` and `tensorflow` open files, `hub` fetches them, `loading` and
`saving` bring them into a model and out of it.
"""
