"""Spherical interpolation: the way between two latents that stays as far from the origin as they are.

B batch, E embedding; latents any shape (B, …).
"""

import math

import torch
from torch import Tensor

from dalle2_train.errors import InputError

# Of an angle, in radians, from π: nearer, rounding alone would choose which way round is the shorter.
_OPPOSITE = 1e-5


def slerp(start: Tensor, end: Tensor, fraction: Tensor | float) -> Tensor:
    """The latents (B, …) at `fraction` (B,), 0 … 1, of the great arcs from `start` (B, …) to `end` (B, …).

    Directions move at a constant angular speed (Shoemake 1985), norms on a line. Computed in float64, returned
    as `start`'s kind. Errors: InputError where two latents are opposite, so that no arc is the shortest.
    """
    a, b = start.flatten(1).double(), end.flatten(1).double()
    norms = torch.stack([a.norm(dim=1), b.norm(dim=1)])[..., None]  # (2, B, 1)
    a, b = a / norms[0], b / norms[1]
    # Kahan's formula, accurate where a and b are almost equal or opposite; arccos is not.
    angle = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))  # (B, 1)
    if bool((angle > math.pi - _OPPOSITE).any()):
        raise InputError("two latents point in opposite directions, so there is no shortest way between them; "
                         "interpolate by way of a third")  # fmt: skip
    fraction = torch.as_tensor(fraction, dtype=torch.float64, device=a.device).reshape(-1, 1)
    direction = _weight(1 - fraction, angle) * a + _weight(fraction, angle) * b
    return ((norms[0] + fraction * (norms[1] - norms[0])) * direction).reshape(start.shape).to(start)


def _weight(fraction: Tensor, angle: Tensor) -> Tensor:
    """sin(fraction · angle) / sin(angle), which is `fraction` where the angle is 0."""
    return fraction * torch.sinc(fraction * angle / math.pi) / torch.sinc(angle / math.pi)
