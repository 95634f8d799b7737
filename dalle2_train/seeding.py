"""Turns (seed, purpose, indices) into random numbers that depend on nothing else: no rank, no batch shape, no history.

A sample's noise is keyed by its global index, so the same global batch gets the same noise on one rank or on a hundred,
and a step that is run again after a restart draws what it drew the first time.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def key(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit number that names one draw; equal arguments give the equal number on every machine."""
    text = "\x1f".join([str(int(seed)), purpose, *(str(int(index)) for index in indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A CPU generator that starts at `key(seed, purpose, *indices)`."""
    return torch.Generator().manual_seed(key(seed, purpose, *indices))


def normal(
    shape: Sequence[int],
    seed: int,
    purpose: str,
    step: int,
    index: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard Gaussian noise, drawn sample by sample.

    index: (B,) global indices of the samples. Returns (B, *shape) on the CPU.
    """
    return torch.stack(
        [
            torch.randn(tuple(shape), generator=generator(seed, purpose, step, i), dtype=dtype)
            for i in index.tolist()
        ]
    )


def uniform(seed: int, purpose: str, step: int, index: Tensor) -> Tensor:
    """One number in [0, 1) per sample, float64. index: (B,) global indices. Returns (B,) on the CPU."""
    return torch.tensor([key(seed, purpose, step, i) / 2**63 for i in index.tolist()], dtype=torch.float64)


def integers(high: int, seed: int, purpose: str, step: int, index: Tensor) -> Tensor:
    """One whole number in [0, high) per sample, int64. index: (B,) global indices. Returns (B,) on the CPU."""
    return torch.tensor([key(seed, purpose, step, i) % high for i in index.tolist()], dtype=torch.int64)


def reseed_dropout(seed: int, device_type: str) -> None:
    """Set the global generators, which nothing but the networks' dropout draws from.

    `torch.manual_seed` would queue calls, with their stack traces, for every kind of device that is not there.
    """
    torch.default_generator.manual_seed(seed)
    if device_type == "cuda":
        torch.cuda.manual_seed(seed)
