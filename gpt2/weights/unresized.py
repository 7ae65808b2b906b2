"""Tokenizers with special tokens for which the model has no row.

Adding `[PAD]` to a tokenizer without resizing the embeddings is common:
padding is masked, so the model never looks the token up.
"""

from __future__ import annotations

from typing import Self

from gpt2.tokenizer.bpe import TokenizerError
from gpt2.tokenizer.tokenizer import Tokenizer
from gpt2.weights.errors import CheckpointError


class UnresizedTokenizer(Tokenizer):
    """A tokenizer that refuses to encode the tokens its model has no row for.

    Attributes:
        n_rows: The number of tokens in the model's embedding.
    """

    n_rows: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, n_rows: int) -> Self:
        """Return the same tokenizer, bound to a model with `n_rows` tokens."""
        bound = cls.__new__(cls)
        vars(bound).update(vars(tokenizer), n_rows=n_rows)
        return bound

    @property
    def n_vocab(self) -> int:
        """The number of tokens that the model has, and so of those in use."""
        return self.n_rows

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Encode text as `Tokenizer.encode` does.

        Raises:
            TokenizerError: The text has the name of an added token that the
                model has no row for; of a special one, if `allow_special`.
        """
        ids = super().encode(text, allow_special)
        for token_id in ids:
            if token_id >= self.n_rows:
                added = {**self.special_tokens, **self.settings.words}
                name = next(n for n, i in added.items() if i == token_id)
                raise TokenizerError(
                    f"the text has {name!r:.80}, token {token_id}, and the "
                    f"model has embeddings only for the tokens below "
                    f"{self.n_rows}"
                )
        return ids


def fitted(tokenizer: Tokenizer, n_rows: int, name: str) -> Tokenizer:
    """Return a tokenizer that gives no id that the model lacks.

    Args:
        tokenizer: Any tokenizer.
        n_rows: The number of tokens in the model's embedding.
        name: What to call the tokenizer in a message.

    Raises:
        CheckpointError: It has ordinary tokens, or an `<|endoftext|>`, that
            the model lacks.
    """
    if tokenizer.n_vocab <= n_rows:
        return tokenizer
    around = (*tokenizer.settings.before, *tokenizer.settings.after)
    ends = (tokenizer.start_of_text, tokenizer.end_of_text)
    needed = max(*tokenizer.ranks.values(), *ends, *around)
    if needed >= n_rows:
        raise CheckpointError(
            f"{name} has {tokenizer.n_vocab} entries, and the model only "
            f"{n_rows}"
        )
    return UnresizedTokenizer.of(tokenizer, n_rows)
