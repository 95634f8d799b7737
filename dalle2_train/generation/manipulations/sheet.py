"""What a manipulation gives: pictures in rows and columns with their names.

N columns, H W a picture's size.
"""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from dalle2_train.generation.grid import compare


@dataclass(frozen=True)
class Sheet:
    """A labelled grid, and what was measured on the way."""

    rows: dict[str, Tensor]
    """Name → uint8 (N, 3, H, W)."""
    columns: list[str]
    """N names."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For a program to read: what was done, and how well."""

    def image(self) -> Image.Image:
        """The grid, with the columns' names under the last row."""
        return compare(self.rows, self.columns, columns=len(self.columns))
