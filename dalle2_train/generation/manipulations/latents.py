"""A picture as (z_i, x_T): CLIP's embedding of it, and the noise from which DDIM draws it (§3 of unCLIP).

B pictures, E embedding, H W the decoder's picture size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.diffusion.samplers import invert
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.generation.config import DecoderStageConfig
from dalle2_train.generation.decoder import decoder_denoiser
from dalle2_train.generation.halves import repeated
from dalle2_train.generation.manipulations.pictures import Picture, to_signal
from dalle2_train.generation.stage import Tick
from dalle2_train.generation.unclip import Unclip
from dalle2_train.training.texts import caption_reader


class Latents(NamedTuple):
    """What the decoder draws pictures from."""

    image_embed: Tensor
    """z_i (B, E) in CLIP's own scale."""
    x_T: Tensor  # noqa: N815
    """(B, 3, H, W)"""

    def of(self, rows: slice) -> "Latents":
        """Those of some of the pictures."""
        return Latents(self.image_embed[rows], self.x_T[rows])

    def repeated(self, count: int) -> "Latents":
        """Those of one picture, `count` times."""
        return Latents(*(part.expand(count, *part.shape[1:]) for part in self))


@dataclass(frozen=True)
class InversionConfig:
    """How x_T is found."""

    num_refinements: int = 1
    """Times that every step is taken again with the noise predicted where it led to, each at the same cost again."""

    def __post_init__(self) -> None:
        if self.num_refinements < 0:
            raise InputError(f"num_refinements={self.num_refinements}: give 0 or more")

    def num_calls(self, num_steps: int) -> int:
        """Forwards of the decoder for a picture."""
        return (1 + self.num_refinements) * num_steps - 1


def find_latents(
    unclip: Unclip,
    pictures: Sequence[Picture],
    config: DecoderStageConfig,
    inversion: InversionConfig,
    tick: Tick,
) -> Latents:
    """The latents of `pictures`, inverted by the ddim steps of `config`, with guidance 1 and nothing clipped.

    Guidance 1 is that of the flow by which pictures become noise: drawn with guidance 1 the latents give the pictures
    back, drawn with more of it pictures that resemble CLIP's embedding more and the pictures less.
    """
    image_embed = unclip.clip.encode_image(torch.stack([picture.for_clip for picture in pictures]))  # (B, E)
    plain = replace(config, guidance_scale=1.0, eta=0.0, clip_sample_range=None, threshold_quantile=None)
    text = no_text(unclip, len(pictures))
    denoise = decoder_denoiser(unclip.decoder, image_embed, text, text, plain)
    part, weight = unclip.decoder, next(unclip.decoder.network.parameters())

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        tick()
        return denoise(x_t, t)

    x_0 = to_signal(torch.stack([picture.small for picture in pictures])).to(weight)  # (B, 3, H, W)
    sampler = plain.sampler_config(part.objective.prediction_type, part.objective.learned_variance)
    schedule = part.schedule.to(weight.device)
    return Latents(image_embed, invert(counted, x_0, schedule, sampler, inversion.num_refinements))


def no_text(unclip: Unclip, count: int) -> Text:
    """What stands for no text, `count` times: manipulated pictures are told by their embedding alone."""
    reader = replace(caption_reader(unclip.clip, unclip.decoder.network), with_text_embed=True)
    return repeated(reader.null_text(), count)
