"""What training is handed by its caller: it knows neither MLflow nor a sampler's insides."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor, nn

from dalle2_train.data.faults import Fault, OnFault
from dalle2_train.data.selection.selection import Ledger


class Loss(NamedTuple):
    """What a family's `compute_loss` returns."""

    loss: Tensor
    """() the mean over this rank's samples."""
    metrics: Mapping[str, Tensor] = MappingProxyType({})
    """() each; logged as their mean over ranks. The same names on every rank at every step."""


class Recorder(Protocol):
    """Where metrics and pictures go. Called on rank 0 only; whatever it raises is reported once and ignored."""

    def begin(self, completed_steps: int) -> None:
        """Called before all else: the run goes on from so many steps, and tells of later ones again."""
        ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...

    def image(self, name: str, step: int, image: Image.Image) -> None: ...

    def document(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a JSON value under a file's name."""
        ...

    def flush(self) -> None:
        """Make what was told outlive this machine: the checkpoint that is about to count may be gone on from."""
        ...

    def finish(self, status: str) -> None:
        """status: finished, preempted, refused or failed."""
        ...

    def abandon(self) -> None:
        """Tell no more, not even of the end: the run is another process's by now, which does."""
        ...


class Sampler(Protocol):
    """Draws a picture of what the network can do. Every rank calls it at the same step, in lockstep."""

    def __call__(self, network: nn.Module) -> Image.Image: ...


class Order(Protocol):
    """Where a stream stands after a batch; a rank knows its own lanes only."""

    @property
    def delivered(self) -> tuple[int, ...]:
        """Samples handed out so far, per source."""
        ...

    @property
    def quarantined(self) -> tuple[int, ...]:
        """Faulty samples passed over so far, per source."""
        ...

    @classmethod
    def merge(cls, states: list[Any]) -> Any:
        """The parts of all ranks as one."""
        ...

    def to_json(self) -> dict[str, Any]: ...


class Batches(Protocol):
    """A stream of data, which may be made ahead by threads and processes of its own."""

    @property
    def ledger(self) -> Mapping[str, Ledger]:
        """Source → where its samples went before training."""
        ...

    @property
    def known_faults(self) -> Iterable[Fault]:
        """What the ledger calls faulty."""
        ...

    @property
    def max_faulty(self) -> float:
        """Share of the samples met that may be faulty."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yields (batch, Order after this batch), without end."""
        ...

    def close(self) -> None:
        """End whatever makes batches ahead."""
        ...


class OpenStream(Protocol):
    """Opens the data where a checkpoint's order left it; None opens its beginning."""

    def __call__(self, order: Mapping[str, Any] | None, on_fault: OnFault) -> Batches:
        """on_fault: hears of each faulty sample, before the batch that would have had it."""
        ...
