"""Text diffs: the image embedding turned towards what one caption says and another does not (§3.3 of unCLIP).

B pictures, E embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, check_config, draw, num_steps
from dalle2_train.generation.manipulations.latents import InversionConfig, find_latents
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.manipulations.slerp import slerp
from dalle2_train.generation.pipeline import ticker
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import Unclip

# Of the length of a difference of two unit vectors: shorter, it is rounding.
_NO_DIFFERENCE = 1e-4


def text_direction(clip: ClipEncoder, before: str, after: str) -> Tensor:
    """normalise(z_t - z_t0): the unit vector (1, E) from the caption `before`, z_t0, to `after`, z_t.

    z_t and z_t0 are of unit length: CLIP compares directions, and has put no meaning into a text embedding's length.
    Errors: InputError where the two are the same.
    """
    text_embed = F.normalize(clip.encode_captions([before, after]).text_embed.double(), dim=1)  # (2, E)
    difference = text_embed[1:] - text_embed[:1]  # (1, E)
    if float(difference.norm()) < _NO_DIFFERENCE:
        raise InputError(f"{before!r} and {after!r} are the same to CLIP, so there is no difference to apply; "
                         "give another text")  # fmt: skip
    return F.normalize(difference, dim=1)


def turn(image_embed: Tensor, direction: Tensor, theta: Tensor) -> Tensor:
    """slerp(z_i, direction, theta), as long as `image_embed` (B, E); `direction` (1, E), `theta` (B,) 0 … 1."""
    length = image_embed.norm(dim=1, keepdim=True)  # (B, 1)
    return slerp(image_embed, length * direction.to(image_embed), theta)


@torch.inference_mode()
def textdiff(
    unclip: Unclip,
    picture: Picture,
    direction: Tensor,
    thetas: Sequence[float],
    config: GenerationConfig,
    inversion: InversionConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """The picture with its embedding turned towards `direction` (1, E), a text's, by each of `thetas`.

    x_T is the picture's own throughout, so that what the text does not name stays; theta 0 is the reconstruction.
    Errors: InputError for settings under which x_T says nothing, or a theta outside of 0 … 1.
    """
    check_config(unclip, config)
    if not thetas or min(thetas) < 0 or max(thetas) > 1:
        raise InputError(f"theta {list(thetas)}: give 0 to 1; the paper's are 0.25 to 0.5 at most")
    calls = inversion.num_calls(config.decoder.num_steps)
    tick = ticker(progress, calls + num_steps(unclip, config, len(thetas)))
    own = find_latents(unclip, [picture], config.decoder, inversion, tick)
    own = own.repeated(len(thetas))
    turned = own._replace(image_embed=turn(own.image_embed, direction, torch.tensor(thetas)))
    index = torch.zeros(len(thetas), dtype=torch.int64)
    made = to_uint8(draw(Session(unclip, config, seed, tick), turned, index).image)
    columns = ["picture", *(f"theta {theta:.2f}" for theta in thetas)]
    return Sheet({"": torch.cat([picture.full[None], made])}, columns)
