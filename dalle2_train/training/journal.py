"""What rank 0 tells of a run while it goes: how far it is, where its time went, metrics. None stops a step."""

from collections.abc import Callable, Mapping
from typing import Any

from dalle2_train.checkpoints.attempt import TakenOverError
from dalle2_train.training.goodput import Goodput
from dalle2_train.training.protocols import Recorder
from dalle2_train.training.publisher import Publisher
from dalle2_train.training.records import Progress, report_once
from dalle2_train.training.stopwatch import Lap

_LAST_WORDS_SECONDS = 60.0


class Journal:
    """progress.json, goodput.json and the recorder of one attempt."""

    def __init__(
        self,
        run_uri: str,
        num_steps: int,
        goodput: Goodput,
        recorder: Recorder | None,
        check_owner: Callable[[], object] = lambda: None,
    ) -> None:
        """check_owner: raises TakenOverError where the run is another process's by now."""
        self._check_owner = check_owner
        self.run_uri, self.goodput, self.recorder = run_uri, goodput, recorder
        self._publisher = Publisher()
        self.progress = Progress(run_uri, num_steps, self._publisher.put)
        self._complained: set[str] = set()
        self._tell("recording", lambda recorder: recorder.begin(goodput.resumed_from))

    def step(self, step: int, loss: float) -> None:
        """A step is done, whose time `goodput` has been told."""
        if self.progress.update(step, loss):
            self._publisher.put(self.goodput.uri, self.goodput.to_json())

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """To the recorder, if there is one."""
        self._tell("recording metrics", lambda recorder: recorder.metrics(step, values))

    def document(self, name: str, value: Mapping[str, Any]) -> None:
        """A JSON document to the recorder, if there is one."""
        self._tell("recording documents", lambda recorder: recorder.document(name, value))

    def image(self, name: str, step: int, image: Any) -> None:
        """A picture to the recorder, if there is one."""
        self._tell("recording pictures", lambda recorder: recorder.image(name, step, image))

    def flush(self) -> None:
        """Before a checkpoint counts."""
        self._tell("keeping the record", lambda recorder: recorder.flush())

    def finish(self, status: str, step: int, loss: float | None, since: Lap) -> None:
        """Say how it ended, where that can still be said, and is this process's to say. since: what went after the last
        step."""
        if not self.is_ours():
            self._publisher.abandon()
            self._tell("leaving the record", lambda recorder: recorder.abandon())
            return
        if status in ("finished", "preempted"):
            self.goodput.end(since.pictures)
        self.progress.write(status, step, loss)
        self._publisher.put(self.goodput.uri, self.goodput.to_json())
        self._publisher.close(_LAST_WORDS_SECONDS)
        self._tell("finishing the record", lambda recorder: recorder.finish(status))

    def is_ours(self) -> bool:
        """False where another has taken the run over, whose records these would replace."""
        try:
            self._check_owner()
        except TakenOverError:
            return False
        except Exception:  # who cannot be asked has taken nothing
            return True
        return True

    def _tell(self, what: str, tell: Callable[[Recorder], object]) -> None:
        try:
            if self.recorder is not None:
                tell(self.recorder)
        except Exception as error:
            report_once(self._complained, what, error)
