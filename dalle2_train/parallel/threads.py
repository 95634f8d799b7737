"""Who computes with how many cores: the thread of the network with all of them, any other with one.

Batches, gloo's messages and checkpoints are made by threads of their own. Where one of these starts OpenMP helpers too,
libgomp counts more threads than cores and lets no helper wait awake any more: those of the network's thread then fall
asleep after each of its operations (docs/decisions/0002 has what that costs).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import torch


@contextmanager
def cores_for_this_thread(num_threads: int | None) -> Iterator[None]:
    """Inside, this thread computes with `num_threads` cores; None: OMP_NUM_THREADS, or else as many as before.

    Threads that use torch for the first time inside compute with one. Sums over threads differ in the last bit, so
    their number is part of what makes a run repeatable.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or int(os.environ.get("OMP_NUM_THREADS") or before))
    # What a thread sets holds for itself and for all that come later.
    other = Thread(target=torch.set_num_threads, args=(1,))
    other.start()
    other.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)
