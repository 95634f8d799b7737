"""CLIP's contrastive loss over the global batch (Radford et al. 2021, figure 3), however many ranks share it.

Every rank compares its own samples with everybody's, and takes the mean over its own. The mean of the ranks' losses is
then the loss of a single process, and so is the mean of their gradients, since gathered embeddings hand their gradients
back to the rank they came from.
Legend: B samples of a rank, N of all ranks, E embedding.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class ContrastiveLoss(NamedTuple):
    """Means over this rank's samples."""

    loss: Tensor
    """() cross-entropy, averaged over both directions; ln N for embeddings that know nothing."""
    accuracy: Tensor
    """() share of pictures whose own caption is the nearest of all N."""


def contrastive_loss(image_embed: Tensor, text_embed: Tensor, scale: Tensor) -> ContrastiveLoss:
    """Unit embeddings (B, E) and the inverse temperature (1,) → this rank's loss. Every rank has the same B."""
    with torch.autocast(image_embed.device.type, enabled=False):  # logits of up to 100 need fp32's digits
        image, text = (
            value.to(torch.promote_types(value.dtype, torch.float32)) for value in (image_embed, text_embed)
        )
        per_image = scale.to(image) * image @ gather(text).T  # (B, N)
        per_text = scale.to(image) * text @ gather(image).T  # (B, N)
        own = _rank() * len(image) + torch.arange(len(image), device=image.device)  # (B,)
        loss = (F.cross_entropy(per_image, own) + F.cross_entropy(per_text, own)) / 2
    return ContrastiveLoss(loss, (per_image.argmax(dim=1) == own).to(loss.dtype).mean())


def gather(value: Tensor) -> Tensor:
    """(B, E) → (N, E), rank after rank; its gradient is the sum of what all ranks' losses ask of (B, E)."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    return _Gather.apply(value)  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gathered = [torch.empty_like(value) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, value.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        # All-reduce and cut: every backend has it, and (N, E) is small beside the towers' gradients.
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[_rank()]


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
