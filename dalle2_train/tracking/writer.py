"""One MLflow run per training name, continued across restarts. Every call talks to MLflow and may block or raise."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

from dalle2_train.tracking.delivered import Rewind, image_step_tag, last_image_steps, last_steps
from dalle2_train.tracking.monitor import Monitor
from dalle2_train.tracking.params import flatten
from dalle2_train.tracking.place import create_run, find_run
from dalle2_train.tracking.uri import connect, database_file

STATUS_TAG = "dalle2_train.status"
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_STATUS = {"finished": "FINISHED", "preempted": "KILLED", "killed": "KILLED"}


class RunSpec(NamedTuple):
    """What a run is called and made of."""

    tracking_uri: str
    """Absolute."""
    experiment: str
    name: str
    params: Mapping[str, Any]
    """The resolved recipe, nested."""
    tags: Mapping[str, str]
    """Of `public_tags`."""
    system_metrics: bool
    rewinds: Sequence[Rewind] = ()
    """Oldest first."""


class RunWriter:
    """Opens the run of `spec.name`, or makes it, and writes to it what it doesn't have yet."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._client: MlflowClient = connect(spec.tracking_uri)
        experiment_id = _experiment(self._client, spec)
        which = self._client, experiment_id, spec.name, spec.tags
        run = find_run(*which) or create_run(*which)
        self.run_id: str = run.info.run_id
        # A run that failed or was killed stays so for MLflow, whatever is logged to it afterwards.
        self._client.update_run(self.run_id, status="RUNNING")
        self._last_steps = last_steps(self._client, run, spec.rewinds)
        self._last_image_steps = last_image_steps(run, spec.rewinds)
        self._describe(run)
        self._monitor = self._start_monitor() if spec.system_metrics else None

    def metrics(self, metrics: Sequence[Metric]) -> None:
        """Logs what is newer than the history's last step of the same name: steps that a restart runs again are
        there. What was recorded before the last rewind comes with its times, and first."""
        fresh = [metric for metric in metrics if metric.step > self._last_steps.get(metric.key, -1)]
        for start in range(0, len(fresh), _MAX_METRICS):
            part = fresh[start : start + _MAX_METRICS]
            self._client.log_batch(self.run_id, metrics=part, synchronous=True)
            for metric in part:
                self._last_steps[metric.key] = max(metric.step, self._last_steps.get(metric.key, -1))
        if fresh and self._monitor is not None:
            self._monitor.wake()

    def image(self, name: str, step: int, image: Image.Image) -> None:
        """Adds to the series of pictures `name`, which MLflow shows over steps."""
        key = re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)
        if step <= self._last_image_steps.get(key, -1):
            return
        self._client.log_image(self.run_id, image, key=key, step=step, synchronous=True)
        self._client.set_tag(self.run_id, *image_step_tag(key, step, self._spec.rewinds))
        self._last_image_steps[key] = step

    def document(self, name: str, value: dict[str, Any]) -> None:
        """The JSON value as a file of the run."""
        self._client.log_dict(self.run_id, value, name)

    def finish(self, status: str) -> None:
        """status: finished, preempted, refused or failed."""
        self.stop_watching()
        self._client.set_tag(self.run_id, STATUS_TAG, status)
        self._client.set_terminated(self.run_id, _STATUS.get(status.lower(), "FAILED"))

    def stop_watching(self) -> None:
        """The machine, for whoever ends without a word too."""
        if self._monitor is not None:
            self._monitor.finish()

    def _describe(self, run: Run) -> None:
        """Params cannot be changed in MLflow: what a restart has changed (world_size…) becomes a tag."""
        params = flatten(self._spec.params)
        known = run.data.params
        new = [Param(name, value) for name, value in params.items() if name not in known]
        changed = [
            RunTag(f"changed.{name}", value)
            for name, value in params.items()
            if name in known and known[name] != value
        ]
        tags = [RunTag(name, value) for name, value in self._spec.tags.items()] + changed
        for start in range(0, len(new), _MAX_PARAMS):
            self._client.log_batch(self.run_id, params=new[start : start + _MAX_PARAMS], synchronous=True)
        for start in range(0, len(tags), _MAX_PARAMS):
            self._client.log_batch(self.run_id, tags=tags[start : start + _MAX_PARAMS], synchronous=True)

    def _start_monitor(self) -> Monitor:
        monitor = Monitor(self.run_id, self._spec.tracking_uri)
        monitor.start()
        return monitor


def _experiment(client: MlflowClient, spec: RunSpec) -> str:
    found = client.get_experiment_by_name(spec.experiment)
    if found is None:
        try:
            return client.create_experiment(spec.experiment, artifact_location=_artifacts(spec))
        except MlflowException:
            # Another process may have made it in between; otherwise the error is told.
            found = client.get_experiment_by_name(spec.experiment)
            if found is None:
                raise
    return found.experiment_id


def _artifacts(spec: RunSpec) -> str | None:
    """Beside the database: MLflow's default is a folder under whatever directory the process stands in."""
    file = database_file(spec.tracking_uri)
    if file is None:
        return None
    return (file.parent / "mlartifacts" / re.sub(r"[^\w\-.]", "_", spec.experiment)).as_uri()
