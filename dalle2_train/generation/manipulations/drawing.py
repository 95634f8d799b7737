"""Pictures from latents: the decoder begins at a given x_T, the upsamplers follow.

B pictures, H W their size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig, StageConfig
from dalle2_train.generation.decoder import run_decoder
from dalle2_train.generation.manipulations.latents import Latents, no_text
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pipeline import run_upsamplers, stages_of
from dalle2_train.generation.stage import Tick, check_stage
from dalle2_train.generation.unclip import Part, Unclip

DEFAULTS = {
    "decoder": {"sampler": "ddim", "num_steps": 250, "guidance_scale": 1.0, "clip_sample_range": None}
}
"""What manipulations of a picture set in place of `GenerationConfig`'s defaults: what gives the picture back."""


class Session(NamedTuple):
    """With what is drawn."""

    unclip: Unclip
    config: GenerationConfig
    seed: int
    tick: Tick


class Drawn(NamedTuple):
    """Pictures in [-1, 1]."""

    small: Tensor
    """(B, 3, h, w): the decoder's."""
    image: Tensor
    """(B, 3, H, W): the last upsampler's."""


class _Begun(NamedTuple):
    """Noise of which the decoder's first is given."""

    x_T: Tensor  # noqa: N815
    draws: Draws

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        return self.x_T if stage == "decoder" else self.draws.initial(stage, shape)

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        return self.draws.of_step(stage, shape, step)


def draw(session: Session, latents: Latents, index: Tensor) -> Drawn:
    """The pictures of `latents` (B); all noise but x_T is keyed by `index` (B,), so that equal ones share it."""
    unclip, config, seed, tick = session
    batches = []
    for start in range(0, len(index), config.batch_size):
        rows = slice(start, start + config.batch_size)
        small = draw_small(session, latents.of(rows), index[rows])
        draws = Draws(seed, index[rows])
        batches.append(Drawn(small, run_upsamplers(unclip, small, draws, config, tick)))
    return Drawn(*(torch.cat(of_all) for of_all in zip(*batches, strict=True)))


def draw_small(session: Session, latents: Latents, index: Tensor) -> Tensor:
    """The decoder's pictures (B, 3, h, w) alone, at once."""
    unclip, config, seed, tick = session
    text, noise = no_text(unclip, len(index)), _Begun(latents.x_T, Draws(seed, index))
    return run_decoder(unclip.decoder, latents.image_embed, text, text, noise, config.decoder, tick)


def keyed_noise(session: Session, index: Tensor) -> Tensor:
    """x_T (B, 3, h, w) that the seed names for `index` (B,): equal ones are equal."""
    network = session.unclip.decoder.network
    size = network.config.image_size
    return Draws(session.seed, index).initial("decoder", (3, size, size)).to(next(network.parameters()))


def num_steps(unclip: Unclip, config: GenerationConfig, count: int) -> int:
    """Denoising steps for `count` pictures, batch by batch."""
    a_batch = sum(section.num_steps for _, section in _stages(unclip, config).values())
    return -(-count // config.batch_size) * a_batch


def check_config(unclip: Unclip, config: GenerationConfig) -> None:
    """Errors: InputError where x_T would not say which picture the decoder draws, or a stage cannot be sampled so."""
    if config.decoder.sampler != "ddim" or config.decoder.num_steps < 2:
        raise InputError(
            f"decoder.sampler={config.decoder.sampler}, decoder.num_steps={config.decoder.num_steps}: x_T is found and "
            "drawn from by ddim with 2 steps or more; leave them as they are"
        )
    for name, (part, section) in _stages(unclip, config).items():
        check_stage(part, name, section)


def _stages(unclip: Unclip, config: GenerationConfig) -> dict[str, tuple[Part, StageConfig]]:
    """Those that are run: no prior is."""
    return {name: stage for name, stage in stages_of(unclip, config).items() if name != "prior"}
