import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dalle2_train import config as configs
from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.evaluation import (
    EvaluationConfig,
    EvaluationReport,
    Generated,
    ModelIdentity,
    evaluate,
    read_report,
    table,
    write_evaluation,
)
from dalle2_train.evaluation.evaluate import Evaluation
from dalle2_train.evaluation.references import blur

CONFIG = EvaluationConfig(image_size=16, num_queries=20, gallery_size=20, batch_size=8, scale=(2,))
MODEL = ModelIdentity("/models/a", "d" * 64, {"guidance": 2.0})
Generate = Callable[[list[str], int], Generated]


def _run(generate: Generate, eyes: Any, **changes: Any) -> Evaluation:
    config = dataclasses.replace(CONFIG, **changes)
    return evaluate(generate, "/data", config, MODEL, judge=eyes, clip=eyes)


def test_real_pictures_score_one_and_are_their_own_ceiling(perfect: Generate, eyes: Any) -> None:
    report = _run(perfect, eyes).report
    assert report.clip == report.judge
    for split, scores in report.judge.splits.items():
        ceiling = report.judge.ceiling[split]
        assert (scores.r1, scores.r10) == (ceiling.r1, ceiling.r10) == (1, 1)
        assert scores.kid == pytest.approx(ceiling.kid) if ceiling.kid is not None else split == "validation"


def test_wrong_pictures_score_far_below(perfect: Generate, eyes: Any, fake_data: dict[str, Any]) -> None:
    captions = [sample.caption for sample in fake_data["train"]]

    def shuffled(asked: list[str], seed: int) -> Generated:
        return perfect([captions[(sum(map(ord, caption)) * 7) % 40] for caption in asked], seed)

    scores = _run(shuffled, eyes).report.judge.splits["compositional"]
    assert scores.r1 is not None
    assert scores.r1 < 0.3


def test_noise_is_farther_than_real_pictures_and_blur_lies_between(perfect: Generate, eyes: Any) -> None:
    judge = _run(perfect, eyes).report.judge
    blurred, real, floor = (
        reading["compositional"] for reading in (judge.scale["2 px"], judge.ceiling, judge.floor)
    )
    assert floor.r1 == pytest.approx(1 / 20)
    assert floor.r1 < blurred.r1 <= real.r1  # type: ignore[operator]
    assert floor.kid > real.kid  # type: ignore[operator]


def test_captions_are_asked_once_in_batches_with_progress(perfect: Generate, eyes: Any) -> None:
    asked: list[list[str]] = []
    seeds: list[int] = []
    progress: list[tuple[str, int, int]] = []

    def generate(captions: list[str], seed: int) -> Generated:
        asked.append(captions)
        seeds.append(seed)
        return perfect(captions, seed)

    evaluate(generate, "/data", CONFIG, MODEL, judge=eyes, progress=lambda *event: progress.append(event))
    assert [len(batch) for batch in asked] == [8, 8, 4] * 3
    assert len({caption for batch in asked for caption in batch}) == 60
    assert len(set(seeds)) == 9
    assert ("generate train", 16, 20) in progress
    assert progress[-1][1] == progress[-1][2]


def test_the_same_seed_asks_for_the_same_pictures(perfect: Generate, eyes: Any) -> None:
    def seeds(seed: int) -> list[int]:
        found: list[int] = []
        _run(lambda captions, s: (found.append(s), perfect(captions, s))[1], eyes, seed=seed)
        return found

    assert seeds(1) == seeds(1) != seeds(2)


def test_a_small_split_is_the_users_to_mend(perfect: Generate, eyes: Any, fake_data: dict[str, Any]) -> None:
    fake_data["compositional"] = fake_data["compositional"][:1]
    with pytest.raises(InputError, match=r"compositional.*1 pictures"):
        _run(perfect, eyes)


def test_pictures_of_another_size_name_the_setting(fake_data: dict[str, Any], eyes: Any) -> None:
    with pytest.raises(InputError, match="image_size=32"):
        _run(lambda captions, seed: Generated(torch.zeros(len(captions), 3, 32, 32, dtype=torch.uint8)), eyes)


def test_config_errors_name_the_field() -> None:
    with pytest.raises(InputError, match="num_queries"):
        configs.build(EvaluationConfig, {"num_queries": 300, "gallery_size": 200}, "evaluation")


def test_the_report_survives_json_and_has_paths(perfect: Generate, eyes: Any, tmp_path: Any) -> None:
    evaluation = _run(perfect, eyes)
    write_evaluation(evaluation, storage.join(str(tmp_path), "evaluation"))
    found = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert (
        found["judge"]["compositional"]["r10"] == evaluation.report.metrics()["judge.compositional.r10"] == 1
    )
    assert found["judge"]["floor"]["train"]["r10"] == 0.5
    assert found["counts"] == {
        "queries.train": 20,
        "queries.validation": 20,
        "queries.compositional": 20,
        "gallery.train": 20,
        "gallery.validation": 20,
        "gallery.compositional": 20,
        "held_out": 20,
    }
    assert read_report(str(tmp_path)) == evaluation.report
    assert read_report(str(tmp_path / "elsewhere")) is None


def test_reports_of_one_eye_and_damaged_ones(perfect: Generate, eyes: Any, tmp_path: Any) -> None:
    report = evaluate(perfect, "/data", CONFIG, MODEL, judge=eyes).report
    assert report.clip is None
    assert EvaluationReport.from_json(report.to_json()) == report
    for damaged in (
        [],
        {"format_version": 1, "judge": {"train": 3}},
        {**report.to_json(), "format_version": 9},
    ):
        storage.publish_json(storage.join(str(tmp_path), "evaluation", "report.json"), damaged)
        with pytest.raises(InputError):
            read_report(str(tmp_path))


def test_the_page_is_whole_and_escapes_captions(perfect: Generate, eyes: Any, tmp_path: Any) -> None:
    write_evaluation(_run(perfect, eyes), str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 12 * 2
    assert page.count("&lt;&amp;&gt;</figcaption>") == 3 * 12
    assert "<&>" not in page
    assert 'src="http' not in page
    assert page.count("<table>") == 6


def test_the_table_shows_every_split_with_floor_and_ceiling(perfect: Generate, eyes: Any) -> None:
    text = table(_run(perfect, eyes).report)
    for words in (
        "judge, train (20 captions)",
        "clip, compositional",
        "floor: chance of 20",
        "ceiling: real",
        "±",
    ):
        assert words in text


def test_blur_keeps_flat_pictures_and_what_fits() -> None:
    flat = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(blur(flat, 2), flat)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8))
    assert torch.equal(blur(images, 16), images)
    assert blur(images, 4).float().std() < images.float().std()


def test_the_splits_that_are_there_are_asked_for(
    fake_data: dict[str, list], perfect: Generate, eyes: Any
) -> None:
    del fake_data["compositional"]
    assert set(_run(perfect, eyes).report.judge.splits) == {"train", "validation"}
    with pytest.raises(InputError, match="'compositional' has 0 pictures"):
        _run(perfect, eyes, splits=("compositional",))
    del fake_data["validation"]
    with pytest.raises(InputError, match=r"no split 'validation'.*with 20 captions"):
        _run(perfect, eyes)
