"""The evaluation's result as data: frozen, and the same in report.json, the registry's tags and a promotion policy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dalle2_train import config
from dalle2_train.errors import InputError

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "compositional")


@dataclass(frozen=True)
class Scores:
    """What one set of pictures scores. None: not defined for this set."""

    r1: float | None
    """Share of captions whose real picture is the nearest in the gallery, 0…1; chance is 1/gallery."""
    r10: float | None
    """… is among the ten nearest."""
    kid: float | None
    """Distance to the held-out real pictures; 0 is best. Below 0 for pictures that repeat those very ones, as good
    pictures of the held-out captions do."""
    r1_error: float | None = None
    r10_error: float | None = None
    kid_error: float | None = None
    """Standard errors."""


@dataclass(frozen=True)
class Reading:
    """What one pair of eyes (the judge, the CLIP) sees."""

    splits: dict[str, Scores]
    """By split, the generated pictures'."""
    floor: dict[str, Scores]
    """By split: R@k of guessing, KID of random pixels."""
    ceiling: dict[str, Scores]
    """By split, the real pictures'."""
    scale: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """"8 px" → split → the real pictures' when blurred to that size."""


@dataclass(frozen=True)
class PriorCosines:
    """Mean cosines of the prior's image embeddings for one split's captions, by the model's own CLIP."""

    image: float
    """With the embedding of the caption's real picture."""
    text: float
    """With the caption's text embedding."""
    floor: float
    """Of the real pictures' embeddings with one another: `image` of a prior that ignores the caption."""
    real_text: float
    """Of the real pictures' embeddings with their captions': `text` of a prior that knows the picture."""
    image_error: float
    text_error: float
    """Standard errors."""


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that an evaluation found, and what it was asked."""

    model: str
    """URI."""
    model_digest: str
    data: str
    """URI."""
    questions: str
    """SHA-256 of the real pictures and captions: reports with equal ones can be compared."""
    seed: int
    config: dict[str, Any]
    """The evaluation's."""
    counts: dict[str, int]
    """queries.SPLIT, gallery.SPLIT, held_out."""
    sampler: dict[str, Any]
    """The generation's config."""
    seconds: dict[str, float]
    """generate, judge, total."""
    judge: Reading
    clip: Reading | None
    prior: dict[str, PriorCosines] | None = None
    """By split; None where the model has no prior, or its CLIP was left out."""
    created: str = ""
    """UTC, ISO 8601."""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain mappings: judge.compositional.r10 is a path in them, beside judge.floor.compositional.r10."""
        found = asdict(self)
        for eyes in ("judge", "clip"):
            if found[eyes] is not None:
                found[eyes] = {**found[eyes].pop("splits"), **found[eyes]}
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str = "report") -> "EvaluationReport":
        """`to_json`'s inverse. InputError for anything else, naming `where`."""
        if not isinstance(found, Mapping) or found.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{where}: not an evaluation report of format {FORMAT_VERSION}; evaluate the model again"
            )
        eyes = {name: _split_out(found[name]) for name in ("judge", "clip") if found.get(name)}
        return config.build(cls, {**found, "clip": None, **eyes}, where)

    def metrics(self) -> dict[str, float]:
        """Dotted name → value of every score of the generated pictures and their errors, floor and ceiling included,
        and of the prior's cosines."""
        found = self.to_json()
        return {
            name: value
            for part in ("judge", "clip", "prior")
            for name, value in _flatten(found[part], part).items()
        }


def _split_out(eyes: Mapping[str, Any]) -> dict[str, Any]:
    fixed = ("floor", "ceiling", "scale")
    splits = {name: scores for name, scores in eyes.items() if name not in fixed}
    return {"splits": splits, **{name: eyes[name] for name in fixed if name in eyes}}


def _flatten(value: Any, path: str) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {name: v for key, part in value.items() for name, v in _flatten(part, f"{path}.{key}").items()}
    return {} if value is None else {path: float(value)}
