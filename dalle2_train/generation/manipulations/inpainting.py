"""In-painting: a part of a picture drawn anew for a caption, through the decoder and every upsampler.

B pictures, H W a stage's picture size.
"""

from functools import partial

import torch
from torch import Tensor

from dalle2_train.diffusion.samplers import Known, Resampling, inpaint
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.decoder import run_decoder
from dalle2_train.generation.manipulations.drawing import Session
from dalle2_train.generation.manipulations.masks import Canvas
from dalle2_train.generation.manipulations.pictures import to_signal
from dalle2_train.generation.manipulations.sheet import Sheet
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pipeline import (
    check_sampling,
    choose_image_embed,
    num_forwards,
    ticker,
    upsamplers_of,
)
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import Unclip
from dalle2_train.generation.upsampling import run_upsampler
from dalle2_train.generation.words import read_prompts

_GREY = 128


@torch.inference_mode()
def paint(
    unclip: Unclip,
    canvas: Canvas,
    prompt: str,
    num_samples: int,
    config: GenerationConfig,
    resampling: Resampling,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sheet:
    """`num_samples` pictures, in which all is as in `canvas` but what it does not keep.

    What is kept comes out exactly. The prior draws z_i for `prompt`, which knows nothing of what is kept; decoder and
    upsamplers do at every step, and of what is painted over they know nothing. `resampling` is the decoder's:
    upsamplers, which have no say in what is drawn, go down once. `facts` tells which share of the picture is kept, and
    which each stage knows.
    Errors: InputError for settings under which a stage cannot be sampled, or where no samples are asked for.
    """
    check_sampling(unclip, config)
    if num_samples < 1:
        raise InputError(f"{num_samples} samples: give at least 1")
    again = resampling.num_calls(config.decoder.num_steps) - config.decoder.num_steps
    a_batch = num_forwards(unclip, config) + again
    starts = range(0, num_samples, config.batch_size)
    session = Session(unclip, config, seed, ticker(progress, len(starts) * a_batch))
    made = []
    for start in starts:
        index = torch.arange(start, min(start + config.batch_size, num_samples))
        made.append(_paint_batch(session, canvas, prompt, Draws(seed, index), resampling))
    full, kept = canvas.images[-1], canvas.kept
    images = torch.where(kept, full, to_uint8(torch.cat(made)))
    shown = torch.where(kept, full, _GREY)
    columns = ["picture", "what is kept", *(f"noise {i}" for i in range(num_samples))]
    facts = {"kept": _share(kept), "known": [_share(known) for known in canvas.known]}
    return Sheet({"": torch.cat([full[None], shown[None], images])}, columns, facts)


def _paint_batch(
    session: Session,
    canvas: Canvas,
    prompt: str,
    draws: Draws,
    resampling: Resampling,
) -> Tensor:
    """(B, 3, H, W) in [-1, 1]: the last stage's."""
    unclip, config, _, tick = session
    count = len(draws.index)
    of_prior, of_decoder = read_prompts(unclip, [prompt] * count)
    image_embed = choose_image_embed(unclip, of_prior, draws, config, tick)  # (B, E)
    known = [_known(unclip, *one, count) for one in zip(canvas.images, canvas.known, strict=True)]
    image = run_decoder(unclip.decoder, image_embed, *of_decoder, draws, config.decoder, tick,
                        partial(inpaint, known=known[0], resampling=resampling))  # (B, 3, h, w)  # fmt: skip
    for (stage, part), of_stage in zip(upsamplers_of(unclip).items(), known[1:], strict=True):
        run = partial(inpaint, known=of_stage)
        image = run_upsampler(part, stage, image, draws, getattr(config, stage), tick, run)  # (B, 3, H, W)
    return image


def _known(unclip: Unclip, image: Tensor, mask: Tensor, count: int) -> Known:
    """What `mask` (1, S, S) shows of `image` (3, S, S) uint8, in `count` pictures."""
    weight = next(unclip.decoder.network.parameters())
    x_0 = to_signal(image).to(weight).expand(count, -1, -1, -1)
    return Known(x_0, mask.to(weight.device).expand(count, -1, -1, -1))


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
