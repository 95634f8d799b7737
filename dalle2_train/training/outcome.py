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
    """The loss or the gradient was not finite, so the weights stayed as they were."""
    stop: bool
    """Some rank was asked to stop."""
    data: DataNews
    """Of all ranks, up to this step."""
    metrics: dict[str, float]
