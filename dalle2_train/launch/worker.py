"""One rank's share of a training, the same in this process and on a Ray worker."""

import torch
import torch.distributed as dist

from dalle2_train.config import to_dict
from dalle2_train.launch.assembly import Assembly, assemble
from dalle2_train.launch.job import TrainJob
from dalle2_train.parallel.threads import cores_for_this_thread
from dalle2_train.training.fit import FitResult, fit
from dalle2_train.training.protocols import Recorder
from dalle2_train.training.strategy import MeshStrategy


def run(job: TrainJob, strategy: MeshStrategy) -> FitResult:
    """Build what the recipe says and train it to the end; every rank of the process group calls it."""
    with cores_for_this_thread(job.recipe.training.num_threads):
        assembly = assemble(job)
        return fit(
            assembly.module,
            assembly.open_stream,
            run_uri=job.run_uri,
            manifest_base=assembly.manifest,
            strategy=strategy,
            recorder=_recorder(assembly) if dist.get_rank() == 0 else None,
            sampler=assembly.sampler,
        )


def _recorder(assembly: Assembly) -> Recorder | None:
    job = assembly.job
    if job.tracking is None:
        return None
    # mlflow takes seconds to import and is wanted on one rank only.
    from dalle2_train.tracking.run import MlflowRecorder

    data = assembly.manifest.data
    tags = {
        "family": job.recipe.family,
        "run_uri": job.run_uri,
        "data_digest": data.digest if data else "",
        "world_size": str(dist.get_world_size()),
        "num_threads": str(torch.get_num_threads()),
    }
    return MlflowRecorder(job.tracking, job.experiment, job.name, to_dict(job.recipe), tags)
