"""The prior's cosines against scikit-learn's, in the report and its two views."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from dalle2_train.evaluation import (
    EvaluationConfig,
    EvaluationReport,
    Generated,
    ModelIdentity,
    evaluate,
    table,
)
from dalle2_train.evaluation.cosines import prior_cosines
from dalle2_train.evaluation.html import render

CONFIG = EvaluationConfig(image_size=16, num_queries=12, gallery_size=20, batch_size=8, scale=())


def test_cosines_are_those_of_scikit_learn() -> None:
    predicted, real, text = np.random.default_rng(0).normal(0.3, 1.0, (3, 9, 5))
    found = prior_cosines(predicted, real, text)
    image, caption = cosine_similarity(predicted, real), cosine_similarity(predicted, text)
    among = cosine_similarity(real, real)
    assert found.image == pytest.approx(np.diagonal(image).mean(), abs=1e-12)
    assert found.text == pytest.approx(np.diagonal(caption).mean(), abs=1e-12)
    assert found.real_text == pytest.approx(np.diagonal(cosine_similarity(real, text)).mean(), abs=1e-12)
    assert found.floor == pytest.approx(among[~np.eye(9, dtype=bool)].mean(), abs=1e-12)
    assert found.image_error == pytest.approx(np.diagonal(image).std(ddof=1) / 3, abs=1e-12)


def test_a_prior_is_read_by_split_beside_the_real_embeddings(
    perfect: Callable[[list[str], int], Generated], eyes: Any
) -> None:
    """The "prior" gives each real picture's own features, but for the captions of `train` those of noise."""

    def generate(captions: list[str], seed: int) -> Generated:
        image = perfect(captions, seed).image
        embed = eyes.encode_image(image)
        if captions[0].startswith("train"):
            embed = torch.randn(embed.shape, generator=torch.Generator().manual_seed(0))
        return Generated(image, embed, 2.0 * eyes.encode_image(image))

    evaluation = evaluate(generate, "/data", CONFIG, ModelIdentity("m", "d"), judge=eyes, clip=eyes)
    report = evaluation.report
    assert report.prior is not None and set(report.prior) == {"train", "validation", "compositional"}
    held_out, noise = report.prior["validation"], report.prior["train"]
    assert held_out.image == pytest.approx(1) and held_out.text == pytest.approx(1)
    assert noise.image < 0.3 < held_out.floor < 1
    assert EvaluationReport.from_json(report.to_json()) == report
    assert report.metrics()["prior.train.image"] == noise.image
    assert f"{noise.image:.3f} ±" in table(report) and f"{noise.image:.3f} ±" in render(evaluation)


def test_without_embeddings_or_without_a_clip_there_are_no_cosines(
    perfect: Callable[[list[str], int], Generated], eyes: Any
) -> None:
    for clip in (eyes, None):
        evaluation = evaluate(perfect, "/data", CONFIG, ModelIdentity("m", "d"), judge=eyes, clip=clip)
        assert evaluation.report.prior is None
        assert "cosines" not in table(evaluation.report) and "cosines" not in render(evaluation)
