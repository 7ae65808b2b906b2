"""One layer of GPT-2, also called a block."""

from __future__ import annotations

from torch import Tensor, nn

from gpt2.attention import MultiHeadAttention
from gpt2.cache import LayerCache
from gpt2.config import GPT2Config
from gpt2.feed_forward import FeedForward
from gpt2.layer_norm import LayerNorm


class GPT2Layer(nn.Module):
    """Read from the residual stream and add to it, twice.

    Attention comes first, then the feed-forward network. Each sub-layer reads
    a normalised copy of the residual stream (pre-norm); the stream itself is
    changed only by the two additions. Radford et al. (2019), section 2.3.
    """

    def __init__(self, config: GPT2Config) -> None:
        """Build the two sub-layers and their norms."""
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Run the layer: (B, T, C) to (B, T, C).

        Args:
            x: (B, T, C), the residual stream.
            mask: Boolean, broadcasts to (B, H, T, S), as `padding_mask` makes
                it. None hides nothing. Later positions are always hidden.
            cache: This layer's cache of earlier positions; the new ones are
                appended to it.

        Raises:
            ValueError: The shapes do not match.
        """
        x = x + self.attn(self.ln_1(x), mask=mask, cache=cache)
        return x + self.mlp(self.ln_2(x))
