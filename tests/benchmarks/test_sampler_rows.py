"""The rows of the samplers' benchmark: kept, not mixed, and summed up as NumPy does."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sampler_rows import Point, Rows, figure, means, noise, summary
from dalle2_train.errors import InputError

KIDS = {
    ("ddpm", 250): [0.10, 0.12, 0.11],
    ("ddpm", 20): [0.20, 0.22, 0.21],
    ("ddim", 10): [0.14, 0.15, 0.16],
    ("ddim", 20): [0.11, 0.13, 0.12],
    ("dpm_solver", 10): [0.09, 0.08, 0.10],
}


def rows(path: Path) -> Rows:
    return Rows(str(path), {"model": "a"}, {"date": "today"})


def test_rows_are_kept_one_by_one_and_only_with_their_like(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    first, second = Point("ddim", 5, 0), Point("ddim", 5, 1)
    rows(path).add(first, {"kid": 0.123456, "r10": 0.5})
    again = rows(path)
    assert first in again and second not in again
    again.add(second, {"kid": 0.2, "r10": 0.25})
    assert {point: row["kid"] for point, row in rows(path).found.items()} == {first: 0.1235, second: 0.2}
    with pytest.raises(InputError, match="another model"):
        Rows(str(path), {"model": "b"}, {})


def test_who_reaches_the_reference_within_the_noise() -> None:
    found = {
        Point(name, steps, seed): {"kid": kid, "r10": 0.5}
        for (name, steps), kids in KIDS.items()
        for seed, kid in enumerate(kids)
    }
    pooled = np.sqrt(np.mean([np.var(kids, ddof=1) for kids in KIDS.values()]))
    assert noise(found, "kid") == pytest.approx(pooled)
    assert means(found)["ddim", 20].kid == pytest.approx(0.12)
    # Two standard errors of a difference of means over three seeds: 0.0163.
    told = summary(found)
    assert told["reference"]["num_steps"] == 250
    assert told["fewest_steps_that_reach_it"] == {"ddpm": 250, "ddim": 20, "dpm_solver": 10}
    assert told["within_20_steps"] == ["ddim", "dpm_solver"]
    assert figure(found).startswith(b"\x89PNG")
