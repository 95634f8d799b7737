"""One name, one writer: a lease in a run's folder, which its holder renews, refuses a second training of the name.

Nothing here compares clocks of two machines: a holder on another machine lives if its lease is renewed while we look.
"""

import sys
import threading
import time
from dataclasses import replace
from typing import Self

from dalle2_train import storage
from dalle2_train.checkpoints.holder import Holder, read_holder
from dalle2_train.checkpoints.layout import lease_uri
from dalle2_train.errors import InputError

LEASE_SECONDS = 30.0
"""A lease that is not renewed for so long is nobody's."""
_BEAT_SECONDS = 5.0
_SETTLE_SECONDS = 2.0


class Lease:
    """Holds a run's lease for the length of a `with` block. Raises InputError where another process holds it."""

    def __init__(self, run_uri: str, seconds: float = LEASE_SECONDS) -> None:
        self._run_uri, self.uri, self._seconds = run_uri, lease_uri(run_uri), seconds
        self.holder = Holder.me()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._wait_for_other()
        self._write()
        if storage.local_path(self.uri) is None:
            time.sleep(
                _SETTLE_SECONDS
            )  # another may have read, with us, that nobody holds it, and write only now
        if read_holder(self.uri, self.holder.id) is not None:
            raise InputError(_held(self._run_uri, "has just been begun by another process"))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_BEAT_SECONDS)
        try:
            if read_holder(self.uri, self.holder.id) is None:
                storage.remove(self.uri)
        except (
            OSError
        ) as error:  # how the training ended is what is told; a lease that is left ends by itself
            print(f"{self.uri} could not be removed: {error}", file=sys.stderr)

    def _wait_for_other(self) -> None:
        """Until whoever holds it is known to be gone."""
        other = read_holder(self.uri)
        if other is None or other.is_dead:
            return
        if other.is_here:
            raise InputError(_held(self._run_uri, f"is being trained by process {other.pid} of this machine"))
        print(f"{self._run_uri} is held from {other.host}; waiting {self._seconds:.0f} s for a sign of life",
              file=sys.stderr)  # fmt: skip
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            time.sleep(min(1.0, self._seconds / 10))
            if read_holder(self.uri) not in (other, None):
                raise InputError(_held(self._run_uri, f"is being trained from {other.host}"))

    def _renew(self) -> None:
        while not self._ended.wait(min(_BEAT_SECONDS, self._seconds / 4)):
            try:
                if read_holder(self.uri, self.holder.id) is not None:
                    return  # another's by now: whoever commits a checkpoint finds out
                self.holder = replace(self.holder, beat=self.holder.beat + 1)
                self._write()
            except Exception:  # storage that is away for a while comes back
                continue

    def _write(self) -> None:
        storage.publish_bytes(self.uri, self.holder.to_bytes())


def check_held(run_uri: str, holder_id: str) -> None:
    """Raises InputError where the run is another's by now: what this process would write is not wanted any more."""
    found = read_holder(lease_uri(run_uri))
    if found is None:
        raise InputError(_held(run_uri, "was taken over by another process, which has ended"))
    if found.id != holder_id:
        raise InputError(_held(run_uri, f"was taken over by process {found.pid} on {found.host}"))


def _held(run_uri: str, what: str) -> str:
    return f"{run_uri} {what}; wait for it, stop it with `runs --stop`, or give another --name"
