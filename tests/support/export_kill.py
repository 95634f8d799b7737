"""An export whose process kills itself, so that it dies between the same two requests every time."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from dalle2_train import storage
from dalle2_train.export import export_release


def export_and_die(models: list[str], to: str, after: int, environment: Mapping[str, str]) -> None:
    """Exports `models` to `to`, and dies by SIGKILL at the first request after `after` files have been uploaded."""
    os.environ.update(environment)
    publish_file, done = storage.publish_file, []

    def publish(local: Path, uri: str) -> str:
        die_after_all()
        done.append(uri)
        return publish_file(local, uri)

    def die_after_all(uri: str = "") -> None:
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    storage.publish_file, storage.remove = publish, die_after_all
    export_release(models, to)
