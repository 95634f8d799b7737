"""A run whose loss is no number any more goes back to a checkpoint, and on without the batches that led there.

To do the same steps again would only meet the same end. Which steps are left out is written down before anything else
happens, so that every later start leaves them out too.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import of_first_rank, together
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, left_out_uri
from dalle2_train.checkpoints.manifest import find_faults, read_manifest
from dalle2_train.checkpoints.retention import remove_checkpoint
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.training.config import TrainingConfig


@dataclass(frozen=True)
class LeftOut:
    """Steps (0-based: updates done before) whose batches change nothing."""

    first: int
    last: int
    reason: str
    is_done: bool = True
    """Are the checkpoints of the history that was given up removed?"""
    to: int | None = None
    """Updates of the checkpoint that the run went back to; None: an older version went."""
    when: int | None = None
    """Milliseconds since 1970, by rank 0's clock, and later than of rewinds before; None as above."""


class RewindError(RuntimeError):
    """The run has to be started again, from the checkpoint that is its newest now."""


def read_left_out(run_uri: str) -> list[LeftOut]:
    """What the run's rewinds have left out, oldest first."""
    uri = left_out_uri(run_uri)
    found: list[dict[str, Any]] = storage.read_json(uri) if storage.exists(uri) else []
    return [LeftOut(**one) for one in found]


def left_out_steps(run_uri: str) -> frozenset[int]:
    """The 0-based steps that all rewinds of the run have left out."""
    return frozenset(step for one in read_left_out(run_uri) for step in range(one.first, one.last + 1))


def rewind_or_refuse(
    run_uri: str,
    config: TrainingConfig,
    step: int,
    num_bad: int,
    check_owner: Callable[[], object] = lambda: None,
) -> NoReturn:
    """After `num_bad` non-finite updates in a row, the last of them the `step`-th; every rank calls it.

    Raises RewindError, on every rank, once the run is ready to be started again; RefusedError where it has been
    rewound often enough, or has no whole checkpoint to go back to.
    """
    first = max(0, step - num_bad - config.rewind_steps)
    told = f"the loss or gradient was not finite {num_bad} steps in a row, up to step {step}, which were left out"

    def go_back() -> int:
        check_owner()
        return _go_back(run_uri, LeftOut(first, step - 1, told, is_done=False), config.max_rewinds)

    to = of_first_rank(together(lambda: go_back() if dist.get_rank() == 0 else 0))
    raise RewindError(f"{told}; going back to step {to}, and on without steps {first + 1} to {step}")


def finish_rewind(run_uri: str) -> None:
    """Remove the checkpoints of the history that the last rewind gave up, if that was not done; rank 0 calls it."""
    left_out = read_left_out(run_uri)
    if not left_out or left_out[-1].is_done:
        return
    for later in committed_steps(run_uri):
        if later > left_out[-1].first:
            remove_checkpoint(checkpoint_uri(run_uri, later))
    _write_down(run_uri, [*left_out[:-1], replace(left_out[-1], is_done=True)])


def _go_back(run_uri: str, bad: LeftOut, max_rewinds: int) -> int:
    """To the newest whole checkpoint before `bad`, whose step is returned."""
    remedy = "lower optimizer.learning_rate, or look for broken samples with `shards check`"
    earlier = read_left_out(run_uri)
    if len(earlier) >= max_rewinds:
        raise RefusedError(f"{bad.reason}; training.max_rewinds={max_rewinds} is used up: {remedy}")
    before = [step for step in committed_steps(run_uri) if step <= bad.first]
    to = next((step for step in reversed(before) if _is_whole(checkpoint_uri(run_uri, step))), None)
    if to is None:
        raise RefusedError(f"{bad.reason}, and there is no whole checkpoint of step {bad.first} or before to go back "
                           f"to: {remedy}")  # fmt: skip
    # Whoever records the run tells by the time which of its steps' points were given up.
    when = max([int(time.time() * 1000), *(1 + one.when for one in earlier if one.when is not None)])
    _write_down(run_uri, [*earlier, replace(bad, to=to, when=when)])
    finish_rewind(run_uri)
    return to


def _is_whole(folder: str) -> bool:
    try:
        return not find_faults(folder, read_manifest(folder))
    except InputError:
        return False


def _write_down(run_uri: str, left_out: list[LeftOut]) -> None:
    storage.publish_json(left_out_uri(run_uri), [asdict(one) for one in left_out])
