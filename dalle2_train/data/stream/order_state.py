"""Where a stream stands: what a checkpoint keeps of the order. It does not grow with what has been trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dalle2_train.errors import InputError

PerLane = dict[int, tuple[int, ...]]
"""Lane → a number for each source."""


@dataclass(frozen=True)
class OrderState:
    """Where the stream stands after `step` global batches; the lanes are those of one rank, or all."""

    step: int
    cursors: PerLane
    """Samples that a lane has taken from its part of a source, damaged ones included."""
    identity: str
    """Of the data and of the settings of its order."""
    skipped: PerLane = field(default_factory=dict)
    """Damaged ones among them."""

    @property
    def quarantined(self) -> tuple[int, ...]:
        """Damaged samples passed over so far, per source, by the lanes that are here."""
        return _sums(self.skipped)

    @property
    def delivered(self) -> tuple[int, ...]:
        """Samples handed out so far, per source, by the lanes that are here."""
        return tuple(taken - lost for taken, lost in zip(_sums(self.cursors), self.quarantined, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As JSON keeps it: lanes become texts."""
        return {
            "step": self.step,
            "cursors": {str(lane): list(numbers) for lane, numbers in self.cursors.items()},
            "identity": self.identity,
            "skipped": {str(lane): list(numbers) for lane, numbers in self.skipped.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> OrderState:
        """The inverse of `to_json`. Something else: InputError."""
        try:
            cursors, skipped = _per_lane(found["cursors"]), _per_lane(found["skipped"])
            return cls(int(found["step"]), cursors, str(found["identity"]), skipped)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not an order state ({error}); resume from another checkpoint") from error

    @staticmethod
    def merge(states: Iterable[OrderState]) -> OrderState:
        """The state of all ranks from those of each, whatever the number of ranks that goes on from it."""
        states = list(states)
        if not states or len({(state.step, state.identity) for state in states}) != 1:
            raise InputError(
                "order states of different steps or data cannot be merged; resume from another checkpoint"
            )
        cursors = {lane: numbers for state in states for lane, numbers in state.cursors.items()}
        skipped = {lane: numbers for state in states for lane, numbers in state.skipped.items()}
        return OrderState(states[0].step, cursors, states[0].identity, skipped)


def _per_lane(found: Mapping[str, Any]) -> PerLane:
    return {int(lane): tuple(int(number) for number in numbers) for lane, numbers in found.items()}


def _sums(numbers: PerLane) -> tuple[int, ...]:
    return tuple(map(sum, zip(*numbers.values(), strict=True)))
