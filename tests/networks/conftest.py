"""Random weights everywhere, zero-initialised layers included: parity is tested on a network that does something."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def parity() -> SimpleNamespace:
    """The three functions below."""
    return SimpleNamespace(randomise=randomise, close=assert_close, same_keys=assert_same_keys)


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter and persistent buffer draws of about the size that training gives it."""
    for name, value in module.state_dict().items():
        draws = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value.copy_(offset + draws * scale)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """The parity that is promised: 1e-9 relative in float64, 1e-4 in float32."""
    bound = 1e-9 if theirs.dtype == torch.float64 else 1e-4
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert theirs.std() > 1e-3, "a constant output would prove nothing"
    assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


def assert_same_keys(ours: nn.Module, theirs: nn.Module) -> None:
    """Each loads the other's state_dict strictly."""
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
