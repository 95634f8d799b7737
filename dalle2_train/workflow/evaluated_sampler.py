"""The sampler that a model was judged with: what its pictures are drawn with where a user sets nothing."""

import logging
from collections.abc import Sequence

from dalle2_train.config import build
from dalle2_train.errors import InputError
from dalle2_train.evaluation import EvaluationReport, claimed_digest, read_report
from dalle2_train.evaluation.output import report_uri
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.presets import Defaults

_log = logging.getLogger(__name__)


def evaluated_sampler(models: Sequence[str]) -> Defaults | None:
    """The sampler of the evaluation whose report lies with one of `models` (URIs of parts, or one release) and judged
    just these; None where there is no such report, and a warning where there is one of other models.

    Nothing of the models is verified: that is done when they are opened. Errors: InputError for a damaged report, or
    one whose sampler has settings that are not known any more.
    """
    for model in models:
        uri = report_uri(model)
        report = _report(model)
        if report is not None and report.model_digest == claimed_digest(models):
            return Defaults(f"as evaluated (report {uri})", _sections(report, uri))
        if report is not None:
            _log.warning("%s is of other models, so its sampler is not taken", uri)
    return None


def _report(model: str) -> EvaluationReport | None:
    try:
        return read_report(model)
    except InputError as error:
        raise InputError(f"{error}, with --preset karlo or paper, which does without the report") from error


def _sections(report: EvaluationReport, uri: str) -> dict[str, object]:
    # Pictures that were enlarged before they were judged were drawn like others.
    sections = {name: section for name, section in report.sampler.items() if name != "enlarged_to"}
    try:
        build(GenerationConfig, sections, "sampler")
    except InputError as error:
        raise InputError(
            f"{uri}: {error}; evaluate the model again, with --preset karlo or paper, which does without the report"
        ) from error
    return sections
