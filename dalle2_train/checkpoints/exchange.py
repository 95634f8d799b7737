"""Small Python values between ranks; a process without a group is its own and only rank."""

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn, TypeVar, cast

import torch.distributed as dist

from dalle2_train.errors import InputError, RefusedError

T = TypeVar("T")


def gather(mine: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's value, by rank; every rank calls it."""
    if world_size() == 1:
        return [mine]
    parts = [mine] * world_size()
    dist.all_gather_object(parts, mine, group=group)
    return parts


def separate_group(patience_seconds: float) -> dist.ProcessGroup | None:
    """The ranks once more, for exchanges beside those of the training; one that waits longer raises RuntimeError. Every
    rank calls it. None without a group."""
    if world_size() == 1:
        return None
    patience = timedelta(seconds=patience_seconds)
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=patience))


def of_first_rank(mine: T) -> T:
    """Rank 0's value; every rank calls it."""
    packed = [mine]
    if world_size() > 1:
        dist.broadcast_object_list(packed, src=0)
    return packed[0]


def together(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """The result of `work`, which every rank does. Where it fails on one, all raise: none waits for a rank that is
    gone."""
    try:
        result, error = work(), None
    except Exception as raised:
        result, error = None, raised
    heard = [told for told in gather(_told(error), group) if told is not None]
    if heard:
        _raise(error, heard)
    return result  # pyright: ignore[reportReturnType] - None only where it failed


def raise_together(error: Exception | None) -> NoReturn:
    """Every rank calls it, with what failed there, if something did: all raise, and errors by design as such."""
    _raise(error, [told for told in gather(_told(error)) if told is not None])


def _raise(error: Exception | None, heard: list[tuple[type[Exception], str]]) -> NoReturn:
    # An error by design of whichever rank is everybody's: that of another kind would be taken for an accident.
    kind, message = next((told for told in heard if told[0] is not RuntimeError), heard[0])
    if error is not None and (kind is RuntimeError or isinstance(error, kind)):
        raise error
    raise kind(message)


def _told(error: Exception | None) -> tuple[type[Exception], str] | None:
    """`error` as another rank may raise it; what is no error by design may not survive the way there."""
    if error is None:
        return None
    for kind in (RefusedError, InputError):
        if isinstance(error, kind):
            return kind, str(error)
    return RuntimeError, f"on rank {rank()}: {type(error).__name__}: {error}"


def rank() -> int:
    """0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1
