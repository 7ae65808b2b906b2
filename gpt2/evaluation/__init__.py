"""How good a model is, and what its attention heads do.

`text` measures losses and benchmark scores, `stories` checks a model against
the language of stories, `circuits` finds attention heads by what they do.
"""
