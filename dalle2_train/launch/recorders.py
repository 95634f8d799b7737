"""Where rank 0's metrics go: to MLflow, to Ray's Prometheus endpoint, or to both."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from dalle2_train import storage
from dalle2_train.checkpoints.layout import metrics_uri
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.config import to_dict
from dalle2_train.launch.assembly import Assembly
from dalle2_train.launch.job import TrainJob
from dalle2_train.training.protocols import Recorder
from dalle2_train.training.rewind import read_left_out


class Recorders:
    """Several as one. What one of them raises keeps nothing from the others."""

    def __init__(self, parts: Sequence[Recorder]) -> None:
        self._parts = parts

    def begin(self, completed_steps: int) -> None:
        self._each("begin", completed_steps)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._each("metrics", step, values)

    def image(self, name: str, step: int, image: Image.Image) -> None:
        self._each("image", name, step, image)

    def document(self, name: str, value: Mapping[str, Any]) -> None:
        self._each("document", name, value)

    def flush(self) -> None:
        self._each("flush")

    def finish(self, status: str) -> None:
        self._each("finish", status)

    def abandon(self) -> None:
        self._each("abandon")

    def _each(self, method: str, *arguments: Any) -> None:
        failures: list[Exception] = []
        for part in self._parts:
            try:
                getattr(part, method)(*arguments)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]


def build_recorder(assembly: Assembly, gauges: Recorder | None) -> Recorder | None:
    """Of a training whose job may name a tracking server. gauges: what Ray shows; None without Ray."""
    parts = [] if gauges is None else [gauges]
    if assembly.job.tracking is not None:
        ranks = {"world_size": str(dist.get_world_size()), "num_threads": str(torch.get_num_threads())}
        parts.append(open_mlflow(assembly.job, assembly.manifest, ranks))
    return Recorders(parts) if parts else None


def send_the_rest(job: TrainJob, manifest: ModelManifest) -> None:
    """Of a run that finished while MLflow was away: its metrics wait in the run's folder.

    manifest: of its released weights.
    """
    if job.tracking is not None and storage.exists(metrics_uri(job.run_uri)):
        recorder = open_mlflow(job, manifest, {})
        recorder.begin(manifest.step)
        recorder.finish("finished")


def open_mlflow(job: TrainJob, manifest: ModelManifest, tags: dict[str, str]) -> Recorder:
    """Where a job that names a tracking server is told of there. tags: beside those of every run."""
    # mlflow takes seconds to import and is wanted on one rank only.
    from dalle2_train.tracking.delivered import Rewind
    from dalle2_train.tracking.run import MlflowRecorder

    assert job.tracking is not None
    tags = tags | {
        "family": job.recipe.family,
        "run_uri": job.run_uri,
        "data_digest": manifest.data.digest if manifest.data else "",
    }
    params, spool = to_dict(job.recipe), metrics_uri(job.run_uri)
    # Of the rewinds of an older version nobody knows when they were.
    known = [(one.to, one.when) for one in read_left_out(job.run_uri)]
    rewinds = [Rewind(to, when) for to, when in known if to is not None and when is not None]
    return MlflowRecorder(job.tracking, job.experiment, job.name, params, tags, spool=spool, rewinds=rewinds)
