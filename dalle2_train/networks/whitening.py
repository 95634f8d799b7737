"""Embeddings whose directions vary alike, for what reads or predicts them to learn all directions at once.

CLIP's embeddings vary along few directions much more than along the others: most of their variance says what kind of
picture it is, the little rest which one. A linear layer learns directions in the order of their variance, and so does
whatever learns by the square of an error. Behind a whitening they learn them together.
E embedding, B batch, D outputs.
"""

import torch
from torch import Tensor, nn

from dalle2_train.errors import InputError

# Of the mean variance, added to every direction's: one that hardly varies is not blown up to noise. Which value does
# not matter much: docs/decisions/0002.
FLOOR = 0.03


class Whitening(nn.Module):
    """x → matrix · (x - mean): variance 1 along directions far above the floor, less along those below it.

    Both are buffers: no optimizer touches them.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        """`mean` (E,), `matrix` (E, E) symmetric."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, embed: Tensor) -> Tensor:
        """(B, E) → (B, E), multiplied in the buffers' precision whatever autocast says."""
        with torch.autocast(embed.device.type, enabled=False):
            white = (embed.to(self.matrix.dtype) - self.mean) @ self.matrix  # (B, E)
        return white.to(embed.dtype)


def zca(covariance: Tensor) -> Tensor:
    """The symmetric whitening matrix (E, E) float64 of a covariance (E, E), its variances raised by the floor.

    Bell & Sejnowski 1997. Raises InputError where nothing varies.
    """
    variances, directions = torch.linalg.eigh(covariance.double())
    variances = variances.clamp(min=0)
    if not 0 < variances.mean() < torch.inf:
        raise InputError("the embeddings do not vary, so there is nothing to learn from them; "
                         "embed with a trained CLIP")  # fmt: skip
    return (directions * (variances + FLOOR * variances.mean()) ** -0.5) @ directions.T


def fold(weight: Tensor, bias: Tensor, mean: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """weight (D, E) and bias (D,) of the layer on plain embeddings that computes what this one does on white ones."""
    mean, matrix = mean.to(weight.device).double(), matrix.to(weight.device).double()
    wide = weight.double() @ matrix  # (D, E)
    return wide.to(weight), (bias.double() - wide @ mean).to(bias)


def unfold(weight: Tensor, bias: Tensor, mean: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `fold`."""
    mean, matrix = mean.to(weight.device).double(), matrix.to(weight.device).double()
    wide = torch.linalg.solve(matrix, weight.double(), left=False)  # (D, E)
    return wide.to(weight), (bias.double() + weight.double() @ mean).to(bias)
