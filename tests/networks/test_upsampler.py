"""The upsampler against diffusers' UNet2DModel."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DModel

from dalle2_train.errors import InputError
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig, diffusers_config, enlarge

CONFIG = UpsamplerConfig(low_size=8, high_size=16, channels=(32, 64, 96), num_resnets=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, channels=(64, 32), num_resnets=3, num_groups=4),
        replace(CONFIG, scale_shift=True),
    ],
)
@torch.no_grad()
def test_equals_unet(
    parity: SimpleNamespace, config: UpsamplerConfig, generator: torch.Generator, dtype: torch.dtype
) -> None:
    ours, theirs = (
        Upsampler(config).to(dtype).eval(),
        UNet2DModel(**diffusers_config(config)).to(dtype).eval(),
    )
    parity.randomise(ours, generator)
    parity.same_keys(ours, theirs)
    x_t = torch.randn(2, 3, 16, 16, generator=generator, dtype=dtype)
    low = torch.randn(2, 3, 16, 16, generator=generator, dtype=dtype)
    t = torch.tensor([3, 998])
    expected = theirs(torch.cat([x_t, low], dim=1), t).sample
    parity.close(ours(x_t, t, low), expected)
    last = torch.channels_last
    ours = ours.to(memory_format=last)
    parity.close(ours(x_t.contiguous(memory_format=last), t, low.contiguous(memory_format=last)), expected)


def test_takes_crops_of_any_size_its_levels_can_halve(generator: torch.Generator) -> None:
    upsampler = Upsampler(CONFIG)
    crop = torch.randn(1, 3, 8, 12, generator=generator)
    assert upsampler(crop, torch.tensor([5]), crop).shape == (1, 3, 8, 12)


def test_enlarge_keeps_a_flat_image_flat(parity: SimpleNamespace) -> None:
    flat = torch.full((1, 3, 8, 8), 0.25, dtype=torch.float64)
    parity.close(enlarge(flat, 16) + torch.eye(16), torch.full((1, 3, 16, 16), 0.25).double() + torch.eye(16))


def test_a_bad_size_is_named() -> None:
    with pytest.raises(InputError, match="low_size 16"):
        UpsamplerConfig(low_size=16, high_size=16)
    with pytest.raises(InputError, match="multiple of 4"):
        UpsamplerConfig(low_size=7, high_size=14, channels=(32, 32, 32))
