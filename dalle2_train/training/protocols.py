"""What training is handed by its caller: it knows neither MLflow nor a sampler's insides."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor, nn


class Loss(NamedTuple):
    """What a family's `compute_loss` returns."""

    loss: Tensor
    """() the mean over this rank's samples."""
    metrics: Mapping[str, Tensor] = MappingProxyType({})
    """() each; logged as their mean over ranks. The same names on every rank at every step."""


class Recorder(Protocol):
    """Where metrics and pictures go. Called on rank 0 only; whatever it raises is reported once and ignored."""

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def image(self, name: str, step: int, image: Image.Image) -> None: ...

    def finish(self, status: str) -> None:
        """status: finished, preempted, refused or failed."""
        ...


class Sampler(Protocol):
    """Draws a picture of what the network can do. Every rank calls it at the same step, in lockstep."""

    def __call__(self, network: nn.Module) -> Image.Image: ...


class Order(Protocol):
    """Where a stream stands after a batch; a rank knows its own lanes only."""

    @classmethod
    def merge(cls, states: list[Any]) -> Any:
        """The parts of all ranks as one."""
        ...

    def to_json(self) -> dict[str, Any]: ...


class Batches(Protocol):
    """A stream of data, which may be made ahead by threads and processes of its own."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yields (batch, Order after this batch), without end."""
        ...

    def close(self) -> None:
        """End whatever makes batches ahead."""
        ...


class OpenStream(Protocol):
    """Opens the data where a checkpoint's order left it; None opens its beginning."""

    def __call__(self, order: Mapping[str, Any] | None) -> Batches: ...
