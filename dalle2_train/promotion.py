"""Policy → decision with reasons → alias, with an audit of every decision and a way back.

An alias moves on evidence only: an evaluation report that belongs to these very weights, and a policy that it meets.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dalle2_train import storage
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.evaluation.identity import verified_digest
from dalle2_train.evaluation.output import read_report
from dalle2_train.evaluation.report import EvaluationReport
from dalle2_train.tracking.registry import (
    ModelVersion,
    append_audit,
    by_alias,
    by_version,
    read_audit,
    register,
    set_alias,
)


@dataclass(frozen=True)
class PromotionPolicy:
    """What a model must show."""

    metric: str | None = None
    """Dotted name in the report; more is better, except for a KID. None: judge.compositional.r10, or of the validation
    split where the data have no compositional one."""
    minimum: float | None = None
    """The worst value that is allowed: a lower bound, for a KID an upper one. None: any."""
    must_beat_chance: bool = True
    """Must be better than the report's floor, which among a few pictures is as high as anything: any of ten is among
    the first ten."""
    must_beat_champion: bool = True
    """Must be better than what the alias points at now, if anything, on the same questions."""
    noise: float = 1.0
    """How many standard errors of the difference better; 0: any gain will do."""

    def metric_of(self, report: EvaluationReport | None) -> str:
        """`metric`, resolved."""
        if self.metric is not None:
            return self.metric
        splits = report.judge.splits if report else {}
        return f"judge.{'compositional' if 'compositional' in splits or not splits else 'validation'}.r10"

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise ValueError(f"noise is {self.noise}; it is a number of standard errors, 0 or more")


@dataclass(frozen=True)
class PromotionDecision:
    """What was decided and why; it is also the audit's entry."""

    action: str
    """promote, refuse or rollback."""
    name: str
    alias: str
    uri: str
    digest: str
    version: int | None
    """Of the model; None where it was not registered."""
    previous_version: int | None
    """What the alias pointed at before."""
    metric: str
    value: float | None
    champion_value: float | None
    reasons: tuple[str, ...]
    decided: str
    """UTC, ISO 8601."""


def promote(
    model_uri: str, name: str, alias: str, *, tracking_uri: str, policy: PromotionPolicy | None = None
) -> PromotionDecision:
    """Registers the model at `model_uri` as a version of `name` and points `alias` at it, if `policy` allows.

    RefusedError with every reason, when it was not evaluated, its weights are not the evaluated ones or are damaged,
    or the policy is unmet; the alias stays where it was. InputError for a model or metric that is not there.
    """
    policy = policy or PromotionPolicy()
    uri = storage.absolute(model_uri)
    digest = verified_digest(uri)
    champion = by_alias(name, alias, tracking_uri=tracking_uri)
    report = read_report(uri)
    metric = policy.metric_of(report)
    reasons, objections = judge_candidate(report, digest, champion, policy)
    decision = PromotionDecision(
        action="refuse" if objections else "promote",
        name=name,
        alias=alias,
        uri=uri,
        digest=digest,
        version=None,
        previous_version=champion.version if champion else None,
        metric=metric,
        value=report.metrics().get(metric) if report else None,
        champion_value=champion.metrics.get(metric) if champion else None,
        reasons=objections or reasons,
        decided=_now(),
    )
    if objections or report is None:
        if champion is not None:
            append_audit(name, asdict(decision), tracking_uri=tracking_uri)
        raise RefusedError(f"{uri} is not promoted to {name}@{alias}: " + "; ".join(objections))
    version = register(
        name, uri, digest, report.metrics(), tracking_uri=tracking_uri, tags={"questions": report.questions}
    )
    decision = replace(decision, version=version.version)
    _carry_out(decision, version.version, tracking_uri)
    return decision


