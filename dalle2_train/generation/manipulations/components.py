"""What the first principal components of a picture's embedding hold (§3 of unCLIP, its last part).

E embedding, K components.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, check_config, draw, keyed_noise, num_steps
from dalle2_train.generation.manipulations.latents import Latents
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.pipeline import ticker
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import Unclip
from dalle2_train.networks.embed_codes import principal_components


class Components(NamedTuple):
    """The principal axes of a set of image embeddings, the one of the largest variance first."""

    mean: Tensor
    """(E,) float64"""
    variances: Tensor
    """(E,) float64"""
    directions: Tensor
    """(E, E) float64, unit vectors in rows."""

    def rebuild(self, image_embed: Tensor, num_components: Sequence[int]) -> Tensor:
        """`image_embed` (E,) with only the first K components of its difference from the mean, for each K: (K…, E)."""
        scores = self.directions @ (image_embed.double() - self.mean)  # (E,)
        kept = torch.stack([torch.arange(len(scores)) < count for count in num_components])  # (K…, E)
        return (self.mean + (kept * scores) @ self.directions).to(image_embed)

    def explained(self, num_components: Sequence[int]) -> list[float]:
        """The share of the set's variance in the first K components, for each K."""
        shares = self.variances.cumsum(0) / self.variances.sum()
        return [float(shares[count - 1]) for count in num_components]


def fit_components(mean: Tensor, covariance: Tensor) -> Components:
    """The components of embeddings with `mean` (E,) and `covariance` (E, E)."""
    return Components(mean.double(), *principal_components(covariance))


def growing(embed_dim: int, count: int) -> list[int]:
    """`count` or fewer numbers of components, each about twice the one before, up to all of them."""
    return sorted({max(1, round(embed_dim / 2**i)) for i in range(count)})


def check_counts(num_components: Sequence[int], embed_dim: int) -> None:
    """Errors: InputError for a number that is not among 1 … E."""
    for count in num_components:
        if not 1 <= count <= embed_dim:
            raise InputError(f"{count} components: the embedding has {embed_dim}; give 1 to {embed_dim}")


@torch.inference_mode()
def probe(
    unclip: Unclip,
    picture: Picture,
    components: Components,
    num_components: Sequence[int],
    num_samples: int,
    config: GenerationConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """A column for each of `num_components`, in which as many components of z_i are kept, and the picture at the end.

    A row for each of `num_samples` noises: all in a row begin at the same x_T, which `seed` names as it does all noise.
    `facts` tells which share of the set's variance each column has, and its embedding's cosine with z_i.
    Errors: InputError for settings under which x_T says nothing, or a number of components that there are not.
    """
    check_config(unclip, config)
    check_counts(num_components, len(components.mean))
    if num_samples < 1:
        raise InputError(f"{num_samples} samples: give at least 1")
    image_embed = unclip.clip.encode_image(picture.for_clip[None])  # (1, E)
    rebuilt = components.rebuild(image_embed[0], num_components)  # (K…, E)
    count = len(num_components)
    session = Session(unclip, config, seed, ticker(progress, num_steps(unclip, config, num_samples * count)))
    index = torch.arange(num_samples).repeat_interleave(count)  # row by row
    latents = Latents(rebuilt.repeat(num_samples, 1), keyed_noise(session, index))
    made = to_uint8(draw(session, latents, index).image).unflatten(0, (num_samples, count))
    rows = {f"noise {i}": torch.cat([row, picture.full[None]]) for i, row in enumerate(made)}
    facts = {
        "num_components": list(num_components),
        "variance": components.explained(num_components),
        "cosine": F.cosine_similarity(rebuilt, image_embed, dim=1).tolist(),
    }
    columns = [*(f"{kept} of {len(components.mean)}" for kept in num_components), "picture"]
    return Sheet(rows, columns, facts)
