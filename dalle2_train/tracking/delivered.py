"""How much of a run's history MLflow has, so that a start sends the rest; what a rewind gave up does not count."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

_IMAGE_STEP_TAG = "dalle2_train.image_step."


class Rewind(NamedTuple):
    """The run went back, and has recorded the later steps anew since then."""

    to: int
    """The last step before it that is of the history still."""
    when: int
    """Milliseconds since 1970: whatever is recorded later is of the history after it. Machines that the run moves
    between have to agree about the time to within the seconds that a restart takes."""


def last_steps(client: MlflowClient, run: Run, rewinds: Sequence[Rewind]) -> dict[str, int]:
    """Metric → the last step of the history that MLflow has. The point of the highest step tells it, unless that was
    given up: then all points are asked for."""
    since = max((rewind.when for rewind in rewinds), default=-1)
    return {
        point.key: int(point.step)
        if point.timestamp > since
        else _last_step(client.get_metric_history(run.info.run_id, point.key), rewinds)
        for point in run.data.to_proto().metrics
    }


def last_image_steps(run: Run, rewinds: Sequence[Rewind]) -> dict[str, int]:
    """Series of pictures → the last step of the history that MLflow has one of."""
    found = {}
    for name, value in run.data.tags.items():
        if name.startswith(_IMAGE_STEP_TAG):
            step, after, *_ = (*map(int, value.split()), 0)
            found[name.removeprefix(_IMAGE_STEP_TAG)] = min([step, *(one.to for one in rewinds[after:])])
    return found


def image_step_tag(series: str, step: int, rewinds: Sequence[Rewind]) -> tuple[str, str]:
    """(name, value) of the tag that says so: the step, and of how many rewinds it knew."""
    return _IMAGE_STEP_TAG + series, f"{step} {len(rewinds)}" if rewinds else str(step)


def _last_step(points: Iterable[Metric], rewinds: Sequence[Rewind]) -> int:
    """Points come in order: of a history that has one, all earlier ones are there, up to where it was given up."""
    return max(
        min([point.step, *(one.to for one in rewinds if point.timestamp <= one.when)]) for point in points
    )
