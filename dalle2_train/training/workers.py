"""What each worker of a training is given, and how patient its launcher is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dalle2_train.errors import InputError


@dataclass(frozen=True)
class WorkersConfig:
    """Of Ray's workers; a training without them has no use for it."""

    num_cpus: float = 1.0
    """Cores that a worker reserves."""
    num_gpus: float | None = None
    """null: one, where the cluster has any now; 1 waits for it."""
    memory_gb: float | None = None
    """That a worker reserves; null: none in particular."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom ones, by their name in the cluster."""
    accelerator_type: str | None = None
    """As Ray names it: A100, H100, …; null: any."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the machines that may be used, as Ray's label selectors."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """PACK: on few machines; SPREAD: on many; STRICT_: or not at all."""
    start_timeout_seconds: float = 120.0
    """How long workers may take to start once their machines are there; then Ray looks anew what is there, and tries
    again. An elastic training that a machine left just now may wait so long for it."""
    resize_seconds: float = 60.0
    """How often an elastic training looks for machines that came."""

    def __post_init__(self) -> None:
        for name in ("num_cpus", "start_timeout_seconds", "resize_seconds"):
            if getattr(self, name) <= 0:
                raise InputError(f"workers.{name} is {getattr(self, name)}; it must be positive")
        for name in ("num_gpus", "memory_gb"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"workers.{name} is {value}; it must be 0 or more")
        for name, value in self.resources.items():
            if name in ("CPU", "GPU", "memory"):
                raise InputError(f"workers.resources.{name} is {value}; set workers.num_cpus, num_gpus or memory_gb "
                                 "for it")  # fmt: skip
            if value <= 0:
                raise InputError(f"workers.resources.{name} is {value}; it must be positive, or be left out")
