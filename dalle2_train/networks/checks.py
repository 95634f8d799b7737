"""What a network's shape must satisfy; each raises InputError with the field, its value and what it may be."""

from typing import Any

from dalle2_train.errors import InputError


def check_positive(config: Any, *names: str) -> None:
    """Sizes and counts; None, where a field has it for "by default", passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise InputError(f"{name} {value} must be positive")


def check_dropout(probability: float) -> None:
    """A share of units, not all of them."""
    if not 0.0 <= probability < 1.0:
        raise InputError(f"dropout {probability} must be at least 0 and below 1")


def check_levels(image_size: int, channels: tuple[int, ...], num_groups: int) -> None:
    """A U-Net's levels: groups divide widths, the size halves, sinusoids of the first width come in pairs."""
    bad = [width for width in channels if width <= 0 or width % num_groups]
    if not channels or bad:
        raise InputError(
            f"channels {list(channels)}: every level's width must be a positive multiple of num_groups {num_groups}"
        )
    if channels[0] % 2:
        raise InputError(f"channels {list(channels)}: the first level's width must be even")
    factor = 2 ** (len(channels) - 1)
    if image_size % factor:
        raise InputError(
            f"image size {image_size} must be a multiple of {factor} to be halved over {len(channels)} levels"
        )
