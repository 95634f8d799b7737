"""How a set is read: the settings of a recipe's `data` section."""

from __future__ import annotations

from dataclasses import dataclass

from dalle2_train.data.filters import FilterConfig
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class DataConfig:
    """How a set is read."""

    image_size: int = 64
    """Pixels; the centre square is resized to it."""
    split: str = "train"
    """The split that is read."""
    num_lanes: int = 8
    """Lanes of the order. The number of ranks divides it, it divides the global batch."""
    block_size: int = 64
    """Samples; storage is read in runs of so many neighbours. Small sets mix better with less."""
    shuffle: bool = True
    """False reads in the order of the shards."""
    filters: FilterConfig = FilterConfig()
    """Which samples are left out, by what their records tell."""
    cache_megabytes: int = 512
    """Decoded samples kept in memory, per process; 0 keeps none."""
    num_workers: int = 0
    """Processes per rank that read and decode; 0: the rank's own does. It decides the speed, never the order."""
    prefetch_batches: int = 2
    """Batches made ahead of the training step, by a thread; 0: each when it is wanted."""

    def __post_init__(self) -> None:
        positive = ("image_size", "num_lanes", "block_size")
        for name in (*positive, "cache_megabytes", "num_workers", "prefetch_batches"):
            least = 1 if name in positive else 0
            if getattr(self, name) < least:
                raise InputError(f"data.{name} is {getattr(self, name)}; it must be {least} or more")
