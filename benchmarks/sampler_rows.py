"""The rows of `sampler_steps`: kept as they come, summed up over seeds, told and drawn."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dalle2_train import storage
from dalle2_train.errors import InputError

SAMPLERS: dict[str, dict[str, Any]] = {
    "ddpm": {"sampler": "ddpm", "eta": 0.0, "variance": None},
    "ddim": {"sampler": "ddim", "eta": 0.0, "variance": None},
    "ddim, eta 1": {"sampler": "ddim", "eta": 1.0, "variance": None},
    "dpm_solver": {"sampler": "dpm_solver", "eta": 0.0, "variance": None},
}
"""Name → what of the decoder's section it sets. The first, at its most steps, is what the others are compared with.
ddpm has the variance that was learned; with fixed_small it is ddim with eta 1."""

FEW_STEPS = 20
_COLOURS = ("#1f4e9e", "#c44e52", "#dd8452", "#2f8f5b")


class Point(NamedTuple):
    """What one row measures."""

    sampler: str
    num_steps: int
    seed: int


class Mean(NamedTuple):
    """Of one sampler with one number of steps, over seeds."""

    kid: float
    r10: float
    num_seeds: int


class Rows:
    """The file of rows: read when opened, written whole after every new one."""

    def __init__(self, uri: str, question: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        self._uri = uri
        self._file: dict[str, Any] = {**told, "question": question, "rows": []}
        if storage.exists(uri):
            before = storage.read_json(uri)
            if before.get("question") != question:
                raise InputError(f"{uri} holds rows of another model, data or config; give another --to")
            self._file["rows"] = before["rows"]

    def __contains__(self, point: object) -> bool:
        return point in self.found

    @property
    def found(self) -> dict[Point, dict[str, float]]:
        """Point → its scores."""
        return {Point(*(row[key] for key in Point._fields)): row for row in self._file["rows"]}

    def add(self, point: Point, scores: Mapping[str, float]) -> None:
        """Keep one row."""
        rounded = {name: float(f"{score:.4g}") for name, score in scores.items()}
        self._file["rows"].append({**point._asdict(), **rounded})
        storage.publish_json(self._uri, self._file)

    def conclude(self, told: Mapping[str, Any]) -> None:
        """Keep what follows from all rows."""
        self._file["summary"] = told
        storage.publish_json(self._uri, self._file)


def means(found: Mapping[Point, Mapping[str, float]]) -> dict[tuple[str, int], Mean]:
    """(sampler, number of steps) → its mean."""
    groups: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for point, row in found.items():
        groups.setdefault((point.sampler, point.num_steps), []).append(row)
    return {
        key: Mean(
            statistics.fmean(r["kid"] for r in rows), statistics.fmean(r["r10"] for r in rows), len(rows)
        )
        for key, rows in groups.items()
    }


def noise(found: Mapping[Point, Mapping[str, float]], score: str) -> float:
    """The standard deviation of a score from seed to seed, pooled over all rows; NaN with one seed alone."""
    groups: dict[tuple[str, int], list[float]] = {}
    for point, row in found.items():
        groups.setdefault((point.sampler, point.num_steps), []).append(row[score])
    squares = sum((len(g) - 1) * statistics.variance(g) for g in groups.values() if len(g) > 1)
    freedom = sum(len(g) - 1 for g in groups.values())
    return math.sqrt(squares / freedom) if freedom else math.nan


def summary(found: Mapping[Point, Mapping[str, float]]) -> dict[str, Any]:
    """Which samplers reach the reference, and in how few steps.

    One reaches it where its mean KID is above the reference's by no more than two standard errors of the difference,
    the noise from seed to seed being that of all rows together.
    """
    of, spread = means(found), noise(found, "kid")
    first = next(iter(SAMPLERS))
    reference = max((key for key in of if key[0] == first), key=lambda key: key[1], default=None)
    if reference is None:
        return {}
    reached = {}
    for name in dict.fromkeys(key[0] for key in of):
        steps = [
            key[1]
            for key, mean in sorted(of.items())
            if key[0] == name and mean.kid - of[reference].kid <= _allowed(spread, mean, of[reference])
        ]
        reached[name] = min(steps, default=None)
    return {
        "reference": {"sampler": reference[0], "num_steps": reference[1], "kid": of[reference].kid},
        "kid_noise_a_seed": spread,
        "fewest_steps_that_reach_it": reached,
        f"within_{FEW_STEPS}_steps": [
            name for name, least in reached.items() if least and least <= FEW_STEPS
        ],
    }


def _allowed(spread: float, one: Mean, other: Mean) -> float:
    return 2 * spread * math.sqrt(1 / one.num_seeds + 1 / other.num_seeds)


def table(found: Mapping[Point, Mapping[str, float]]) -> str:
    """For people."""
    of, told = means(found), summary(found)
    lines = [f"{'sampler':20}{'steps':>7}{'KID':>10}{'R@10':>8}{'seeds':>7}"]
    lines += [f"{n:20}{s:>7}{m.kid:>10.4f}{m.r10:>8.3f}{m.num_seeds:>7}" for (n, s), m in sorted(of.items())]
    if told:
        lines.append(
            f"from seed to seed a KID differs by {told['kid_noise_a_seed']:.4f} (standard deviation)"
        )
        for name, least in told["fewest_steps_that_reach_it"].items():
            reference = told["reference"]
            with_steps = f"reaches it with {least} steps" if least else "does not reach it"
            lines.append(f"{reference['sampler']} with {reference['num_steps']} steps: {name} {with_steps}")
    return "\n".join(lines)


def figure(found: Mapping[Point, Mapping[str, float]]) -> bytes:
    """KID and R@10 against the number of steps as a PNG; bands are two standard errors of a mean over seeds."""
    # pyplot would choose a display; a Figure of its own needs none.
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9.6, 4.0), layout="constrained")
    for panel, (score, label) in zip(
        canvas.subplots(1, 2),
        (("kid", "KID (less is better)"), ("r10", "R@10 (more is better)")),
        strict=True,
    ):
        _panel(panel, found, score)
        panel.set(xlabel="steps of the decoder", ylabel=label, xscale="log")
        steps = sorted({point.num_steps for point in found})
        panel.set_xticks(steps, [str(number) for number in steps])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    lines, names = canvas.axes[0].get_legend_handles_labels()
    canvas.legend(lines, names, loc="outside upper center", ncols=len(names), frameon=False)
    picture = io.BytesIO()
    canvas.savefig(picture, format="png", dpi=130)
    return picture.getvalue()


def _panel(panel: Any, found: Mapping[Point, Mapping[str, float]], score: str) -> None:
    of, spread = means(found), noise(found, score)
    names: Sequence[str] = [name for name in SAMPLERS if any(key[0] == name for key in of)]
    for name, colour in zip(names, _COLOURS, strict=False):
        steps = sorted(key[1] for key in of if key[0] == name)
        values = [getattr(of[name, number], score) for number in steps]
        bands = [2 * spread / math.sqrt(of[name, number].num_seeds) for number in steps]
        panel.plot(steps, values, marker="o", markersize=4, color=colour, label=name)
        low, high = ([v + sign * b for v, b in zip(values, bands, strict=True)] for sign in (-1, 1))
        panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
