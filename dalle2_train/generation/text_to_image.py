"""Captions → pictures: all that an evaluation or a grid needs to know of a model, whatever it is made of.

Legend: B prompts, E embedding, H W picture size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from dalle2_train.encoders.encoder import ClipEncoder

Progress = Callable[[int, int], None]
"""Called as progress(done, total) while pictures are drawn."""


class Generated(NamedTuple):
    """What a model made of a batch of captions."""

    image: Tensor
    """(B, 3, H, W) uint8."""
    image_embed: Tensor | None = None
    """(B, E) that the prior predicted, in CLIP's own scale; None where no prior was asked."""
    text_embed: Tensor | None = None
    """(B, E) CLIP's, of the captions; there where `image_embed` is."""


class TextToImage(Protocol):
    """A model with its settings."""

    @property
    def clip(self) -> "ClipEncoder":
        """The CLIP it was trained with."""
        ...

    @property
    def image_size(self) -> int:
        """Pixels a side of its pictures."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it samples, for a report."""
        ...

    def draw(self, prompts: Sequence[str], seed: int = 0, *, progress: Progress | None = None) -> Generated:
        """One picture per prompt. No prompts: InputError."""
        ...
