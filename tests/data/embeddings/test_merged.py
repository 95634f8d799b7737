"""Mixtures of embedded sets: statistics of all vectors together, by one CLIP."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dalle2_train.data.config import DataConfig
from dalle2_train.data.embeddings.layout import EmbeddingManifest
from dalle2_train.data.stream.batches import DecoderBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.data.stream.summary import summarize, summarize_embeddings
from dalle2_train.errors import InputError

MakeSet = Callable[..., str]
Embed = Callable[..., EmbeddingManifest]


@pytest.fixture
def mixture(make_set: MakeSet, embed: Embed, tmp_path: Path) -> str:
    """23 samples with embeddings beside them, and the first 11 of these again with embeddings elsewhere."""
    long, short = make_set(23, 7, name="long"), make_set(11, 4, name="short")
    embed(long, long, text_encodings=True)
    embed(short, tmp_path / "vectors", text_encodings=True)
    (tmp_path / "mixture.yaml").write_text(
        "sources: [{name: long, uri: long, weight: 1},"
        " {name: short, uri: short, embeddings: vectors, weight: 1}]"
    )
    return str(tmp_path / "mixture.yaml")


def vectors(count: int) -> np.ndarray:
    """(N, 4) what the stand-in for CLIP makes of the first pictures."""
    colours = np.array([[n * 7 % 256, n * 13 % 256, n % 256] for n in range(count)], np.float64)
    return np.concatenate([colours, colours.sum(1, keepdims=True)], 1)


def test_statistics_are_those_of_all_vectors(mixture: str):
    found = summarize_embeddings(mixture, None)
    every = np.concatenate([vectors(23), vectors(11)])
    np.testing.assert_allclose(found.info.mean, every.mean(0))
    np.testing.assert_allclose(found.info.std, every.std(0))
    np.testing.assert_allclose(found.info.norm, np.linalg.norm(every, axis=1).mean())
    np.testing.assert_allclose(found.covariance(), np.cov(every.T, bias=True), atol=1e-9)
    assert found.has_text_encodings


def test_one_set_tells_its_own(mixture: str, tmp_path: Path):
    found = summarize_embeddings(str(tmp_path / "short"), str(tmp_path / "vectors"))
    np.testing.assert_allclose(found.covariance(), np.cov(vectors(11).T, bias=True), atol=1e-9)
    np.testing.assert_allclose(found.info.mean, vectors(11).mean(0))


def test_a_stream_of_both_pairs_pictures_with_their_vectors(mixture: str):
    assert summarize(mixture).has_pictures
    config = DataConfig(image_size=8, num_lanes=4, block_size=5)
    stream = Stream(mixture, config, seed=0, global_batch_size=8, batch_type=DecoderBatch)
    seen: Counter[int] = Counter()
    for batch, _ in islice(stream, 20):
        assert isinstance(batch, DecoderBatch)
        numbers = batch.image[:, 2, 0, 0].tolist()
        assert batch.image_embed[:, 2].tolist() == numbers == batch.text_embed[:, 0].tolist()
        seen.update(numbers)
    assert set(seen) == set(range(23))
    assert sum(seen[number] for number in range(11)) > 1.5 * sum(seen[number] for number in range(11, 23))


def test_sets_by_several_clips_are_no_mixture(mixture: str, embed: Embed, tmp_path: Path):
    embed(str(tmp_path / "short"), tmp_path / "others", fingerprint="g")
    file = Path(mixture)
    file.write_text(file.read_text().replace("vectors", "others"))
    with pytest.raises(InputError, match="by one CLIP"):
        summarize_embeddings(mixture, None)


def test_embeddings_of_a_mixture_are_named_in_it(mixture: str):
    with pytest.raises(InputError, match="name the embeddings of each source"):
        summarize_embeddings(mixture, "vectors")
