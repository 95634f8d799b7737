"""What a step of training gets: one NamedTuple of tensors per model.

B batch, L text length, E embedding, H W image. `index` is the sample's global number, step * global batch + place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.data.decode import Picture


class ClipBatch(NamedTuple):
    """For CLIP: pictures and tokenised captions."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    token_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) bool


class PriorBatch(NamedTuple):
    """For the prior: embeddings alone."""

    index: Tensor  # (B,) int64
    image_embed: Tensor  # (B, E) float32
    text_embed: Tensor  # (B, E) float32
    text_encodings: Tensor  # (B, L, E) float32
    text_mask: Tensor  # (B, L) bool


class DecoderBatch(NamedTuple):
    """For the decoder: pictures and embeddings."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    image_embed: Tensor  # (B, E) float32
    text_embed: Tensor  # (B, E) float32
    text_encodings: Tensor  # (B, L, E) float32
    text_mask: Tensor  # (B, L) bool


class UpsamplerBatch(NamedTuple):
    """For an upsampler: pictures alone."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8


Batch = ClipBatch | PriorBatch | DecoderBatch | UpsamplerBatch
BatchType = type[ClipBatch] | type[PriorBatch] | type[DecoderBatch] | type[UpsamplerBatch]


class Decoded:
    """A sample ready for a batch; what a batch doesn't need is None. `tokens` is filled when first wanted."""

    __slots__ = (
        "caption",
        "image",
        "image_embed",
        "key",
        "text_embed",
        "text_encodings",
        "text_mask",
        "tokens",
    )

    def __init__(self, key: str, caption: str, image: Picture | None) -> None:
        self.key = key
        self.caption = caption
        self.image = image
        self.image_embed: NDArray[np.float32] | None = None
        self.text_embed: NDArray[np.float32] | None = None
        self.text_encodings: NDArray[np.float16] | NDArray[np.float32] | None = None
        self.text_mask: NDArray[np.bool_] | None = None
        self.tokens: tuple[Tensor, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, for the cache's bound."""
        arrays = (self.image, self.image_embed, self.text_embed, self.text_encodings, self.text_mask)
        return sum(array.nbytes for array in arrays if array is not None)


def collate(batch_type: BatchType, index: list[int], samples: list[Decoded]) -> Batch:
    """The batch of `samples`, whose fields must all be there."""
    columns: dict[str, Tensor] = {"index": torch.tensor(index, dtype=torch.int64)}
    if "image" in batch_type._fields:
        pictures = np.stack([_there(sample.image) for sample in samples])
        columns["image"] = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)
    if "token_ids" in batch_type._fields:
        tokens = [sample.tokens for sample in samples if sample.tokens is not None]
        assert len(tokens) == len(samples), "the stream tokenises before it collates"
        columns["token_ids"] = torch.stack([ids for ids, _ in tokens])
        columns["text_mask"] = torch.stack([mask for _, mask in tokens])
    if "image_embed" in batch_type._fields:
        for name in ("image_embed", "text_embed", "text_encodings"):
            stacked = np.stack([_there(getattr(sample, name)) for sample in samples])
            columns[name] = torch.from_numpy(stacked.astype(np.float32, copy=False))
        columns["text_mask"] = torch.from_numpy(np.stack([_there(sample.text_mask) for sample in samples]))
    return batch_type(**columns)


def _there(array: NDArray | None) -> NDArray:
    assert array is not None, "the stream decodes what its batch type needs"
    return array
