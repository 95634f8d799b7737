"""A workflow is a folder in which stages leave typed results; a stage that has left one is not run again."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dalle2_train import storage
from dalle2_train.config import build, to_dict
from dalle2_train.workflow.memory import PeakMemory
from dalle2_train.workflow.progress import Line, Tell, watch_run
from dalle2_train.workflow.questions import is_same, to_plain

R = TypeVar("R")


@dataclass(frozen=True)
class StageRecord:
    """STAGES/NAME.json: written when a stage ends, and with `result` None while it was interrupted."""

    name: str
    question: dict[str, Any]
    """What the stage was asked; another question makes its result stale."""
    seconds: float
    """Wall time over all attempts but those that were killed outright."""
    workers: int
    peak_memory_gb: float
    result: dict[str, Any] | None


class Workflow:
    """Runs stages in `folder`, one after another; each leaves `folder`/stages/NAME.json."""

    def __init__(self, folder: str) -> None:
        self.folder = storage.absolute(folder)
        storage.check_writable(self.folder)
        self.records: dict[str, StageRecord] = {}

    def stage(
        self,
        name: str,
        result: type[R],
        work: Callable[[Tell], R],
        *,
        question: Mapping[str, Any],
        workers: int = 0,
        run_uri: str | None = None,
    ) -> R:
        """The result of `work`, from now or from an earlier time when it was asked the same `question`.

        `question`: plain values, and configs as they are, so that a setting with a default that comes later is no other
        question. `run_uri`: the training run that the stage follows, for its line of progress.
        A question that changed makes this stage run again; `work` itself decides what it can keep.
        """
        earlier = self._earlier(name, question)
        if earlier is not None and earlier.result is not None:
            self.records[name] = earlier
            Line(name).skip(earlier.seconds)
            return build(result, earlier.result, f"{name}'s result")
        seconds_before = earlier.seconds if earlier else 0.0
        started = _now()
        finished: R | None = None
        line = Line(name)
        memory = PeakMemory()
        try:
            with memory, line.following(watch_run(run_uri) if run_uri else None):
                finished = work(line.tell)
        finally:
            seconds = seconds_before + _now() - started
            plain = None if finished is None else to_dict(finished)
            record = StageRecord(name, to_plain(question), seconds, workers, memory.gigabytes, plain)
            storage.publish_json(self._uri(name), to_dict(record))
            self.records[name] = record
            line.end(seconds, done=finished is not None)
        assert finished is not None
        return finished

    @property
    def peak_memory_gb(self) -> float:
        """The largest of the stages', in 10⁹ bytes."""
        return max((record.peak_memory_gb for record in self.records.values()), default=0.0)

    def _uri(self, name: str) -> str:
        return storage.join(self.folder, "stages", f"{name}.json")

    def _earlier(self, name: str, question: Mapping[str, Any]) -> StageRecord | None:
        if not storage.exists(self._uri(name)):
            return None
        record = build(StageRecord, storage.read_json(self._uri(name)), f"{name}.json")
        return record if is_same(question, record.question) else None


def _now() -> float:
    return time.monotonic()
