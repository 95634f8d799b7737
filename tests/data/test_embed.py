"""Embedding: the same names and keys, statistics as NumPy's, and resumption shard by shard."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dalle2_train.data.decode import decode_array
from dalle2_train.data.embed import embed_shards
from dalle2_train.data.embedded import read_covariance
from dalle2_train.data.index import index, open_set
from dalle2_train.data.manifest import ShardManifest, load
from dalle2_train.errors import InputError, RefusedError

MakeSet = Callable[..., str]


@pytest.fixture
def embed(squares: SimpleNamespace) -> Callable[..., ShardManifest]:
    def run(uri: str, to: Path | str, encode=squares.encode, fingerprint: str = "f") -> ShardManifest:
        told = {"clip_uri": "c", "clip_fingerprint": fingerprint, "image_size": squares.SIDE, "batch_size": 4}
        return embed_shards(uri, str(to), encode, **told)

    return run


def test_names_keys_and_statistics(make_set: MakeSet, embed, squares: SimpleNamespace, tmp_path: Path):
    uri = make_set(25, split=lambda number: "validation" if number % 4 == 0 else "train")
    manifest = embed(uri, tmp_path / "to")
    assert manifest == load(str(tmp_path / "to"))
    ours, theirs = open_set(str(tmp_path / "to")), open_set(uri)
    assert [shard.path for shard in manifest.shards] == [shard.path for shard in load(uri).shards]
    assert [(ours.index(i).keys, ours.index(i).splits) for i in range(len(ours))] == [
        (theirs.index(i).keys, theirs.index(i).splits) for i in range(len(theirs))
    ]
    theirs = [sample for shard in manifest.shards for sample in squares.read(tmp_path / "to" / shard.path)]
    vectors = np.stack([decode_array(sample["image_embed.npy"]) for sample in theirs])
    trained = vectors[np.arange(25) % 4 != 0].astype(np.float64)
    info = manifest.embeddings
    assert info is not None
    np.testing.assert_allclose(info.mean, trained.mean(0), rtol=1e-12)
    np.testing.assert_allclose(info.std, trained.std(0), rtol=1e-12)
    covariance = read_covariance(str(tmp_path / "to"), info)
    np.testing.assert_allclose(covariance, np.cov(trained.T, bias=True), rtol=1e-12, atol=1e-15)
    assert info.norm == pytest.approx(np.linalg.norm(trained, axis=1).mean())
    assert (info.embed_dim, info.clip_fingerprint) == (4, "f")


def test_it_goes_on_shard_by_shard(make_set: MakeSet, embed, squares: SimpleNamespace, tmp_path: Path):
    uri, calls = make_set(30), [0]
    whole = embed(uri, tmp_path / "whole")

    def dying(images, captions):
        calls[0] += 1
        if calls[0] == 5:  # in the second shard of three
            raise KeyboardInterrupt
        return squares.encode(images, captions)

    with pytest.raises(KeyboardInterrupt):
        embed(uri, tmp_path / "to", dying)
    assert not (tmp_path / "to" / "manifest.json").exists()
    calls[0] = 10
    assert embed(uri, tmp_path / "to", dying) == whole
    assert calls[0] == 10 + 6
    assert embed(uri, tmp_path / "to", dying) == whole
    assert calls[0] == 10 + 6


def test_indexing_again_keeps_whose_embeddings_they_are(make_set: MakeSet, embed, tmp_path: Path):
    uri, to = make_set(30), str(tmp_path / "to")
    made = embed(uri, to)
    assert index(to) == load(to) == made


def test_a_set_is_not_whole_while_it_is_embedded_anew(make_set: MakeSet, embed, squares, tmp_path: Path):
    uri = make_set(30)
    embed(uri, tmp_path / "to")
    (tmp_path / "to" / "00001.tar").write_bytes(b"spoilt")

    def dying(images, captions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(uri, tmp_path / "to", dying)
    assert not (tmp_path / "to" / "manifest.json").exists()


def test_a_shard_that_was_spoilt_is_made_again(make_set: MakeSet, embed, tmp_path: Path):
    uri = make_set(30)
    whole = embed(uri, tmp_path / "to")
    (tmp_path / "to" / "00001.tar").write_bytes(b"spoilt")
    assert embed(uri, tmp_path / "to") == whole


def test_a_covariance_that_was_spoilt_is_refused_and_made_again(make_set: MakeSet, embed, tmp_path: Path):
    uri, to = make_set(30), str(tmp_path / "to")
    made = embed(uri, to)
    assert made.embeddings is not None
    whole = read_covariance(to, made.embeddings)
    (tmp_path / "to" / "covariance.npy").write_bytes(b"spoilt")
    with pytest.raises(RefusedError, match=r"covariance.npy: damaged"):
        read_covariance(to, made.embeddings)
    assert embed(uri, to) == made
    np.testing.assert_array_equal(read_covariance(to, made.embeddings), whole)
    (tmp_path / "to" / "covariance.npy").unlink()
    with pytest.raises(InputError, match=r"has no covariance.npy; run `shards embed` again"):
        read_covariance(to, made.embeddings)


def test_places_of_others_are_refused(make_set: MakeSet, embed, tmp_path: Path):
    uri = make_set(10)
    with pytest.raises(InputError, match="folder of their own"):
        embed(uri, uri)
    with pytest.raises(InputError, match="without embeddings"):
        embed(uri, make_set(10, name="pictures"))
    embed(uri, tmp_path / "to")
    with pytest.raises(InputError, match="not of g"):
        embed(uri, tmp_path / "to", fingerprint="g")
    with pytest.raises(InputError, match="embeddings of other shards"):
        embed(make_set(9, name="others"), tmp_path / "to")
    embed(make_set(25, name="grown"), tmp_path / "to")


def test_a_damaged_source_is_named(make_set: MakeSet, embed, tmp_path: Path):
    uri = make_set(10)
    tar = Path(uri) / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"number 7")] ^= 1
    tar.write_bytes(data)
    with pytest.raises(InputError, match="000000007"):
        embed(uri, tmp_path / "to")
    assert list((tmp_path / "to").glob("*.tar")) == []


def test_numbers_that_are_not_finite_are_refused(make_set: MakeSet, embed, squares, tmp_path: Path):
    def broken(images, captions):
        found = squares.encode(images, captions)
        return found._replace(image_embed=found.image_embed * float("nan"))

    with pytest.raises(InputError, match="not finite"):
        embed(make_set(10), tmp_path / "to", broken)
