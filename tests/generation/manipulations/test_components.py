"""The probe's components against scikit-learn's, and its columns."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.components import (
    check_counts,
    fit_components,
    growing,
    probe,
)
from dalle2_train.generation.manipulations.drawing import Session, draw, keyed_noise
from dalle2_train.generation.manipulations.latents import Latents
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.unclip import Unclip

COUNTS = [1, 3, 8, 32]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(200, 32)) * np.linspace(2, 0.1, 32) @ generator.normal(size=(32, 32)) + 0.5


def test_rebuilding_is_scikit_learns_inverse_transform(vectors: np.ndarray) -> None:
    centred = vectors - vectors.mean(0)
    covariance = torch.from_numpy(centred.T @ centred / len(vectors))
    ours = fit_components(torch.from_numpy(vectors.mean(0)), covariance)
    rebuilt = ours.rebuild(torch.from_numpy(vectors[0]), COUNTS)
    for count, found in zip(COUNTS, rebuilt.numpy(), strict=True):
        theirs = PCA(count).fit(vectors)
        expected = theirs.inverse_transform(theirs.transform(vectors[:1]))[0]
        np.testing.assert_allclose(found, expected, atol=1e-8)
        assert ours.explained([count])[0] == pytest.approx(theirs.explained_variance_ratio_.sum())
    np.testing.assert_allclose(rebuilt[-1].numpy(), vectors[0], atol=1e-10)


def test_a_probe_ends_at_the_whole_embedding(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig, vectors: np.ndarray
) -> None:
    components = fit_components(torch.from_numpy(vectors.mean(0)), torch.from_numpy(np.cov(vectors.T)))
    sheet = probe(unclip, pictures[0], components, COUNTS, 2, fast, seed=4)
    assert sheet.columns == ["1 of 32", "3 of 32", "8 of 32", "32 of 32", "picture"]
    assert sheet.facts["cosine"][-1] == pytest.approx(1, abs=1e-5)
    session, index = Session(unclip, fast, 4, lambda: None), torch.arange(2)
    embed = unclip.clip.encode_image(pictures[0].for_clip[None]).expand(2, -1)
    whole = to_uint8(draw(session, Latents(embed, keyed_noise(session, index)), index).image)
    for row, expected in zip(sheet.rows.values(), whole, strict=True):
        assert (row[-2].int() - expected.int()).abs().max() <= 2
        assert torch.equal(row[-1], pictures[0].full)
        assert (row[0].int() - row[-2].int()).abs().max() > 20


def test_numbers_of_components() -> None:
    assert growing(192, 6) == [6, 12, 24, 48, 96, 192]
    assert growing(4, 6) == [1, 2, 4]
    with pytest.raises(InputError, match="33 components: the embedding has 32"):
        check_counts([33], 32)
