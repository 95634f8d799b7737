"""How a set is read: the settings of a recipe's `data` section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dalle2_train.data.samples.transforms import Transforms
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class DataConfig:
    """How a set is read. What is set for pictures or captions is refused where a training reads none."""

    image_size: int = 64
    """Pixels; a square of the picture is resized to it."""
    crop: Literal["center", "random"] = "center"
    """Which square; `random` draws its place anew at every visit. Embeddings see the centre all the same."""
    min_crop_fraction: float = 1.0
    """Smallest side of a random crop, in parts of the picture's short side (guided diffusion: 0.8). 1: all of it."""
    flip: bool = False
    """Whether half of the visits see the picture mirrored. What is written on it comes mirrored too."""
    captions: str = "txt"
    """`txt`, or `json.FIELD`: a field of the json record with one caption, or a list of which a visit draws one.
    `shards check` calls a sample without .txt faulty all the same."""
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
    cache_folder: str | None = None
    """A folder on a local disk for what is read of the shards, encoded as it is; all processes of a machine share it.
    With it goes data.cache_gigabytes. null: none. An absolute path, the same on every machine."""
    cache_gigabytes: float = 0
    """At most so much is kept there; what was used longest ago goes first."""
    num_workers: int = 0
    """Processes per rank that read and decode; 0: the rank's own does. It decides the speed, never the order."""
    prefetch_batches: int = 2
    """Batches made ahead of the training step, by a thread; 0: each when it is wanted."""
    max_faulty: float = 0.01
    """Share of the samples met that may be faulty before the run stops; ten in an epoch are always allowed."""

    def __post_init__(self) -> None:
        positive = ("image_size", "num_lanes", "block_size")
        for name in (*positive, "cache_megabytes", "num_workers", "prefetch_batches"):
            least = 1 if name in positive else 0
            if getattr(self, name) < least:
                raise InputError(f"data.{name} is {getattr(self, name)}; it must be {least} or more")
        if not 0 < self.min_crop_fraction <= 1:
            raise InputError(f"data.min_crop_fraction is {self.min_crop_fraction}; it must be in (0, 1]")
        if self.crop == "center" and self.min_crop_fraction != 1:
            raise InputError(
                "data.min_crop_fraction is of random crops; set data.crop=random, or leave it at 1"
            )
        if (self.cache_folder is None) != (self.cache_gigabytes == 0) or self.cache_gigabytes < 0:
            raise InputError(f"data.cache_folder is {self.cache_folder}, data.cache_gigabytes {self.cache_gigabytes}; "
                             "set both, or neither")  # fmt: skip
        if self.cache_folder is not None and not self.cache_folder.startswith("/"):
            raise InputError(
                f"data.cache_folder is {self.cache_folder}; give an absolute path on a local disk"
            )
        if self.captions != "txt" and not re.fullmatch(r"json\.\S+", self.captions):
            raise InputError(f"data.captions is {self.captions!r}; it must be txt, or json.FIELD")
        if not 0 <= self.max_faulty <= 1:
            raise InputError(f"data.max_faulty is {self.max_faulty}; it must be a share, from 0 to 1")

    @property
    def transforms(self) -> Transforms:
        """What becomes of a sample."""
        return Transforms(self.crop, self.min_crop_fraction, self.flip, self.captions)
