"""Pictures between two: the arcs between their latents (§3.2 of unCLIP)."""

import torch

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, check_config, draw, keyed_noise, num_steps
from dalle2_train.generation.manipulations.latents import InversionConfig, Latents, find_latents
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.manipulations.slerp import slerp
from dalle2_train.generation.pipeline import ticker
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import Unclip


@torch.inference_mode()
def interpolate(
    unclip: Unclip,
    first: Picture,
    last: Picture,
    num_pictures: int,
    config: GenerationConfig,
    inversion: InversionConfig | None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """`num_pictures` at even fractions from `first` to `last`, between the two themselves.

    z_i moves on the arc between the two; x_T too, so that both ends are reconstructions; with `inversion` None one x_T
    that `seed` names stands for all. All other noise is the same for all.
    Errors: InputError for settings under which x_T says nothing, or fewer than two pictures.
    """
    check_config(unclip, config)
    if num_pictures < 2:
        raise InputError(f"{num_pictures} pictures: an interpolation has at least its 2 ends")
    calls = 0 if inversion is None else inversion.num_calls(config.decoder.num_steps)
    tick = ticker(progress, calls + num_steps(unclip, config, num_pictures))
    session, fractions = Session(unclip, config, seed, tick), torch.linspace(0, 1, num_pictures)
    latents = _between(session, first, last, fractions, inversion)
    made = to_uint8(draw(session, latents, torch.zeros(num_pictures, dtype=torch.int64)).image)
    columns = ["picture", *(f"{fraction:.2f}" for fraction in fractions.tolist()), "picture"]
    return Sheet({"": torch.cat([first.full[None], made, last.full[None]])}, columns)


def _between(
    session: Session,
    first: Picture,
    last: Picture,
    fractions: torch.Tensor,
    inversion: InversionConfig | None,
) -> Latents:
    if inversion is None:
        seen = torch.stack([first.for_clip, last.for_clip])
        embeds, noises = (
            session.unclip.clip.encode_image(seen),
            keyed_noise(session, torch.zeros(2, dtype=torch.int64)),
        )
    else:
        embeds, noises = find_latents(
            session.unclip, [first, last], session.config.decoder, inversion, session.tick
        )
    count = len(fractions)
    ends = [part[i : i + 1].expand(count, *part.shape[1:]) for part in (embeds, noises) for i in (0, 1)]
    return Latents(slerp(ends[0], ends[1], fractions), slerp(ends[2], ends[3], fractions))
