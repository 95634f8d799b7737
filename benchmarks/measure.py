"""Contenders run in turn on one machine, several rounds of it; what counts are the medians."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Measured:
    """What one contender did, run by run."""

    unit: str
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def to_json(self) -> dict[str, Any]:
        """Four figures each."""
        rounded = [_rounded(run) for run in self.runs]
        return {
            "unit": self.unit,
            "median": _rounded(self.median),
            "min": min(rounded),
            "max": max(rounded),
            "runs": rounded,
        }


@dataclass(frozen=True)
class Promise:
    """What a ratio of two medians, or another number, must reach: `least`, or else stay below `most`."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def kept(self) -> bool:
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value < self.most
        )

    def to_json(self) -> dict[str, Any]:
        return {"value": _rounded(self.value), "at_least": self.least, "below": self.most, "kept": self.kept}


def alternate(contenders: Mapping[str, Callable[[], float]], unit: str, rounds: int) -> dict[str, Measured]:
    """Every contender once a round, so that a machine that becomes slower does so for all. They return `unit`s.

    Every other round goes backwards: who comes after its like finds warm what the other had to warm up.
    """
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders.items())
        for name, run in order if number % 2 == 0 else reversed(order):
            runs[name].append(run())
            print(f"round {number + 1}/{rounds}  {name}: {runs[name][-1]:.4g} {unit}", file=sys.stderr)
    return {name: Measured(unit, tuple(found)) for name, found in runs.items()}


def table(measured: Mapping[str, Measured], promises: list[Promise]) -> str:
    """For people."""
    lines = [f"{'':52}{'median':>10}{'min':>10}{'max':>10}"]
    for name, found in measured.items():
        numbers = "".join(f"{number:10.4g}" for number in (found.median, min(found.runs), max(found.runs)))
        lines.append(f"{name:52}{numbers}  {found.unit}")
    for promise in promises:
        bound = f"at least {promise.least:g}" if promise.least is not None else f"below {promise.most:g}"
        kept = "kept" if promise.kept else "BROKEN"
        lines.append(f"{promise.name:52}{promise.value:10.3g}  promised: {bound}; {kept}")
    return "\n".join(lines)


def circumstances(command: str) -> dict[str, Any]:
    """Where and when it was measured."""
    return {"command": command, "date": date.today().isoformat(), "machine": _machine()}


class Company:
    """Who else computes here while it is measured."""

    def __init__(self) -> None:
        self._start, self._busy = time.perf_counter(), _busy_of_others()

    def share(self) -> float:
        """Of all cores, what others have taken so far, once our processes have ended."""
        cores = len(os.sched_getaffinity(0))
        return (_busy_of_others() - self._busy) / (time.perf_counter() - self._start) / cores


def _busy_of_others() -> float:
    """Seconds of all cores."""
    everyone, own = psutil.cpu_times(), os.times()
    busy = everyone.user + everyone.nice + everyone.system
    return busy - own.user - own.system - own.children_user - own.children_system


def _machine() -> dict[str, Any]:
    told = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": told[0] if told else "unknown",
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
    }


def _cpuinfo() -> list[str]:
    place = Path("/proc/cpuinfo")
    return place.read_text().splitlines() if place.exists() else []


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
