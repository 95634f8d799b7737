"""What a run's folder should not hold, or should."""

from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, started_steps
from dalle2_train.checkpoints.manifest import find_faults, read_manifest
from dalle2_train.launch import TrainJob


def left_over(job: TrainJob) -> list[int]:
    """Steps whose checkpoints were begun, and neither finished nor removed."""
    return sorted(set(started_steps(job.run_uri)) - set(committed_steps(job.run_uri)))


def missing_files(job: TrainJob) -> list[str]:
    """What checkpoints that count lack."""
    folders = [checkpoint_uri(job.run_uri, step) for step in committed_steps(job.run_uri)]
    return [fault for folder in folders for fault in find_faults(folder, read_manifest(folder))]
