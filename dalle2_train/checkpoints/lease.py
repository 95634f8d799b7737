"""One name, one writer: a lease in a run's folder, which its holder renews, refuses a second training of the name.

Nothing here compares clocks of two machines: a holder on another machine lives if its lease is renewed while we look.
"""

import sys
import threading
import time
from dataclasses import replace
from typing import Self

from dalle2_train import storage
from dalle2_train.checkpoints.attempt import TakenOverError
from dalle2_train.checkpoints.holder import Holder, read_holder
from dalle2_train.checkpoints.layout import lease_uri
from dalle2_train.checkpoints.succession import take
from dalle2_train.errors import InputError

LEASE_SECONDS = 30.0
"""A lease that is not renewed for so long is nobody's."""
_BEAT_SECONDS = 5.0
_SETTLE_SECONDS = 2.0
_MOST_ROUNDS, _ROUND_SECONDS = 100, 0.05


class Lease:
    """Holds a run's lease for the length of a `with` block. Raises InputError where another process holds it."""

    def __init__(self, run_uri: str, seconds: float = LEASE_SECONDS) -> None:
        self._run_uri, self.uri, self._seconds = run_uri, lease_uri(run_uri), seconds
        self.holder = Holder.me()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._take()
        except NotImplementedError:
            self._settle()
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

    def _take(self) -> None:
        """Of those that start at the same moment one goes on; the others hear of it from `_is_gone`."""
        for _ in range(_MOST_ROUNDS):
            if take(self.uri, self.holder, self._is_gone):
                return
            time.sleep(_ROUND_SECONDS)
        raise InputError(_held(self._run_uri, "is being begun by other processes"))

    def _settle(self) -> None:
        """Where storage cannot tell who was first, it is who wrote last."""
        other = read_holder(self.uri)
        if other is not None:
            self._is_gone(self.uri, other)
        self._write()
        # Another may have read, with us, that nobody holds it, and write only now.
        time.sleep(_SETTLE_SECONDS)

    def _is_gone(self, uri: str, other: Holder) -> bool:
        """Waits until it is known. False: it let go of the lease meanwhile. InputError where it lives."""
        if other.is_dead:
            return True
        if other.is_here:
            raise InputError(_held(self._run_uri, f"is being trained by process {other.pid} of this machine"))
        print(f"{self._run_uri} is held from {other.host}; waiting {self._seconds:.0f} s for a sign of life",
              file=sys.stderr)  # fmt: skip
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            time.sleep(min(1.0, self._seconds / 10))
            found = read_holder(uri)
            if found is None:
                return False
            if found != other:
                raise InputError(_held(self._run_uri, f"is being trained from {found.host}"))
        return True

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
    """Raises TakenOverError where the run is another's by now."""
    found = read_holder(lease_uri(run_uri))
    if found is None:
        raise TakenOverError(_held(run_uri, "was taken over by another process, which has ended"))
    if found.id != holder_id:
        raise TakenOverError(_held(run_uri, f"was taken over by process {found.pid} on {found.host}"))


def _held(run_uri: str, what: str) -> str:
    return f"{run_uri} {what}; wait for it, stop it with `runs --stop`, or give another --name"
