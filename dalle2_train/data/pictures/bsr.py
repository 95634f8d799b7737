"""Blind super-resolution's degradation: a picture made small as the world does it, in an order that is drawn.

After BSRGAN (Zhang et al. 2021), mildly, as Rombach et al. 2022 degrade for their super-resolution. The strengths and
where a step may stand are ours: no JPEG that always comes last, no turned kernels, white noise alone.
H the picture's side, S that of the small one. Loader workers run it: nothing here may import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from dalle2_train.data.pictures.picture import Picture
from dalle2_train.errors import InputError

STEPS = ("blur", "shrink", "noise", "jpeg", "shrink")
"""Each time in another order; the first `shrink` goes part of the way, the second all of it."""
FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class BsrConfig:
    """Between what each step draws, uniformly, ends included. The defaults are mild; BSRGAN's own are noise_std
    [2, 25] and jpeg_quality [30, 95]."""

    kind: Literal["bsr"] = "bsr"
    blur_sigma: tuple[float, float] = (0.1, 1.5)
    """Standard deviation of a Gaussian, drawn for each axis by itself; in pixels of the size that it meets."""
    noise_std: tuple[float, float] = (2.0, 8.0)
    """Standard deviation of white noise, of 255; half of the time one noise for all three colours."""
    jpeg_quality: tuple[int, int] = (80, 95)
    """libjpeg's, 1 … 100, with colours at half resolution."""

    def __post_init__(self) -> None:
        for name, least, most in (("blur_sigma", 0, 20), ("noise_std", 0, 255), ("jpeg_quality", 1, 100)):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise InputError(f"{name} is [{low}, {high}]; it must be two numbers from {least} to {most}, "
                                 "the smaller first")  # fmt: skip


def degrade(picture: Picture, size: int, config: BsrConfig, rng: np.random.Generator) -> Picture:
    """(H, H, 3) → (S, S, 3), S = `size` < H, by STEPS in an order that is drawn from `rng`, as everything is."""
    sides = iter((int(rng.integers(size, len(picture) + 1)), size))
    steps: dict[str, Callable[[Picture], Picture]] = {
        "blur": lambda image: blur(image, rng.uniform(*config.blur_sigma, size=2).tolist()),
        "shrink": lambda image: shrink(image, next(sides), FILTERS[rng.integers(len(FILTERS))]),
        "noise": lambda image: add_noise(image, rng.uniform(*config.noise_std), rng.random() < 0.5, rng),
        "jpeg": lambda image: jpeg(image, int(rng.integers(*config.jpeg_quality, endpoint=True))),
    }
    for number in rng.permutation(len(STEPS)):
        picture = steps[STEPS[number]](picture)
    return picture


def blur(picture: Picture, sigmas: Sequence[float]) -> Picture:
    """Convolve rows with a Gaussian of sigmas[0] pixels and columns with sigmas[1], mirrored at the edges."""
    found = picture.astype(np.float32)  # (H, W, 3)
    for axis, sigma in enumerate(sigmas):
        if sigma > 0:
            found = _blur_axis(found, float(sigma), axis)
    return _to_picture(found)


def shrink(picture: Picture, side: int, resample: Image.Resampling) -> Picture:
    """(H, H, 3) → (side, side, 3), antialiased."""
    return np.array(Image.fromarray(picture).resize((side, side), resample))


def add_noise(picture: Picture, std: float, is_grey: bool, rng: np.random.Generator) -> Picture:
    """Gaussian noise of `std` (of 255) on every pixel; the same on its three colours where `is_grey`."""
    shape = (*picture.shape[:2], 1 if is_grey else 3)
    return _to_picture(picture + np.float32(std) * rng.standard_normal(shape, dtype=np.float32))


def jpeg(picture: Picture, quality: int) -> Picture:
    """What is left after JPEG of that quality."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420", fastdct=False)
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)


def _blur_axis(image: np.ndarray, sigma: float, axis: int) -> np.ndarray:
    """One axis at a time, tap by tap: SciPy is no dependency, and Pillow's own blur is a box's for small sigmas."""
    radius = min(math.ceil(4 * sigma), image.shape[axis] - 1)
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
    padding = [(radius, radius) if axis == other else (0, 0) for other in range(3)]
    padded, length = np.moveaxis(np.pad(image, padding, "symmetric"), axis, 0), image.shape[axis]
    found = taps[0] * padded[radius : radius + length]
    for i in range(1, radius + 1):
        both = padded[radius - i : radius - i + length] + padded[radius + i : radius + i + length]
        found += taps[i] * both
    return np.moveaxis(found, 0, axis)


def _to_picture(values: np.ndarray) -> Picture:
    return np.rint(values).clip(0, 255).astype(np.uint8)
