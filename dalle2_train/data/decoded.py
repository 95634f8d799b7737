"""A sample ready for a batch. Loader workers make them: nothing here may import torch, whose start costs seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.pictures.picture import Picture


class Decoded:
    """A sample ready for a batch; what a batch doesn't need is None. `tokens` is filled when first wanted."""

    __slots__ = (
        "caption",
        "image",
        "image_embed",
        "key",
        "small_image",
        "text_embed",
        "text_encodings",
        "text_mask",
        "tokens",
    )

    def __init__(self, key: str, caption: str, image: Picture | None) -> None:
        self.key = key
        self.caption = caption
        self.image = image
        self.small_image: Picture | None = None
        self.image_embed: NDArray[np.float32] | None = None
        self.text_embed: NDArray[np.float32] | None = None
        self.text_encodings: NDArray[np.float16] | NDArray[np.float32] | None = None
        self.text_mask: NDArray[np.bool_] | None = None
        self.tokens: tuple[NDArray[np.int64], NDArray[np.bool_]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, for the cache's bound."""
        arrays = (
            self.image,
            self.small_image,
            self.image_embed,
            self.text_embed,
            self.text_encodings,
            self.text_mask,
        )
        return sum(array.nbytes for array in arrays if array is not None)
