"""The upsampler's update: crops, degradation, what the loss is, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from families import SETTINGS, random, random_pictures, rows, spy, train
from scipy import ndimage, stats

from dalle2_train.data.pictures.bsr import BsrConfig
from dalle2_train.data.stream.batches import DegradedBatch, UpsamplerBatch
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.errors import InputError
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig, enlarge
from dalle2_train.training.degradation import GaussianBlurConfig, crop, gaussian_blur, low_res, shrink
from dalle2_train.training.draws import diffusion_draws, offsets
from dalle2_train.training.upsampler import UpsamplerModelConfig, UpsamplerModule, migrated

CONFIG = UpsamplerModelConfig(
    network=UpsamplerConfig(low_size=8, high_size=32, channels=(32, 32), num_resnets=1), crop_fraction=0.5
)


def build(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    return UpsamplerModule(Upsampler(config.network), config, *SETTINGS)


def batch_of(num_samples):
    return UpsamplerBatch(torch.arange(num_samples) + 8, random_pictures(num_samples, 32))


def test_blur_equals_scipys():
    image = random(2, 3, 9, 9)
    theirs = ndimage.gaussian_filter(
        image.numpy(), sigma=(0, 0, 0.6, 0.6), radius=(0, 0, 1, 1), mode="mirror"
    )
    np.testing.assert_allclose(gaussian_blur(image, 0.6).numpy(), theirs, atol=1e-6)
    assert torch.equal(gaussian_blur(image, 0.0), image)


def test_only_chosen_samples_are_blurred():
    image = random(2, 3, 32, 32).clamp(-1, 1)
    shown = low_res(image, 8, 0.6, torch.tensor([True, False]))
    assert torch.equal(shown[1:], enlarge(shrink(image[1:], 8), 32))
    assert torch.equal(shown[:1], enlarge(gaussian_blur(shrink(image[:1], 8), 0.6), 32))
    assert shrink(image * 3, 8).abs().max() <= 1


def test_crops_start_at_their_corners():
    image = random(2, 3, 8, 8)
    found = crop(image, torch.tensor([[1, 4], [0, 2]]), 4)
    assert torch.equal(found[0], image[0, :, 1:5, 4:8])
    assert torch.equal(found[1], image[1, :, 0:4, 2:6])


def test_the_network_sees_a_crop_and_the_same_place_of_the_whole_enlarged():
    module, batch = build(degradation=GaussianBlurConfig(probability=0.0)), batch_of(6)
    seen = spy(module.network)
    module.compute_loss(batch, step=4)
    x_t, t, low_res_image = seen[0]
    assert x_t.shape == low_res_image.shape == (6, 3, 16, 16)
    image = batch.image.float() / 127.5 - 1
    whole = enlarge(shrink(image, 8), 32)
    draws = diffusion_draws(7, 4, batch.index, 1000, (3, 16, 16))
    alpha_bar = module.schedule.alphas_cumprod[t].float()[:, None, None, None]
    x_0 = (x_t - (1 - alpha_bar).sqrt() * draws.eps) / alpha_bar.sqrt()
    corners = set()
    for i in range(6):
        places = [(top, left) for top in range(0, 17, 4) for left in range(0, 17, 4)]
        matches = [
            (top, left)
            for top, left in places
            if torch.equal(low_res_image[i], whole[i, :, top : top + 16, left : left + 16])
        ]
        assert len(matches) == 1
        top, left = matches[0]
        corners.add(matches[0])
        torch.testing.assert_close(x_0[i], image[i, :, top : top + 16, left : left + 16], atol=1e-3, rtol=0)
    assert len(corners) > 1


def test_half_of_the_samples_are_blurred():
    module, batch = build(crop_fraction=1.0), batch_of(2)
    shown = []
    module.network.forward = lambda x_t, t, low: shown.append(low) or torch.zeros_like(x_t)
    indices = torch.arange(50)
    wide = rows(batch, indices % 2)._replace(index=indices)
    for step in range(10):
        module.compute_loss(wide, step)
    sharp = enlarge(shrink(wide.image.float() / 127.5 - 1, 8), 32)
    blurred = sum(int((low != sharp).any(dim=(1, 2, 3)).sum()) for low in shown)
    assert stats.binomtest(blurred, 500, 0.5).pvalue > 1e-4


def test_degraded_pictures_are_enlarged_whole_and_cropped_with_theirs():
    module, images = build(degradation=BsrConfig(), crop_fraction=0.5), random_pictures(4, 32)
    small = random_pictures(4, 8)
    seen = spy(module.network)
    module.compute_loss(DegradedBatch(torch.arange(4) + 8, images, small), step=4)
    twin = build(degradation=GaussianBlurConfig(probability=0.0), crop_fraction=0.5)
    beside = spy(twin.network)
    twin.compute_loss(UpsamplerBatch(torch.arange(4) + 8, images), step=4)
    assert torch.equal(seen[0][0], beside[0][0])  # the same crop of the large picture, with the same noise
    whole = enlarge(small.float() / 127.5 - 1, 32)
    corners = 4 * offsets(7, "crop", 4, torch.arange(4) + 8, 5)
    assert torch.equal(seen[0][2], crop(whole, corners, 16))


def test_what_the_recipe_says_of_the_small_pictures_reaches_the_data():
    assert CONFIG.degradation_in_data is None
    bsr = BsrConfig(jpeg_quality=(30, 95))
    found = dataclasses.replace(CONFIG, degradation=bsr).degradation_in_data
    assert found is not None and (found.size, found.config) == (8, bsr)


def test_settings_of_older_runs_are_understood():
    older = {"crop_fraction": 0.5, "blur_sigma": 1.0, "blur_probability": 0.25}
    assert migrated(older) == {
        "crop_fraction": 0.5,
        "degradation": {"kind": "gaussian_blur", "sigma": 1.0, "probability": 0.25},
    }
    assert migrated(migrated(older)) == migrated(older)


@pytest.mark.parametrize(("field", "value"), [("sigma", -1.0), ("probability", 2.0)])
def test_impossible_blurs_are_named(field, value):
    with pytest.raises(InputError, match=field):
        GaussianBlurConfig(**{field: value})


def test_first_loss_is_the_noises_power():
    batch = batch_of(8)
    loss = build().compute_loss(batch, 0).loss
    torch.testing.assert_close(
        loss, diffusion_draws(7, 0, batch.index, 1000, (3, 16, 16)).eps.square().mean()
    )


def test_loss_is_the_mean_of_its_parts():
    module, batch = build(), batch_of(8)
    torch.nn.init.normal_(module.network.conv_out.weight, std=0.1)
    whole = module.compute_loss(batch, 5).loss
    parts = [
        module.compute_loss(rows(batch, part), 5).loss
        for part in (torch.arange(0, 8, 2), torch.arange(1, 8, 2))
    ]
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_it_learns_a_tiny_batch():
    losses = train(build(), batch_of(4), 25, 5e-3)
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.1}, "crop_fraction"),
        ({"crop_fraction": 0.1}, "crop_fraction"),
        ({"objective": ObjectiveConfig(learned_variance=True)}, "learned_variance"),
    ],
)
def test_impossible_settings_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        dataclasses.replace(CONFIG, **changes)
