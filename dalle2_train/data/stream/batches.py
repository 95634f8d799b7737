"""What a step of training gets: one NamedTuple of tensors per model.

B batch, L text length, E embedding, H W image. `index` is the sample's global number, step * global batch + place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.data.decoded import Decoded


class ClipBatch(NamedTuple):
    """For CLIP and the direct baseline: pictures and tokenised captions."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    token_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) bool


class PriorBatch(NamedTuple):
    """For the prior: embeddings alone, those of the text among them."""

    index: Tensor  # (B,) int64
    image_embed: Tensor  # (B, E) float32
    text_embed: Tensor  # (B, E) float32
    text_encodings: Tensor  # (B, L, E) float32
    text_mask: Tensor  # (B, L) bool


class PriorTokenBatch(NamedTuple):
    """For the prior, where no text encodings are stored: the frozen CLIP makes them of the tokens."""

    index: Tensor  # (B,) int64
    image_embed: Tensor  # (B, E) float32
    token_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) bool


class DecoderBatch(NamedTuple):
    """For the decoder: pictures and embeddings, those of the text among them."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    image_embed: Tensor  # (B, E) float32
    text_embed: Tensor  # (B, E) float32
    text_encodings: Tensor  # (B, L, E) float32
    text_mask: Tensor  # (B, L) bool


class DecoderTokenBatch(NamedTuple):
    """For the decoder, where no text encodings are stored: the frozen CLIP makes them of the tokens."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    image_embed: Tensor  # (B, E) float32
    token_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) bool


class UpsamplerBatch(NamedTuple):
    """For an upsampler that makes its small pictures itself: pictures alone."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8


class DegradedBatch(NamedTuple):
    """For an upsampler: pictures, and what a degradation has left of them, h pixels a side."""

    index: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) uint8
    small_image: Tensor  # (B, 3, h, h) uint8


Batch = (
    ClipBatch
    | PriorBatch
    | PriorTokenBatch
    | DecoderBatch
    | DecoderTokenBatch
    | UpsamplerBatch
    | DegradedBatch
)
BatchType = (
    type[ClipBatch]
    | type[PriorBatch]
    | type[PriorTokenBatch]
    | type[DecoderBatch]
    | type[DecoderTokenBatch]
    | type[UpsamplerBatch]
    | type[DegradedBatch]
)


Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""B captions → (token ids (B, L) int64, mask (B, L) bool)."""


def collate(batch_type: BatchType, index: list[int], samples: list[Decoded]) -> Batch:
    """The batch of `samples`, whose fields must all be there."""
    columns: dict[str, Tensor] = {"index": torch.tensor(index, dtype=torch.int64)}
    for name in ("image", "small_image"):
        if name in batch_type._fields:
            pictures = np.stack([_there(getattr(sample, name)) for sample in samples])
            columns[name] = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)
    if "token_ids" in batch_type._fields:
        tokens = [sample.tokens for sample in samples if sample.tokens is not None]
        assert len(tokens) == len(samples), "the stream tokenises before it collates"
        columns["token_ids"] = torch.from_numpy(np.stack([ids for ids, _ in tokens]))
        columns["text_mask"] = torch.from_numpy(np.stack([mask for _, mask in tokens]))
    for name in ("image_embed", "text_embed", "text_encodings", "text_mask"):
        if name in batch_type._fields and name not in columns:
            columns[name] = torch.from_numpy(np.stack([_there(getattr(sample, name)) for sample in samples]))
    return batch_type(**columns)


def _there(array: NDArray | None) -> NDArray:
    assert array is not None, "the stream decodes what its batch type needs"
    return array
