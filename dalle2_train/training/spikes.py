"""Losses that stand out of those before them: told, not acted upon."""

import math
import statistics
from collections import deque


class SpikeDetector:
    """Compares each loss with the median of the last ones, in units of their typical distance from it."""

    def __init__(self, window: int = 100, least: int = 20, factor: float = 10.0) -> None:
        """window: losses that are looked back on. least: as many are needed. factor: median absolute deviations that
        count as a spike; noise alone passes 10 of them about once in 10^11 steps."""
        self._losses: deque[float] = deque(maxlen=window)
        self._least, self._factor = least, factor

    def add(self, loss: float) -> bool:
        """Does it stand out upwards? It is looked back on from here on, spike or not."""
        if not math.isfinite(loss):
            return False
        stands_out = self._stands_out(loss)
        self._losses.append(loss)
        return stands_out

    def _stands_out(self, loss: float) -> bool:
        if len(self._losses) < self._least:
            return False
        middle = statistics.median(self._losses)
        deviation = statistics.median(abs(other - middle) for other in self._losses)
        return loss > middle + self._factor * deviation
