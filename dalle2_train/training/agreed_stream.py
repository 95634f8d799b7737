"""A rank without a batch would leave the others waiting for it: whatever fails one rank's data ends all at one step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch.distributed as dist

from dalle2_train.errors import InputError, RefusedError
from dalle2_train.parallel.agreement import DataNews
from dalle2_train.training.protocols import Order

T = TypeVar("T")


class Delivery(NamedTuple):
    """What a step gets."""

    values: Any
    """The family's batch, a NamedTuple of tensors."""
    order: Order
    """Where this rank's stream stands after it."""
    error: Exception | None = None
    """There was no batch: these are the last step's values once more, so that the rank can tell all others."""

    def news(self) -> DataNews:
        """What this rank tells all others at the step."""
        num_faulty = sum(self.order.quarantined)
        return DataNews(sum(self.order.delivered) + num_faulty, num_faulty, self.error is not None)


class AgreedStream:
    """Iterates the deliveries of `stream`, (batch, order) each. All ranks fail together at the first one."""

    def __init__(self, stream: Iterable[tuple[Any, Order]]) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Delivery]:
        batches = iter(self.stream)
        last = together(lambda: Delivery(*next(batches)))
        while True:
            yield last
            try:
                last = Delivery(*next(batches))
            except Exception as error:
                yield last._replace(error=error)
                return


def together(work: Callable[[], T]) -> T:
    """The result of `work`, which every rank does; where one fails, all raise."""
    try:
        result, error = work(), None
    except Exception as raised:
        result, error = None, raised
    failed: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(failed, error is not None)
    if any(failed):
        raise_together(error)
    return result  # pyright: ignore[reportReturnType] - None only where it failed


def raise_together(error: Exception | None) -> NoReturn:
    """Every rank calls it, with what failed there: it raises that, and on the others what failed the first of them."""
    heard: list[tuple[type[Exception], str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(heard, _told(error))
    if error is not None:
        raise error
    kind, message = next(told for told in heard if told is not None)
    raise kind(message)


def _told(error: Exception | None) -> tuple[type[Exception], str] | None:
    """`error` as another rank may raise it; what is no error by design may not survive the way there."""
    for kind in (RefusedError, InputError):
        if isinstance(error, kind):
            return kind, str(error)
    return (
        None
        if error is None
        else (RuntimeError, f"on rank {dist.get_rank()}: {type(error).__name__}: {error}")
    )
