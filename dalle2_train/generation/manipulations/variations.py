"""Variations of a picture: DDIM with noise around its latents (§3.1 of unCLIP)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, check_config, draw, num_steps
from dalle2_train.generation.manipulations.latents import InversionConfig, Latents, find_latents
from dalle2_train.generation.manipulations.pictures import Picture, to_signal
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.pipeline import ticker
from dalle2_train.generation.pixels import psnr, to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import Unclip


@torch.inference_mode()
def vary(
    unclip: Unclip,
    picture: Picture,
    etas: Sequence[float],
    num_samples: int,
    config: GenerationConfig,
    inversion: InversionConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """A row for each of `num_samples` noises, a column for each eta, beside the picture and what eta 0 makes of it.

    A row's noise is the same under every eta. `facts` tells how well inversion did: the reconstruction's PSNR in dB
    at the decoder's size, and x_T's mean and standard deviation, which are 0 and 1 of noise.
    Errors: InputError for settings under which x_T says nothing, or an eta that is not positive.
    """
    check_variations(unclip, config, etas, num_samples)
    calls = inversion.num_calls(config.decoder.num_steps) + num_steps(unclip, config, 1)
    tick = ticker(progress, calls + len(etas) * num_steps(unclip, config, num_samples))
    latents = find_latents(unclip, [picture], config.decoder, inversion, tick)
    session, index = Session(unclip, config, seed, tick), torch.arange(num_samples)
    same = draw(session, latents, index[:1])
    columns = [
        picture.full.expand(num_samples, -1, -1, -1),
        to_uint8(same.image).expand(num_samples, -1, -1, -1),
    ]
    for eta in etas:
        noisy = replace(config, decoder=replace(config.decoder, eta=eta))
        columns.append(
            to_uint8(draw(session._replace(config=noisy), latents.repeated(num_samples), index).image)
        )
    rows = torch.stack(columns, dim=1)  # (num_samples, columns, 3, H, W)
    return Sheet(
        {f"noise {i}": row for i, row in enumerate(rows)},
        ["picture", "eta 0", *(f"eta {eta:g}" for eta in etas)],
        facts_of_inversion(latents, picture, same.small),
    )


def facts_of_inversion(latents: Latents, picture: Picture, small: Tensor) -> dict[str, float]:
    """How near the decoder's `small` (1, 3, h, w) comes to the picture, and how like noise its x_T (1, …) is."""
    return {
        "reconstruction_psnr_db": psnr(small[0], to_signal(picture.small), span=2).item(),
        "x_T_mean": float(latents.x_T.mean()),
        "x_T_std": float(latents.x_T.std()),
    }


def check_variations(
    unclip: Unclip, config: GenerationConfig, etas: Sequence[float], num_samples: int
) -> None:
    """Errors: those of `vary`."""
    check_config(unclip, config)
    if config.decoder.eta != 0:
        raise InputError(
            f"decoder.eta={config.decoder.eta}: of variations every column has its own; leave it 0"
        )
    if not etas or min(etas) <= 0:
        raise InputError(f"eta {list(etas)}: give one or more, each above 0 (eta 0 is drawn anyway)")
    if num_samples < 1:
        raise InputError(f"{num_samples} samples: give at least 1")
