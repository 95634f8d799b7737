"""What every rank trains on, written down sample by sample as it is handed to a step."""

import json
import os
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dalle2_train.launch import TrainJob, worker
from dalle2_train.launch.assembly import Assembly
from dalle2_train.launch.worker import Host, run
from dalle2_train.training.finished import FitResult
from dalle2_train.training.strategy import MeshStrategy

KEYS = "DALLE2_TEST_KEYS"
History = dict[int, dict[int, int]]
"""Step (updates done before) → place in the order → what the picture there was."""


def run_recorded(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """`worker.run`, leaving keys/ATTEMPT-RANK.jsonl in `keys_folder`: a line a step, [step, [[place, sum]…]]."""
    real = Assembly.open_stream

    def open_stream(self: Assembly, order: Any, on_fault: Any) -> Any:
        return _Recorded(real(self, order, on_fault), keys_folder(job))

    Assembly.open_stream = open_stream
    try:
        return run(job, strategy, host)
    finally:
        Assembly.open_stream = real


def run_recorded_in_float64(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """`run_recorded` of a network in float64, whose losses differ by rounding only where ranks add up otherwise."""
    real = worker.assemble

    def assemble(asked: TrainJob) -> Assembly:
        found = real(asked)
        found.module.network.double()
        return found

    worker.assemble = assemble
    try:
        return run_recorded(job, strategy, host)
    finally:
        worker.assemble = real


class _Recorded:
    """A stream whose batches are written down before they are handed out."""

    def __init__(self, stream: Any, folder: Path) -> None:
        self._stream, self._folder = stream, folder

    def __iter__(self) -> Iterator[Any]:
        self._folder.mkdir(exist_ok=True, parents=True)
        # All ranks of an attempt have the same name, and names are in the attempts' order.
        attempt = [time.time_ns()]
        dist.broadcast_object_list(attempt, src=0)
        file = self._folder / f"{attempt[0]:020d}-{dist.get_rank()}.jsonl"
        step: int | None = None
        for batch, order in self._stream:
            size = len(batch.index) * dist.get_world_size()
            step = int(batch.index.min()) // size if step is None else step + 1
            sums = (zlib.crc32(picture.numpy().tobytes()) for picture in batch[1])
            line = [step, list(zip(batch.index.tolist(), sums, strict=True))]
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            yield batch, order

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keys_folder(job: TrainJob) -> Path:
    """In the run's folder, or in one of its name under that of the environment: where a run is in an object store."""
    shared = os.environ.get(KEYS)
    return Path(shared, job.name) if shared else Path(job.run_uri, "keys")


def wait_for_recorded_step(folder: Path, step: int, driver: subprocess.Popen[str]) -> None:
    """Until the newest attempt has begun it. driver: has to live until then."""
    while newest_step(folder) < step:
        assert driver.poll() is None, f"the driver ended with {driver.poll()} before step {step}"
        time.sleep(0.05)


def wait_for_next_attempt(folder: Path, attempt: Path | None, driver: subprocess.Popen[str]) -> None:
    """Until one after `attempt` has begun its first step. driver: as above."""
    while newest_attempt(folder) == attempt or newest_step(folder) < 0:
        assert driver.poll() is None, f"the driver ended with {driver.poll()}"
        time.sleep(0.1)


def newest_attempt(folder: Path) -> Path | None:
    """What its rank 0 has recorded."""
    return max(folder.glob("*-0.jsonl"), default=None)


def newest_step(folder: Path) -> int:
    """That the newest attempt has begun last; -1 where it has begun none."""
    newest = newest_attempt(folder)
    lines = newest.read_text().splitlines(keepends=True) if newest else []
    return max((json.loads(line)[0] for line in lines if line.endswith("\n")), default=-1)


def history(folder: Path) -> History:
    """What is in the final history: where an attempt begins, what an earlier one did from there on is undone."""
    attempts: dict[str, History] = {}
    for file in sorted(folder.glob("*.jsonl")):
        _read_into(attempts.setdefault(file.name.split("-")[0], {}), file)
    found: History = {}
    for attempt in attempts.values():
        found = {step: keys for step, keys in found.items() if step < min(attempt)} | attempt
    return found


def _read_into(found: History, file: Path) -> None:
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # a kill may have cut the last
            step, keys = json.loads(line)
            batch = found.setdefault(step, {})
            assert not set(batch) & {place for place, _ in keys}, "two ranks were handed one place"
            batch.update(map(tuple, keys))
