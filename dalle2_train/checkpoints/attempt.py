"""Of the starts of a run the newest alone commits.

A lease tells one driver from another. Of one driver Ray may have started the ranks anew while those before, whose
machine it does not hear from any more, live on, and still reach the storage.
"""

import uuid

from dalle2_train import storage
from dalle2_train.checkpoints.layout import attempt_uri
from dalle2_train.errors import InputError


class TakenOverError(InputError):
    """The run is another process's by now: what this one would write is not wanted any more."""


def begin_attempt(run_uri: str) -> str:
    """From here on no earlier start of the run commits anything; returns this one's id."""
    attempt = uuid.uuid4().hex
    storage.publish_json(attempt_uri(run_uri), {"attempt": attempt})
    return attempt


def check_newest(run_uri: str, attempt: str) -> None:
    """Raises TakenOverError where the run has been started anew since."""
    if storage.read_json(attempt_uri(run_uri)).get("attempt") != attempt:
        raise TakenOverError(f"{run_uri} was started anew while this start of it still ran; the newer one goes on from "
                             "the last checkpoint, and there is nothing to do")  # fmt: skip
