"""Goodput: the share of a run's wall time that went into steps which are in its history, over all attempts.

The rest is accounted for: steps done again after a restart, waiting for data and for checkpoints, drawing pictures, and
the time in which there was no training at all, between attempts and before their first steps. It begins when the
training is asked for (by the clock of that machine), and ends when its last checkpoint is written and its weights are
released.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dalle2_train import storage
from dalle2_train.checkpoints.layout import goodput_uri
from dalle2_train.training.stopwatch import Lap


@dataclass
class Attempt:
    """One start of a run, up to when it was last seen. Times are seconds since 1970, spans seconds."""

    began: float
    resumed_from: int
    world_size: int
    seen: float
    step: int
    useful: float = 0.0
    data: float = 0.0
    checkpoint: float = 0.0
    pictures: float = 0.0
    marks: list[tuple[int, float]] = field(default_factory=list)
    """(step of a checkpoint, useful seconds up to it)."""

    def useful_after(self, step: int) -> float:
        """Seconds of its steps after `step`: exact where that has a checkpoint, else as if all steps took as long."""
        points = [(self.resumed_from, 0.0), *self.marks, (self.step, self.useful)]
        steps, seconds = zip(*points, strict=True)
        return self.useful - float(np.interp(step, steps, seconds))


@dataclass(frozen=True)
class Account:
    """Where the wall time went, in seconds."""

    wall: float
    useful: float
    """In steps of the history."""
    repeated: float
    """In steps that were done again."""
    data: float
    checkpoint: float
    pictures: float
    attempts: int

    @property
    def down(self) -> float:
        """Starting, restarting, and between attempts."""
        return self.wall - self.useful - self.repeated - self.data - self.checkpoint - self.pictures

    @property
    def goodput(self) -> float:
        """`useful` by `wall`: 0 to 1."""
        return self.useful / self.wall if self.wall > 0 else 0.0


def account(attempts: Sequence[Attempt]) -> Account:
    """What all attempts of a run come to."""
    repeated = 0.0
    for number, attempt in enumerate(attempts):
        later = [other.resumed_from for other in attempts[number + 1 :]]
        if later:
            repeated += attempt.useful_after(min(later))
    return Account(
        wall=attempts[-1].seen - attempts[0].began if attempts else 0.0,
        useful=sum(a.useful for a in attempts) - repeated,
        repeated=repeated,
        data=sum(a.data for a in attempts),
        checkpoint=sum(a.checkpoint for a in attempts),
        pictures=sum(a.pictures for a in attempts),
        attempts=len(attempts),
    )


def read_attempts(run_uri: str) -> list[Attempt]:
    """Those that the run has recorded, oldest first; none where there is no record."""
    uri = goodput_uri(run_uri)
    if not storage.exists(uri):
        return []
    found: Sequence[Mapping[str, Any]] = storage.read_json(uri)["each"]
    return [Attempt(**{**one, "marks": [tuple(mark) for mark in one["marks"]]}) for one in found]


class Goodput:
    """Keeps a run's attempts, this one among them; rank 0 has it."""

    def __init__(
        self,
        run_uri: str,
        resumed_from: int,
        world_size: int,
        asked: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """asked: when the training was, in seconds since 1970. Of a run's later attempts it does not matter: they
        follow those before without a gap."""
        self.uri, self._clock = goodput_uri(run_uri), clock
        before, now = read_attempts(run_uri), clock()
        began = now if asked is None or before else min(asked, now)
        self._now = Attempt(began, resumed_from, world_size, now, resumed_from)
        self._attempts = [*before, self._now]
        self.last_stall = 0.0
        """Seconds that the last checkpoint kept the training waiting."""

    def add(self, step: int, lap: Lap) -> None:
        """A step that is done."""
        now = self._now
        now.step, now.seen = step, self._clock()
        now.useful += lap.useful
        now.data += lap.data
        now.checkpoint += lap.checkpoint
        self.last_stall = lap.checkpoint or self.last_stall
        now.pictures += lap.pictures

    def end(self, pictures: float) -> None:
        """The training has. What went since its last step, but for the seconds of its pictures, was waiting for the
        last checkpoint, and for the weights to be released."""
        now = self._now
        since, now.seen = now.seen, self._clock()
        now.pictures += pictures
        now.checkpoint += max(0.0, now.seen - since - pictures)

    def mark(self, step: int) -> None:
        """A checkpoint of this step may be gone on from."""
        self._now.marks.append((step, self._now.useful))

    @property
    def resumed_from(self) -> int:
        """Updates that earlier attempts had done."""
        return self._now.resumed_from

    @property
    def account(self) -> Account:
        """Of all attempts, up to the last step that was told, or the end."""
        return account(self._attempts)

    def to_json(self) -> dict[str, Any]:
        """What `read_attempts` reads, and the account in numbers for whoever looks into the file."""
        told = self.account
        sums = {name: round(value, 3) for name, value in asdict(told).items()}
        return {
            "goodput": round(told.goodput, 4),
            **sums,
            "down": round(told.down, 3),
            "each": [asdict(attempt) for attempt in self._attempts],
        }
