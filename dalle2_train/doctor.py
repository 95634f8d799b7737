"""Is this machine fit to train: versions, what must not be installed, memory, places that have to be writable."""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.tracking.reach import check_reachable

REPORTED = ("torch", "pytorch-lightning", "ray", "webdataset", "transformers", "mlflow", "diffusers", "numpy")
OPTIONAL = ("diffusers",)
FORBIDDEN = {
    "lightning": "Ray prefers it to pytorch-lightning and two class trees meet; 2.6.2 and 2.6.3 were malicious",
    "torchvision": "transformers changes its image processors when it is there",
}


@dataclass(frozen=True)
class Check:
    """One question and its answer; `ok` False means training here would go wrong."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class DoctorReport:
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def examine(storage_uri: str | None = None, tracking_uri: str | None = None) -> DoctorReport:
    """Examine this process's machine, and that `storage_uri` is writable and `tracking_uri` answers, when given."""
    checks = [
        _python(),
        *(_version(name) for name in REPORTED),
        *(_absent(name) for name in FORBIDDEN),
        _machine(),
    ]
    if storage_uri is not None:
        checks.append(_tried("storage", storage_uri, storage.check_writable))
    if tracking_uri is not None:
        checks.append(_tried("tracking", tracking_uri, check_reachable))
    return DoctorReport(tuple(checks))


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), f"{sys.version.split()[0]}; 3.11 or newer is needed")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(name: str) -> Check:
    version = _installed(name)
    return Check(name, version is not None or name in OPTIONAL, version or "not installed")


def _absent(name: str) -> Check:
    version = _installed(name)
    remedy = f"{version} is installed: pip uninstall {name} ({FORBIDDEN[name]})"
    return Check(f"no {name}", version is None, remedy if version else "absent, as it must be")


def _machine() -> Check:
    cores, memory = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        _gib(),
    )
    return Check(
        "machine", memory >= 2.0, f"{cores} cores, {memory:.1f} GiB memory available; the tiny recipes need 2"
    )


def _gib() -> float:
    return psutil.virtual_memory().available / 2**30


def _tried(name: str, uri: str, attempt: Callable[[str], object]) -> Check:
    try:
        attempt(uri)
    except (InputError, OSError) as error:
        told = str(error)
        return Check(name, False, redact(told if told.startswith(uri) else f"{uri}: {told}"))
    return Check(name, True, redact(uri))


def main() -> int:
    """`python -m dalle2_train.doctor`: the failed checks alone, for `make lint`."""
    failed = [check for check in examine().checks if not check.ok]
    for check in failed:
        print(f"{check.name}: {check.detail}", file=sys.stderr)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
