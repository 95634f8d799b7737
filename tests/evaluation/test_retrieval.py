import numpy as np
import pytest

from dalle2_train.evaluation.retrieval import binomial, chance, hits, recall_at, similarities


def _features(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)


def _naive_recall(queries: np.ndarray, gallery: np.ndarray, k: int) -> float:
    centre = gallery.mean(0)
    found = 0
    for i, query in enumerate(queries):
        cosines = [
            np.dot(query - centre, g - centre) / np.linalg.norm(query - centre) / np.linalg.norm(g - centre)
            for g in gallery
        ]
        found += i in np.argsort(cosines)[::-1][:k]
    return found / len(queries)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_recall_equals_a_naive_search(k: int) -> None:
    gallery = _features(40) + 5  # far from the origin, so that forgetting to centre shows
    queries = gallery + 1.5 * _features(40, seed=1)
    ours = recall_at(similarities(queries, gallery), np.arange(40), k).value
    assert ours == pytest.approx(_naive_recall(queries, gallery, k))
    assert 0.1 < ours < 1


def test_the_same_pictures_score_one() -> None:
    gallery = _features(50)
    assert recall_at(similarities(gallery, gallery), np.arange(50), 1).value == 1


def test_permuted_pictures_score_nothing_at_one_and_chance_at_ten() -> None:
    gallery = _features(200)
    derangement = np.roll(np.arange(200), 1)
    similarity = similarities(gallery, gallery)
    assert recall_at(similarity, derangement, 1).value == 0
    means = [recall_at(similarity, np.random.default_rng(s).permutation(200), 10).value for s in range(50)]
    assert np.mean(means) == pytest.approx(chance(200, 200, 10).value, abs=0.01)


@pytest.mark.parametrize("picture", [np.zeros(16), np.ones(16), _features(1, seed=3)[0]])
def test_one_picture_for_every_caption_scores_chance(picture: np.ndarray) -> None:
    gallery = _features(200)
    similarity = similarities(np.tile(picture.astype(np.float32), (200, 1)), gallery)
    assert recall_at(similarity, np.arange(200), 10).value == pytest.approx(10 / 200)


def test_equal_gallery_pictures_share_their_places() -> None:
    similarity = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])
    right = np.array([2])
    assert [float(hits(similarity, right, k)[0]) for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_the_standard_error_is_the_binomial_one_and_never_zero() -> None:
    draws = np.random.default_rng(0).binomial(200, 0.4, size=20_000) / 200
    assert binomial(80, 200).error == pytest.approx(draws.std(), rel=0.02)
    assert binomial(200, 200).error > 0.005
    assert binomial(200, 200).value == 1
