"""What the machine of rank 0 is busy with, as MLflow watches it, also after MLflow was away."""

import logging

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from dalle2_train.redaction import redact


class Monitor(SystemMetricsMonitor):
    """MLflow's own, whose thread ends for good with the first request that fails: here it may be woken again."""

    def __init__(self, run_id: str, tracking_uri: str) -> None:
        """Its steps follow those that the run has. tracking_uri: absolute."""
        # It warns in the words of the request that failed, URI and all.
        logging.getLogger(SystemMetricsMonitor.__module__).addFilter(_redacted)
        super().__init__(run_id, resume_logging=True, tracking_uri=tracking_uri)
        self._has_ended = False

    def monitor(self) -> None:
        """What its thread does."""
        try:
            super().monitor()
        finally:
            self._has_ended = True

    def wake(self) -> None:
        """Go on, if it has ended: MLflow answers now."""
        if self._has_ended:
            self._has_ended = False
            self.start()


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True
