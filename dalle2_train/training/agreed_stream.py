"""A rank without a batch would leave the others waiting for it: whatever fails one rank's data ends all at one step."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from dalle2_train.checkpoints.exchange import together
from dalle2_train.parallel.agreement import DataNews
from dalle2_train.training.protocols import Order
from dalle2_train.training.stopwatch import Stopwatch


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
        return DataNews(sum(self.order.delivered) + num_faulty, num_faulty)


class AgreedStream:
    """Iterates the deliveries of `stream`, (batch, order) each. All ranks fail together at the first one."""

    def __init__(self, stream: Iterable[tuple[Any, Order]], stopwatch: Stopwatch) -> None:
        self.stream, self._stopwatch = stream, stopwatch

    def __iter__(self) -> Iterator[Delivery]:
        batches = iter(self.stream)
        with self._stopwatch.doing("data"):
            last = together(lambda: Delivery(*next(batches)))
        while True:
            yield last
            try:
                with self._stopwatch.doing("data"):
                    last = Delivery(*next(batches))
            except Exception as error:
                yield last._replace(error=error)
                return
