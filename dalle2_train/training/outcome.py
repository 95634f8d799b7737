"""What is known of a step when it is done, the same on every rank."""

from typing import NamedTuple

from dalle2_train.parallel.agreement import DataNews


class StepOutcome(NamedTuple):
    """What all ranks agree on after a step."""

    step: int
    """Updates done, this one included."""
    loss: float
    """The mean over the global batch; NaN where any rank's was not finite."""
    gradient_norm: float
    learning_rate: float
    skipped: bool
    """The weights stayed as they were: the loss or the gradient was not finite, or the batch is left out."""
    left_out: bool
    """The run was rewound, and goes on without this batch."""
    stop: bool
    """Some rank was asked to stop."""
    data: DataNews
    """Of all ranks, up to this step."""
    data_seconds: tuple[float, ...]
    """What each rank waited for the batch."""
    probe_seconds: tuple[float, ...]
    """What each rank needs for the same small work; zeros at steps that are not logged."""
    metrics: dict[str, float]
