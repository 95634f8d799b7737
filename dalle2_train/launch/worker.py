"""One rank's share of a training, the same in this process and on a Ray worker."""

from dataclasses import dataclass

import torch.distributed as dist

from dalle2_train.checkpoints.exchange import together
from dalle2_train.checkpoints.lease import check_held
from dalle2_train.launch.assembly import assemble
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.recorders import build_recorder
from dalle2_train.parallel.threads import cores_for_this_thread
from dalle2_train.training.finished import FitResult
from dalle2_train.training.fit import Setup, fit
from dalle2_train.training.protocols import Recorder
from dalle2_train.training.stopping import IsDrained
from dalle2_train.training.strategy import MeshStrategy


@dataclass(frozen=True)
class Host:
    """What whoever started a rank gives it."""

    holder: str = ""
    """Id of the run's lease; "": it has none."""
    asked: float | None = None
    """When the training was asked for, in seconds since 1970; None: when its ranks are there."""
    is_drained: IsDrained = lambda: False
    """Is the rank's machine about to go?"""
    gauges: Recorder | None = None
    """What is shown of the training while it goes; rank 0's."""


def run(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """Build what the recipe says and train it to the end; every rank of the process group calls it."""
    with cores_for_this_thread(job.recipe.training.num_threads):
        assembly = assemble(job)
        is_first = dist.get_rank() == 0
        recorder = together(lambda: build_recorder(assembly, host.gauges) if is_first else None)
        setup = Setup(
            assembly.open_stream,
            job.run_uri,
            assembly.manifest,
            strategy,
            recorder=recorder,
            sampler=assembly.sampler,
            asked=host.asked,
            is_drained=host.is_drained,
            check_owner=lambda: check_held(job.run_uri, host.holder) if host.holder else None,
        )
        return fit(assembly.module, setup)
