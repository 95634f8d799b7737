"""What a causal Transformer keeps of the tokens that it has seen, so that the next one is all it computes.

B batch, N tokens, d width of a head.
"""

import torch
from torch import Tensor


class KeyValues:
    """The keys and values of one attention layer's tokens so far."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Those of new tokens, (B, heads, n, d); returns all so far, (B, heads, N, d)."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class KeyValueCache:
    """One `KeyValues` per layer, and which of the tokens so far may be looked at. A new one has seen nothing."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [KeyValues() for _ in range(num_layers)]
        self.visible: Tensor | None = None
        """(B, N) bool."""

    @property
    def num_tokens(self) -> int:
        """N."""
        return 0 if self.visible is None else self.visible.shape[1]
