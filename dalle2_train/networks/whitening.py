"""Embeddings whose directions all vary alike, for the layers that read them to learn from all of them at once.

CLIP's embeddings vary along few directions much more than along the others: most of their variance says what kind of
picture it is, the little rest which one. A linear layer learns directions in the order of their variance. Behind a
whitening it learns them together, and computes nothing that a linear layer of the plain embedding could not: `fold`
gives that layer's weights.
E embedding, B batch, D outputs.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Of the mean variance: added to every direction's, so that one that hardly varies is not blown up to noise.
FLOOR = 0.03


class Whitening(nn.Module):
    """x → matrix · (x - mean), whose covariance is nearly the identity. Both are buffers: no optimizer touches them."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        """`mean` (E,), `matrix` (E, E) symmetric."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, embed: Tensor) -> Tensor:
        """(B, E) → (B, E), in the buffers' precision: directions that vary little would be lost in bf16's digits."""
        with torch.autocast(embed.device.type, enabled=False):
            white = (embed.to(self.matrix.dtype) - self.mean) @ self.matrix  # (B, E)
        return white.to(embed.dtype)


def zca(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric matrix (E, E) that whitens vectors of this covariance (E, E), in float64."""
    variances, directions = np.linalg.eigh(covariance)
    variances = variances.clip(min=0) + FLOOR * variances.clip(min=0).mean()
    return (directions * variances**-0.5) @ directions.T


def fold(weight: Tensor, bias: Tensor, mean: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """weight (D, E) and bias (D,) of the layer on plain embeddings that computes what this one does on white ones."""
    wide = weight.double() @ matrix.double()  # (D, E)
    return wide.to(weight), (bias.double() - wide @ mean.double()).to(bias)


def unfold(weight: Tensor, bias: Tensor, mean: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `fold`."""
    wide = torch.linalg.solve(matrix.double(), weight.double(), left=False)  # (D, E)
    return wide.to(weight), (bias.double() + weight.double() @ mean.double()).to(bias)
