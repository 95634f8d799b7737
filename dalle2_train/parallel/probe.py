"""How fast a rank is by itself: in a step all ranks wait for each other, and the slow one cannot be told."""

import time

import torch

_SIZE, _TIMES = 256, 3


def probe_seconds(device: torch.device) -> float:
    """The least time of a few small products of matrices; about a millisecond."""
    matrix = torch.ones(_SIZE, _SIZE, device=device)
    seconds = []
    for _ in range(_TIMES):
        _wait(device)
        before = time.perf_counter()
        _ = matrix @ matrix
        _wait(device)
        seconds.append(time.perf_counter() - before)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
