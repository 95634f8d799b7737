"""Promotion with a real MLflow store and models whose files are verified."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, ModelManifest
from dalle2_train.checkpoints.manifest import EpsStatistics, publish_manifest, read_manifest
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.evaluation import EvaluationReport, Reading, Scores, verified_digest
from dalle2_train.promotion import PromotionDecision, PromotionPolicy, promote, rollback
from dalle2_train.tracking.registry import by_alias, read_audit
from dalle2_train.tracking.uri import connect

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
Evaluated = Callable[..., str]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making MLflow's tables takes seconds, so it is done once."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def tracking_uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    """Makes a model with a report of its own weights; returns its folder."""

    def make(name: str, r10: float, *, kid: float = 0.1, questions: str = "q") -> str:
        folder = str(tmp_path / name)
        data = name.encode()
        sha256 = storage.publish_bytes(storage.join(folder, "model.safetensors"), data)
        files = {"model.safetensors": FileEntry(sha256, len(data))}
        publish_manifest(folder, ModelManifest(kind="decoder", config={}, files=files))
        scores = Scores(r10 / 2, r10, kid, 0.03, 0.035, 0.01)
        chance = Scores(0.005, 0.05, 0.6, 0.007, 0.022, 0.007)
        reading = Reading({"compositional": scores}, {"compositional": chance}, {"compositional": scores})
        report = EvaluationReport(
            model=folder,
            model_digest=verified_digest(folder),
            data="/data",
            questions=questions,
            seed=0,
            config={},
            counts={},
            sampler={},
            seconds={},
            judge=reading,
            clip=None,
        )
        storage.publish_json(storage.join(folder, "evaluation", "report.json"), report.to_json())
        return folder

    return make


@pytest.fixture
def decide(tracking_uri: str) -> Callable[..., PromotionDecision]:
    def call(model: str, **policy: Any) -> PromotionDecision:
        return promote(
            model, "unclip", "champion", tracking_uri=tracking_uri, policy=PromotionPolicy(**policy)
        )

    return call


def _champion(tracking_uri: str) -> str | None:
    found = by_alias("unclip", "champion", tracking_uri=tracking_uri)
    return found.uri if found else None


def test_what_does_not_beat_chance_is_refused(evaluated: Evaluated, decide: Any, tracking_uri: str) -> None:
    chance, grey = evaluated("chance", 0.05), evaluated("grey", 0.3, kid=0.6)
    with pytest.raises(
        RefusedError, match=r"judge\.compositional\.r10 0\.0500 does not beat chance, 0\.0500"
    ):
        decide(chance)
    with pytest.raises(RefusedError, match=r"judge\.compositional\.kid 0\.6000 does not beat chance"):
        decide(grey, metric="judge.compositional.kid")
    assert _champion(tracking_uri) is None
    assert decide(chance, must_beat_chance=False).version == 1


def test_the_life_of_an_alias(evaluated: Evaluated, decide: Any, tracking_uri: str) -> None:
    first, noisy, better, worse = (
        evaluated(name, r10) for name, r10 in (("a", 0.3), ("b", 0.32), ("c", 0.5), ("d", 0.1))
    )
    assert decide(first).reasons == ("judge.compositional.r10 0.3000; there is no champion yet",)
    with pytest.raises(RefusedError, match="not better than the champion beyond noise"):
        decide(noisy)
    decision = decide(better)
    assert (decision.version, decision.previous_version) == (2, 1)
    assert (decision.value, decision.champion_value) == (0.5, 0.3)
    with pytest.raises(RefusedError):
        decide(worse)
    assert _champion(tracking_uri) == better

    assert rollback("unclip", "champion", tracking_uri=tracking_uri).version == 1
    assert _champion(tracking_uri) == first
    with pytest.raises(RefusedError, match="no earlier promotion"):
        rollback("unclip", "champion", tracking_uri=tracking_uri)

    audit = read_audit("unclip", tracking_uri=tracking_uri)
    assert [entry["action"] for entry in audit] == ["promote", "refuse", "promote", "refuse", "rollback"]
    assert "beyond noise" in audit[1]["reasons"][0]


def test_rolled_back_versions_are_not_gone_back_to(
    evaluated: Evaluated, decide: Any, tracking_uri: str
) -> None:
    first, second, third = (evaluated(name, r10) for name, r10 in (("a", 0.1), ("b", 0.5), ("c", 0.9)))
    decide(first)
    decide(second)
    rollback("unclip", "champion", tracking_uri=tracking_uri)
    decide(third)
    rollback("unclip", "champion", tracking_uri=tracking_uri)
    assert _champion(tracking_uri) == first


def test_without_a_report_nothing_is_promoted(evaluated: Evaluated, decide: Any, tracking_uri: str) -> None:
    model = evaluated("a", 0.9)
    storage.remove(storage.join(model, "evaluation"))
    with pytest.raises(RefusedError, match="no evaluation report"):
        decide(model)
    assert _champion(tracking_uri) is None


def test_a_report_vouches_for_its_own_weights_only(evaluated: Evaluated, decide: Any) -> None:
    good, bad = evaluated("a", 0.9), evaluated("b", 0.1)
    report = storage.read_json(storage.join(good, "evaluation", "report.json"))
    storage.publish_json(storage.join(bad, "evaluation", "report.json"), report)
    with pytest.raises(RefusedError, match=r"about other weights.*export them all as one release"):
        decide(bad)


def test_calibrating_takes_the_evidence_away(evaluated: Evaluated, decide: Any, tracking_uri: str) -> None:
    first, second, third = (evaluated(name, r10) for name, r10 in (("a", 0.1), ("b", 0.5), ("c", 0.9)))
    decide(first)
    decide(second)
    for model in (first, third):
        statistics = EpsStatistics((0, 9), (0.5, 1.0), 1.0, 2)
        publish_manifest(model, dataclasses.replace(read_manifest(model), eps_statistics=statistics))
    with pytest.raises(RefusedError, match="about other weights or statistics"):
        decide(third)
    with pytest.raises(RefusedError, match="not the one that was promoted"):
        rollback("unclip", "champion", tracking_uri=tracking_uri)
    assert _champion(tracking_uri) == second


def test_damaged_weights_are_refused_going_forth_and_back(
    evaluated: Evaluated, decide: Any, tracking_uri: str
) -> None:
    first, second, third = (evaluated(name, r10) for name, r10 in (("a", 0.1), ("b", 0.5), ("c", 0.9)))
    decide(first)
    decide(second)
    for model in (first, third):
        Path(model, "model.safetensors").write_bytes(b"!")
    with pytest.raises(RefusedError, match=r"model\.safetensors"):
        decide(third)
    with pytest.raises(RefusedError, match=r"model\.safetensors"):
        rollback("unclip", "champion", tracking_uri=tracking_uri)
    assert _champion(tracking_uri) == second


def test_the_minimum_is_a_bound_below_or_for_kid_above(evaluated: Evaluated, decide: Any) -> None:
    model = evaluated("a", 0.3, kid=0.2)
    with pytest.raises(RefusedError, match=r"misses the policy's bound 0\.4"):
        decide(model, minimum=0.4)
    with pytest.raises(RefusedError, match=r"misses the policy's bound 0\.1"):
        decide(model, metric="judge.compositional.kid", minimum=0.1)
    assert decide(model, metric="judge.compositional.kid", minimum=0.25).version == 1


def test_a_lower_kid_beats_the_champion(evaluated: Evaluated, decide: Any, tracking_uri: str) -> None:
    first, worse, better = (
        evaluated(name, 0.3, kid=kid) for name, kid in (("a", 0.2), ("b", 0.3), ("c", 0.1))
    )
    decide(first, metric="judge.compositional.kid")
    with pytest.raises(RefusedError):
        decide(worse, metric="judge.compositional.kid")
    decide(better, metric="judge.compositional.kid")
    assert _champion(tracking_uri) == better


def test_other_questions_cannot_be_compared(evaluated: Evaluated, decide: Any) -> None:
    decide(evaluated("a", 0.1))
    other = evaluated("b", 0.9, questions="others")
    with pytest.raises(RefusedError, match="different questions"):
        decide(other)
    assert decide(other, must_beat_champion=False).version == 2


def test_promoting_the_champion_again_changes_nothing(
    evaluated: Evaluated, decide: Any, tracking_uri: str
) -> None:
    model = evaluated("a", 0.3)
    assert dataclasses.replace(decide(model), decided="").version == decide(model).version == 1
    assert _champion(tracking_uri) == model


def test_an_unknown_metric_lists_the_known(evaluated: Evaluated, decide: Any) -> None:
    with pytest.raises(InputError, match=r"judge\.compositional\.r10"):
        decide(evaluated("a", 0.3), metric="judge.r10")
