"""What lies in cluster/, and how its documents are read."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
KUBERNETES = tuple(sorted((CLUSTER / "kuberay").glob("*.yaml")))
LAUNCHERS = tuple(sorted((CLUSTER / "ray").glob("*.yaml")))
COMPOSE = tuple(sorted(CLUSTER.rglob("compose.yaml")))
DOCKERFILES = tuple(sorted(CLUSTER.rglob("Dockerfile")))
SBATCH = CLUSTER / "slurm" / "train.sbatch"
DASHBOARD = CLUSTER / "monitoring" / "grafana" / "dashboards" / "training.json"


def load(file: Path) -> Any:
    """The YAML document in it."""
    return yaml.safe_load(file.read_text())


def name_of(file: Path) -> str:
    """Its path under cluster/; names a test's case."""
    return file.relative_to(CLUSTER).as_posix()
