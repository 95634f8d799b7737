"""A run that has nothing left to do: its result, and that whoever looks at it is told so."""

from dataclasses import dataclass

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, model_uri, progress_uri
from dalle2_train.checkpoints.manifest import has_manifest, read_manifest
from dalle2_train.training.protocols import Recorder
from dalle2_train.training.records import Progress, report_once


@dataclass(frozen=True)
class FitResult:
    """How a run ended."""

    run: str
    step: int
    loss: float | None
    """Of the last step; None where it is not known any more."""
    resumed_from: int
    """Updates that an earlier attempt had done."""
    model: str
    """The folder of the released weights."""
    checkpoint: str | None


def finished(run_uri: str, num_steps: int) -> FitResult | None:
    """The result of a run that has nothing left to do, or None."""
    released = model_uri(run_uri)
    if not has_manifest(released):
        return None
    step = read_manifest(released).step
    if step < num_steps:
        return None
    loss = None
    if storage.exists(progress_uri(run_uri)):
        loss = storage.read_json(progress_uri(run_uri)).get("loss")
    steps = committed_steps(run_uri)
    return FitResult(
        run_uri, step, loss, step, released, checkpoint_uri(run_uri, steps[-1]) if steps else None
    )


def tell_finished(done: FitResult, num_steps: int, recorder: Recorder | None = None) -> None:
    """Say so where a process that ended between the release and its last words could not. What fails is told."""
    uri = progress_uri(done.run)
    try:
        if not storage.exists(uri) or storage.read_json(uri).get("status") != "finished":
            Progress(done.run, num_steps, storage.publish_json).write("finished", done.step, done.loss)
        if recorder is not None:
            recorder.begin(done.step)
            recorder.finish("finished")
    except Exception as error:
        report_once(set(), "telling that the run is finished", error)
