"""What a sample draws at a visit, by the visit's key alone.

`seeding` would bring torch, whose start costs every loader worker seconds.
"""

from __future__ import annotations

import hashlib

import numpy as np


def uniform(key: int, purpose: str) -> float:
    """In [0, 1); other purposes draw independently."""
    return (int.from_bytes(_digest(key, purpose, 8), "big") >> 11) / 2**53


def generator(key: int, purpose: str) -> np.random.Generator:
    """A generator that starts at (key, purpose), for draws of which the first ones decide how many follow."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(key, purpose, 16), "big")))


def _digest(key: int, purpose: str, size: int) -> bytes:
    return hashlib.blake2b(f"{key}\x1f{purpose}".encode(), digest_size=size).digest()
