"""Checkpoints written beside the training, which waits no longer than its tensors take to be copied."""

import threading
from typing import cast

import torch.distributed as dist
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from dalle2_train.checkpoints.retention import Keep
from dalle2_train.checkpoints.save import Guard, Snapshot, save


class Saver:
    """Writes one checkpoint of a run at a time. Every rank has one, and calls it at the same steps as the others."""

    def __init__(self, run_uri: str, keep: Keep, guard: Guard = Guard()) -> None:  # noqa: B008 - it is frozen
        """guard: as in `save`, called in another thread than the training's."""
        self._run_uri, self._keep, self._guard = run_uri, keep, guard
        # On the training's group its exchanges and ours would meet each other's, and wait for ever.
        self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        self._stager = BlockingAsyncStager()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """What ended the last save, if something did; `wait` raises it."""
        return self._failure

    def begin(self, snapshot: Snapshot) -> None:
        """Copy the snapshot's tensors and write them from here on, once the save before is done. Raises what that one
        did."""
        self.wait()
        mine = snapshot._replace(state=self._stager.stage(snapshot.state))
        # A daemon: a process that is told to end at once leaves an unfinished checkpoint, which counts for nothing.
        self._thread = threading.Thread(target=self._save, args=(mine,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written. Raises what the last save did."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def settle(self, seconds: float | None = None) -> None:
        """Wait for what is being written, so long at most, and raise nothing: for a training that ends otherwise."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _save(self, snapshot: Snapshot) -> None:
        try:
            save(self._run_uri, snapshot, self._keep, self._guard, self._group)
        except Exception as error:
            self._failure = error
