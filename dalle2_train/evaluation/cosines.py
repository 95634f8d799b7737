"""How near the prior's image embeddings come to those of the real pictures, and to the captions'.

Legend: B captions, E embedding, H W picture size in pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.evaluation.report import PriorCosines
from dalle2_train.generation.text_to_image import Generated


def joined(batches: Sequence[Generated]) -> Generated:
    """Batches as one, on the CPU; embeddings as float32."""
    images = torch.cat([batch.image.cpu() for batch in batches])
    return Generated(
        images, _joined([b.image_embed for b in batches]), _joined([b.text_embed for b in batches])
    )


def prior_cosines(
    predicted: NDArray[np.floating], real: NDArray[np.floating], text: NDArray[np.floating]
) -> PriorCosines:
    """Of image embeddings, those of the captions' real pictures and those of the captions, each (B, E), B ≥ 2."""
    predicted, real, text = _unit(predicted), _unit(real), _unit(text)
    image, caption = (predicted * real).sum(1), (predicted * text).sum(1)  # (B,)
    count = len(real)
    # The mean over all pairs of two different pictures, from the sum of all vectors.
    floor = (np.square(real.sum(0)).sum() - count) / (count * (count - 1))
    return PriorCosines(
        image=float(image.mean()),
        text=float(caption.mean()),
        floor=float(floor),
        real_text=float((real * text).sum(1).mean()),
        image_error=float(image.std(ddof=1) / count**0.5),
        text_error=float(caption.std(ddof=1) / count**0.5),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part.float().cpu() for part in parts if part is not None]
    return torch.cat(there) if there else None


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