def judge_candidate(
    report: EvaluationReport | None, digest: str, champion: ModelVersion | None, policy: PromotionPolicy
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(reasons for, objections): promoted only where there is no objection. Touches nothing.

    InputError when the report has no such metric.
    """
    if report is None:
        return (), ("it has no evaluation report; run `dalle2-train evaluate` on it",)
    if report.model_digest != digest:
        return (), (
            f"its report is about other weights or statistics ({report.model_digest[:12]}) than it has now "
            f"({digest[:12]}); evaluate it again; of what was evaluated with others, export them all as one release, "
            "and evaluate that",
        )
    candidate = report.metrics()
    metric = policy.metric_of(report)
    if metric not in candidate:
        names = ", ".join(name for name in candidate if name.count(".") == 2 and not name.endswith("_error"))
        raise InputError(f"policy.metric: the report has no {metric!r}; it has {names}")
    verdicts = [
        _against_minimum(candidate, metric, policy),
        _against_chance(candidate, metric, policy),
        _against_champion(report, candidate, champion, policy),
    ]
    return (
        tuple(text for good, text in verdicts if good and text),
        tuple(text for good, text in verdicts if not good),
    )


def rollback(name: str, alias: str, *, tracking_uri: str) -> PromotionDecision:
    """Points `alias` back at what it pointed at before the last promotion that still stands.

    RefusedError where nothing was there before, or where that model is not any more what it was.
    """
    present = by_alias(name, alias, tracking_uri=tracking_uri)
    standing = _standing(read_audit(name, tracking_uri=tracking_uri), alias)
    if present is None or len(standing) < 2:
        raise RefusedError(f"{name}@{alias}: no earlier promotion to go back to")
    earlier = by_version(name, standing[-2], tracking_uri=tracking_uri)
    if verified_digest(earlier.uri) != earlier.digest:
        raise RefusedError(
            f"{name} version {earlier.version}: the model at {earlier.uri} is not the one that was promoted; "
            "restore it, or promote another"
        )
    last = _last_metric(read_audit(name, tracking_uri=tracking_uri), alias)
    decision = PromotionDecision(
        action="rollback",
        name=name,
        alias=alias,
        uri=earlier.uri,
        digest=earlier.digest,
        version=earlier.version,
        previous_version=present.version,
        metric=last,
        value=earlier.metrics.get(last),
        champion_value=present.metrics.get(last),
        reasons=(f"rolled back from version {present.version}",),
        decided=_now(),
    )
    _carry_out(decision, earlier.version, tracking_uri)
    return decision


def _carry_out(decision: PromotionDecision, version: int, tracking_uri: str) -> None:
    # The audit first: if the second call fails, a rollback still knows every model that the alias pointed at.
    append_audit(decision.name, asdict(decision), tracking_uri=tracking_uri)
    set_alias(decision.name, decision.alias, version, tracking_uri=tracking_uri)


def _against_minimum(
    candidate: Mapping[str, float], metric: str, policy: PromotionPolicy
) -> tuple[bool, str]:
    value, bound = candidate[metric], policy.minimum
    if bound is None:
        return True, ""
    is_met = _sign(metric) * (value - bound) >= 0
    relation = "meets" if is_met else "misses"
    return is_met, f"{metric} {value:.4f} {relation} the policy's bound {bound:g}"


def _against_chance(candidate: Mapping[str, float], metric: str, policy: PromotionPolicy) -> tuple[bool, str]:
    eyes, *rest = metric.split(".")
    value, chance = candidate[metric], candidate.get(".".join([eyes, "floor", *rest]))
    if not policy.must_beat_chance or chance is None or _sign(metric) * (value - chance) > 0:
        return True, ""
    return False, (
        f"{metric} {value:.4f} does not beat chance, {chance:.4f}; evaluate on more pictures held out, train longer, "
        "or judge by another policy.metric"
    )


def _against_champion(
    report: EvaluationReport,
    candidate: Mapping[str, float],
    champion: ModelVersion | None,
    policy: PromotionPolicy,
) -> tuple[bool, str]:
    metric = policy.metric_of(report)
    if champion is None:
        return True, f"{metric} {candidate[metric]:.4f}; there is no champion yet"
    if champion.digest == report.model_digest:
        return True, f"it is the present champion, version {champion.version}"
    if not policy.must_beat_champion:
        return True, f"{metric} {candidate[metric]:.4f}; the policy does not compare with the champion"
    if champion.tags.get("questions") != report.questions or metric not in champion.metrics:
        return False, (
            f"it cannot be compared with the champion, version {champion.version}: their evaluations asked different "
            "questions; evaluate the champion with the same data and config and promote it again"
        )
    gain = _sign(metric) * (candidate[metric] - champion.metrics[metric])
    error = math.hypot(candidate.get(f"{metric}_error", 0.0), champion.metrics.get(f"{metric}_error", 0.0))
    text = (
        f"{metric} {candidate[metric]:.4f} against the champion's {champion.metrics[metric]:.4f} "
        f"(version {champion.version}), standard error of the difference {error:.4f}"
    )
    is_better = gain > 0 and gain >= policy.noise * error
    return is_better, text if is_better else f"not better than the champion beyond noise: {text}"


def _sign(metric: str) -> int:
    """1 where more is better."""
    return -1 if metric.rsplit(".", 1)[-1] == "kid" else 1


def _standing(audit: Sequence[Mapping[str, Any]], alias: str) -> list[int]:
    """Versions that the alias went through, without those that were rolled back; the present one last."""
    versions: list[int] = []
    for entry in audit:
        if entry["alias"] != alias:
            continue
        if entry["action"] == "promote" and versions[-1:] != [entry["version"]]:
            versions.append(entry["version"])
        elif entry["action"] == "rollback" and versions:
            versions.pop()
    return versions


def _last_metric(audit: Sequence[Mapping[str, Any]], alias: str) -> str:
    return next(entry["metric"] for entry in reversed(audit) if entry["alias"] == alias)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
