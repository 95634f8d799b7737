"""Our pixels against transformers' CLIPImageProcessor."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from dalle2_train.encoders.pixels import CLIP_PIXELS, to_pixel_values


def smooth_picture(height, width):
    """A picture with waves, edges and some noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7), np.cos(y / 5), np.where(x > width // 2, 1.0, -1.0)], axis=-1)
    return np.clip(127 + 110 * waves + rng.normal(0, 10, waves.shape), 0, 255).astype(np.uint8)


def theirs(picture, size):
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]


def test_same_size_equals_transformers():
    picture = smooth_picture(32, 32)
    ours = to_pixel_values(torch.from_numpy(picture).permute(2, 0, 1)[None], 32)
    torch.testing.assert_close(ours, theirs(picture, 32), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 20), (48, 81), (90, 40)])
def test_other_sizes_agree_to_two_levels(height, width):
    picture = smooth_picture(height, width)
    ours = to_pixel_values(torch.from_numpy(picture).permute(2, 0, 1)[None], 32)
    level = 1 / 255 / min(CLIP_PIXELS.std)
    difference = (ours - theirs(picture, 32)).abs()
    assert difference.max() <= 2.01 * level
    assert (difference > 1.5 * level).float().mean() < 0.01
