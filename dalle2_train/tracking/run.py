"""The recorder that training is handed: no call waits for MLflow, and no failure of MLflow reaches training."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from dalle2_train.redaction import redact
from dalle2_train.tracking.delivered import Rewind
from dalle2_train.tracking.place import public_tags
from dalle2_train.tracking.spool import Spool
from dalle2_train.tracking.uri import absolute_tracking_uri
from dalle2_train.tracking.writer import RunSpec, RunWriter

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_INTERVAL_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 60.0
_LINES_AT_ONCE = 500
_MAX_IMAGES = 256
_MAX_DOCUMENTS = 32
_LAST_ATTEMPTS = 3


class _Picture(NamedTuple):
    name: str
    step: int
    image: Image.Image


class _Document(NamedTuple):
    name: str
    value: dict[str, Any]


class MlflowRecorder:
    """Metrics, pictures and documents of one training, in one MLflow run per name across restarts.

    Metrics are kept in a file, pictures and documents in bounded queues (the oldest goes first when MLflow is away for
    long), and sent by one background thread. A failure is logged once, then the thread tries again, ever more seldom.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        *,
        spool: str | None = None,
        rewinds: Sequence[Rewind] = (),
        system_metrics: bool = True,
        flush_seconds: float = 60.0,
    ) -> None:
        """params: the resolved recipe, nested. spool: URI of the file that holds metrics until they have arrived; None:
        one that ends with this process. rewinds: of the run so far, oldest first; a later one is for a later recorder.
        flush_seconds: how long `finish` waits at most. The last four are seldom given: hence so many.

        Raises InputError for a tracking URI that MLflow cannot use; whether it answers shows later, in the log.
        """
        uri = absolute_tracking_uri(tracking_uri)
        self._spec = RunSpec(
            uri, experiment, run_name, dict(params), public_tags(tags or {}), system_metrics, rewinds
        )
        self._flush_seconds = flush_seconds
        # By a clock that is behind the one that the run was rewound by, too.
        self._earliest = 1 + max((one.when for one in rewinds), default=0)
        self._writer: RunWriter | None = None
        self._spool_uri = spool
        self._spool: Spool | None = None
        self._images: deque[_Picture] = deque(maxlen=_MAX_IMAGES)
        self._documents: deque[_Document] = deque(maxlen=_MAX_DOCUMENTS)
        self._status: str | None = None
        self._given_up = False
        self._stop = threading.Event()
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="mlflow-recorder", daemon=True)

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run, None until it was reached."""
        return self._writer.run_id if self._writer else None

    def begin(self, completed_steps: int) -> None:
        """The run goes on from so many steps: what was recorded of later ones will be recorded again."""
        self._spool = Spool(self._spool_uri, completed_steps)
        self._go()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Returns at once."""
        if self._spool is None:
            self._spool = Spool(self._spool_uri)
        self._go()
        now = max(int(time.time() * 1000), self._earliest)
        self._spool.add(step, now, {name: float(v) for name, v in values.items()})

    def flush(self) -> None:
        """Make the metrics so far outlive this machine, whether MLflow has them or not."""
        if self._spool is not None:
            self._spool.flush()

    def image(self, name: str, step: int, image: Image.Image) -> None:
        """Returns at once."""
        self._images.append(_Picture(name, step, image.copy()))

    def document(self, name: str, value: Mapping[str, Any]) -> None:
        """Returns at once. The JSON value becomes the run's file `name`, in place of an earlier one."""
        self._documents.append(_Document(name, dict(value)))

    def finish(self, status: str) -> None:
        """Sends what is left and closes the run; waits at most flush_seconds. status: finished, preempted, …

        Metrics that could not be sent stay in the spool's file, for the next start of the run, which may be in this
        process: whoever was not waited for does nothing more.
        """
        if self._status is not None:
            return
        self._status = status
        self._stop.set()
        self._go()
        self._thread.join(self._flush_seconds)
        if self._thread.is_alive():
            self._warn(
                TimeoutError(f"no answer in {self._flush_seconds:g} s, the end of the run is not recorded")
            )
            self._given_up = True
        if self._spool is not None:
            self._spool.close()

    def abandon(self) -> None:
        """Send no more, and leave MLflow's run and the spool's file to the process that has the run by now."""
        self._status, self._given_up = "abandoned", True
        self._stop.set()
        if self._spool is not None:
            self._spool.abandon()

    def _go(self) -> None:
        """A start that is refused before it tells anything leaves MLflow as it is."""
        if self._thread.ident is None:
            self._thread.start()

    def _work(self) -> None:
        wait = _INTERVAL_SECONDS
        while not self._stop.wait(wait):
            wait = _INTERVAL_SECONDS if self._drain() else min(2 * wait, _MAX_BACKOFF_SECONDS)
        for attempt in range(_LAST_ATTEMPTS):
            if self._given_up or (self._drain() and self._close()):
                break
            time.sleep(0.5 * attempt)
        if self._given_up and self._writer is not None:
            with suppress(Exception):  # nobody waits for it any more
                self._writer.stop_watching()

    def _drain(self) -> bool:
        """Write all that is queued. False when MLflow could not be written to; nothing is lost then."""
        try:
            writer = self._writer = self._writer or RunWriter(self._spec)
            self._send_metrics(writer)
            self._send(self._images, lambda picture: writer.image(*picture))
            self._send(self._documents, lambda document: writer.document(*document))
        except Exception as error:  # of MLflow, SQLAlchemy, the network: none is a reason to stop training
            self._warn(error)
            return False
        return True

    def _send_metrics(self, writer: RunWriter) -> None:
        spool = self._spool
        while not self._given_up and spool is not None and (metrics := spool.next(_LINES_AT_ONCE)):
            writer.metrics(metrics)
            spool.confirm()

    def _send(self, queue: deque[T], write: Callable[[T], None]) -> None:
        while queue and not self._given_up:
            first = queue[0]
            write(first)
            # A full queue may have dropped it meanwhile.
            if queue and queue[0] is first:
                queue.popleft()

    def _close(self) -> bool:
        try:
            assert self._writer is not None and self._status is not None
            if not self._given_up:
                self._writer.finish(self._status)
            if not self._given_up and self._spool is not None:  # it may have been, meanwhile
                self._spool.discard()
        except Exception as error:  # as above
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        kind = type(error).__name__
        # A server that is down says so at every attempt, each time in other words.
        if kind not in self._warned and not self._given_up:
            self._warned.add(kind)
            reason = redact(next(iter(str(error).splitlines()), ""))
            uri = redact(self._spec.tracking_uri)
            _logger.warning("MLflow at %s: %s: %s; training goes on", uri, kind, reason)
