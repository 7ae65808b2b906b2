"""How good a model is, and what its heads do.

`text` measures losses and choices that others publish too, `stories` holds
what a model writes against the language of stories, `circuits` looks at heads.
"""
