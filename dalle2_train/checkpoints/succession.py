"""Who holds a lease next, where several want it at once: decided by what a file system does at a stroke.

Where nobody holds it, whoever's file is there first (`storage.publish_new`). To follow a holder that is gone, a process
first holds, in the same way, a claim: a file that is named by what the gone one's lease says. Nobody else may then put
anything in the place of that lease, and the claim, which says who made it, is renamed over it. A process that is killed
in between leaves its claim, in which it is followed like any other holder.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress

from dalle2_train import storage
from dalle2_train.checkpoints.holder import Holder
from dalle2_train.storage.staging import TEMPORARY

IsGone = Callable[[str, Holder], bool]
"""(URI of a lease or claim, its holder) → does that one write there no more?"""


def take(uri: str, me: Holder, is_gone: IsGone) -> bool:
    """Make `me` the holder at `uri`, where nobody is or whoever is there is gone. False: it changed meanwhile.

    NotImplementedError where the storage cannot tell who was first.
    """
    if storage.publish_new(uri, me.to_bytes()):
        return True
    found = _read(uri)
    if found is None:
        return False
    other = Holder.of(found)
    if other is not None and not is_gone(uri, other):
        return False
    claim = claim_uri(uri, found)
    if not take(claim, me, is_gone):
        return False
    if _read(uri) != found:  # who had the claim before us was done with it
        storage.remove(claim)
        return False
    with suppress(storage.MissingError):  # it was renamed, though nobody heard of it
        storage.rename(claim, uri)
    return _read(uri) == me.to_bytes()


def claim_uri(uri: str, found: bytes) -> str:
    """The claim to follow whom the lease at `uri` names by `found`; no other lease will ever say the same."""
    return storage.join(storage.parent(uri), f"{TEMPORARY}after-{hashlib.sha256(found).hexdigest()}")


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except storage.MissingError:
        return None
