"""The gradient of a rank's part of the batch, micro-batch by micro-batch."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dalle2_train.parallel.shard import set_gradient_sync
from dalle2_train.training.protocols import Loss


def accumulate_gradient(
    network: nn.Module, compute_loss: Callable[[Any], Loss], batch: Any, micro_batch_size: int | None
) -> Loss:
    """Add the gradient of the batch's mean loss to the network's, and return that loss; ranks exchange it once."""
    parts = split(batch, micro_batch_size)
    total: Tensor | None = None
    metrics: dict[str, Tensor] = {}
    for number, (part, weight) in enumerate(parts):
        if len(parts) > 1:
            set_gradient_sync(network, number == len(parts) - 1)
        loss, values = compute_loss(part)
        (loss * weight if weight != 1.0 else loss).backward()
        total = loss.detach() * weight + (0.0 if total is None else total)
        for name, value in values.items():
            metrics[name] = value.detach() * weight + metrics.get(name, 0.0)
    assert total is not None
    return Loss(total, metrics)


def split(batch: Any, micro_batch_size: int | None) -> list[tuple[Any, float]]:
    """(part, its share of the samples); a rank's part of the batch need not be a multiple of the micro-batch."""
    num_samples = len(batch[0])
    if micro_batch_size is None or micro_batch_size >= num_samples:
        return [(batch, 1.0)]
    parts = zip(*(value.split(micro_batch_size) for value in batch), strict=True)
    return [(type(batch)(*part), len(part[0]) / num_samples) for part in parts]
