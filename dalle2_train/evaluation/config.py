"""What an evaluation asks, and who hears how far it is."""

from collections.abc import Callable
from dataclasses import dataclass

HELD_OUT = "validation"
"""The split whose real pictures every evaluation compares with."""

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What an evaluation asks. Reports of different questions cannot be compared."""

    image_size: int = 64
    """Pixels a side of the real pictures; that of the generated ones."""
    num_queries: int = 200
    """Captions per split; at most the gallery's size."""
    gallery_size: int = 200
    """Real pictures per split that are searched; chance is k/gallery_size."""
    pool_size: int = 10_000
    """Samples per split, in shard order, that the gallery is chosen from."""
    batch_size: int = 32
    """Pictures at a time, generated or seen."""
    seed: int = 0
    """Of the generation; the same pictures come again with the same batch_size."""
    scale: tuple[int, ...] = (8, 16)
    """Sizes in pixels that the last split's real pictures are blurred to, for comparison."""
    num_examples: int = 12
    """Pictures per split that the report shows."""
    splits: tuple[str, ...] | None = None
    """Splits whose captions are generated from. None: those of train, validation and compositional that there are."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_queries <= self.gallery_size:
            raise ValueError(
                f"num_queries is {self.num_queries}; it must be 2 to gallery_size ({self.gallery_size})"
            )
        if self.batch_size < 1 or self.image_size < 1:
            raise ValueError("batch_size and image_size must be 1 or more")
