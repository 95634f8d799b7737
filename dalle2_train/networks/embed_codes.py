"""Image embeddings as codes: their principal components in the order of variance, each rounded to one of V levels.

§2.2 of unCLIP. B batch, E embedding, K dimensions that are kept, V buckets, each with its level.
"""

import torch
from torch import Tensor, nn

from dalle2_train.errors import InputError

# What of the largest variance is rounding: a direction that varies less than this does not vary.
_SMALLEST_VARIANCE = 1e-12


def principal_components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """(variances (E,), directions (E, E) in rows) of a covariance (E, E), float64, largest variance first.

    The largest entry of a direction is positive, so that no machine's eigensolver decides the signs.
    """
    variances, columns = torch.linalg.eigh(covariance.double())
    directions = columns.T.flip(0)  # (E, E)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))  # (E, 1)
    return variances.flip(0).clamp(min=0), directions * largest.sign()


def gaussian_levels(num_buckets: int) -> Tensor:
    """The levels (V,) float64, ascending, that lose least of a standard Gaussian where V is large.

    Panter & Dite 1951: the best density of levels is the third root of the distribution's, for a Gaussian one of three
    times its variance; its quantiles are taken. A nearest level loses √3 π / 2 / V² of the variance, 2.6e-6 at the
    paper's 1024. Edges by the range that was seen would need all embeddings read once more, and one far-out picture
    would widen every bucket; equally frequent buckets lose everything in the tails.
    """
    shares = (torch.arange(num_buckets, dtype=torch.float64) + 0.5) / num_buckets
    return 3**0.5 * torch.special.ndtri(shares)


class EmbedCodes(nn.Module):
    """CLIP's image embeddings ↔ codes 0 … V - 1 of their first K principal components; the first varies most.

    All it knows are buffers, which are saved with the network and which no optimizer touches; `fit` sets them.
    """

    mean: Tensor
    directions: Tensor
    std: Tensor
    levels: Tensor
    left_out: Tensor

    def __init__(self, embed_dim: int, num_dims: int, num_buckets: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("directions", torch.eye(num_dims, embed_dim))
        self.register_buffer("std", torch.ones(num_dims))
        self.register_buffer("levels", gaussian_levels(num_buckets).float())
        self.register_buffer("left_out", torch.zeros(1))

    @torch.no_grad()
    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """Take the components of embeddings with `mean` (E,) and `covariance` (E, E).

        Raises InputError where they vary along fewer directions than there are codes.
        """
        variances, directions = principal_components(covariance)
        num_dims = len(self.std)
        num_varying = int((variances > _SMALLEST_VARIANCE * variances[0]).sum())
        if not 0 < variances[0] < torch.inf or num_varying < num_dims:
            raise InputError(f"the embeddings vary along {num_varying} directions, num_dims is {num_dims}; set it to "
                             "no more, or embed more pictures with a trained CLIP")  # fmt: skip
        self.mean.copy_(mean)
        self.directions.copy_(directions[:num_dims])
        self.std.copy_(variances[:num_dims].sqrt())
        self.left_out.copy_(variances[num_dims:].sum() / variances.sum())

    @property
    def variance(self) -> Tensor:
        """() of the embeddings that the components are of, summed over all directions, those left out too."""
        return (self.std.square().sum() / (1 - self.left_out)).squeeze()

    @torch.no_grad()
    def encode(self, image_embed: Tensor) -> Tensor:
        """(B, E) → codes (B, K) int64: the nearest levels, in the buffers' precision whatever autocast says."""
        with torch.autocast(image_embed.device.type, enabled=False):
            centred = image_embed.to(self.mean.dtype) - self.mean  # (B, E)
            components = centred @ self.directions.T / self.std  # (B, K)
        edges = (self.levels[1:] + self.levels[:-1]) / 2  # (V-1,)
        return torch.bucketize(components, edges)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K) → image embeddings (B, E) without what was rounded and left out."""
        return self.from_components(self.levels[codes])

    def from_components(self, components: Tensor) -> Tensor:
        """Components (B, K) in units of their standard deviations → image embeddings (B, E)."""
        with torch.autocast(components.device.type, enabled=False):
            return (components.to(self.std.dtype) * self.std) @ self.directions + self.mean
