"""Do all ranks see one storage? A folder of that name on each machine's own disk looks the same from each."""

import uuid

import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import of_first_rank, together
from dalle2_train.errors import InputError


def check_shared(run_uri: str) -> None:
    """Every rank can write there, and sees what rank 0 writes; InputError, on every rank, where one does not."""
    together(lambda: storage.check_writable(run_uri))
    token = of_first_rank(storage.join(run_uri, f".seen-by-all-{uuid.uuid4().hex}"))
    together(lambda: storage.publish_bytes(token, b"1") if dist.get_rank() == 0 else None)
    together(lambda: _look(run_uri, token))
    if dist.get_rank() == 0:
        storage.remove(token)


def _look(run_uri: str, token: str) -> None:
    if not storage.exists(token):
        raise InputError(f"{run_uri} is another folder on this rank's machine than on the first one's; give a "
                         "--storage that all machines share, such as a bucket")  # fmt: skip
