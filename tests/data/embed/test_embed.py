"""Embedding: files as NumPy reads them, statistics as NumPy's, and resumption shard by shard."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from folders import contents

from dalle2_train.data.embed.encoding import Embedded
from dalle2_train.data.embeddings.layout import EmbeddingManifest, load, read_covariance
from dalle2_train.errors import InputError, RefusedError

MakeSet = Callable[..., str]
Embed = Callable[..., EmbeddingManifest]


def odd_numbers(images: torch.Tensor, captions: list[str]) -> Embedded:
    """(B, 5) that no half precision holds exactly, of the caption's number."""
    numbers = torch.tensor([float(caption.split()[-1]) for caption in captions])[:, None]
    image_embed = torch.sin(numbers * torch.arange(1, 6)) * 9
    return Embedded(
        image_embed, image_embed.cos(), image_embed[:, None].expand(-1, 3, -1), torch.ones(len(numbers), 3)
    )


def test_files_keys_and_statistics(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(25, split=lambda number: "validation" if number % 4 == 0 else "train")
    manifest = embed(uri, tmp_path / "to")
    assert manifest == load(str(tmp_path / "to"))
    assert [part.name for part in manifest.parts] == ["00000", "00001", "00002"]
    tables = [
        pq.read_table(tmp_path / "to" / "metadata" / f"metadata_{part.name}.parquet")
        for part in manifest.parts
    ]
    told = [row for table in tables for row in table.to_pylist()]
    assert [row["key"] for row in told] == [f"{n // 10:05d}{n % 10:04d}" for n in range(25)]
    assert [row["caption"] for row in told] == [f"number {n}" for n in range(25)]
    assert [row["split"] for row in told] == ["train" if n % 4 else "validation" for n in range(25)]
    assert {row["width"] for row in told} == {8}
    files = [tmp_path / "to" / "img_emb" / f"img_emb_{part.name}.npy" for part in manifest.parts]
    vectors = np.concatenate([np.load(file) for file in files])
    assert vectors[:, 2].tolist() == list(range(25))
    trained = vectors[np.arange(25) % 4 != 0].astype(np.float64)
    np.testing.assert_allclose(manifest.info.mean, trained.mean(0), rtol=1e-12)
    np.testing.assert_allclose(manifest.info.std, trained.std(0), rtol=1e-12)
    covariance = read_covariance(str(tmp_path / "to"), manifest.info)
    np.testing.assert_allclose(covariance, np.cov(trained.T, bias=True), rtol=1e-12, atol=1e-15)
    assert manifest.info.norm == pytest.approx(np.linalg.norm(trained, axis=1).mean())
    assert manifest.count() == {"train": 18, "validation": 7}


@pytest.mark.parametrize(
    ("dtype", "theirs"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_what_is_kept_is_what_was_computed_to_the_dtypes_step(
    make_set: MakeSet, embed: Embed, tmp_path: Path, dtype: str, theirs: torch.dtype
):
    embed(make_set(12, 100), tmp_path / "to", odd_numbers, dtype=dtype, text_encodings=True)
    online = odd_numbers(torch.zeros(12, 3, 8, 8), [f"number {n}" for n in range(12)])
    half = torch.float16 if theirs == torch.float32 else theirs
    for column, values, kept in (
        ("img_emb", online.image_embed, theirs),
        ("text_emb", online.text_embed, theirs),
        ("text_encodings", online.text_encodings, half),
    ):
        ours = np.load(tmp_path / "to" / column / f"{column}_00000.npy")
        assert values is not None
        expected = values.to(kept)
        bits = (
            expected.view(torch.int16).numpy().view(np.uint16) if kept == torch.bfloat16 else expected.numpy()
        )
        np.testing.assert_array_equal(ours, bits)
    assert load(str(tmp_path / "to")).info.dtype == dtype
    # The statistics are those of what is stored.
    stored = online.image_embed.to(theirs).double().numpy()
    np.testing.assert_allclose(load(str(tmp_path / "to")).info.mean, stored.mean(0), rtol=1e-12)


def test_it_goes_on_shard_by_shard(make_set: MakeSet, embed: Embed, squares: SimpleNamespace, tmp_path: Path):
    uri, calls = make_set(30), [0]
    whole = embed(uri, tmp_path / "whole")

    def dying(images, captions):
        calls[0] += 1
        if calls[0] == 5:  # in the second shard of three
            raise KeyboardInterrupt
        return squares.encode(images, captions)

    with pytest.raises(KeyboardInterrupt):
        embed(uri, tmp_path / "to", dying)
    assert not (tmp_path / "to" / "embeddings.json").exists()
    calls[0] = 10
    assert embed(uri, tmp_path / "to", dying) == whole
    assert calls[0] == 10 + 6
    assert embed(uri, tmp_path / "to", dying) == whole
    assert calls[0] == 10 + 6
    assert contents(tmp_path / "to") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "spoilt", ["img_emb/img_emb_00001.npy", "metadata/metadata_00001.parquet", "parts/part_00001.json"]
)
def test_a_part_that_was_spoilt_is_made_again(make_set: MakeSet, embed: Embed, tmp_path: Path, spoilt: str):
    uri = make_set(30)
    embed(uri, tmp_path / "to")
    whole = contents(tmp_path / "to")
    (tmp_path / "to" / spoilt).unlink()
    embed(uri, tmp_path / "to")
    assert contents(tmp_path / "to") == whole


def test_a_set_is_not_whole_while_it_is_embedded_anew(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(30)
    embed(uri, tmp_path / "to")
    (tmp_path / "to" / "text_emb" / "text_emb_00001.npy").write_bytes(b"spoilt")

    def dying(images, captions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(uri, tmp_path / "to", dying)
    assert not (tmp_path / "to" / "embeddings.json").exists()


def test_what_a_killed_run_was_writing_is_swept(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(10)
    embed(uri, tmp_path / "to")
    whole = contents(tmp_path / "to")
    (tmp_path / "to" / ".partial-staging").mkdir()
    (tmp_path / "to" / ".partial-staging" / "img_emb").write_bytes(b"half")
    (tmp_path / "to" / "img_emb" / ".partial-0123-img_emb_00000.npy").write_bytes(b"half")
    embed(uri, tmp_path / "to")
    assert contents(tmp_path / "to") == whole


def test_what_a_worker_was_writing_that_was_killed_meanwhile_is_swept(
    make_set: MakeSet, embed: Embed, squares: SimpleNamespace, tmp_path: Path
):
    uri = make_set(10)
    embed(uri, tmp_path / "whole")

    def encode(images, captions):
        for left in (".partial-staging/img_emb", "img_emb/.partial-0123-img_emb_00000.npy"):
            (tmp_path / "to" / left).parent.mkdir(exist_ok=True)
            (tmp_path / "to" / left).write_bytes(b"half")
        return squares.encode(images, captions)

    embed(uri, tmp_path / "to", encode)
    assert contents(tmp_path / "to") == contents(tmp_path / "whole")


def test_another_dtype_is_another_set_of_files(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(10)
    embed(uri, tmp_path / "to", dtype="fp16")
    embed(uri, tmp_path / "to", dtype="fp32")
    assert np.load(tmp_path / "to" / "img_emb" / "img_emb_00000.npy").dtype == np.float32


def test_embeddings_may_lie_beside_their_shards(make_set: MakeSet, embed: Embed):
    uri = make_set(10)
    assert embed(uri, uri).num_samples == 10


def test_a_covariance_that_was_spoilt_is_refused_and_made_again(
    make_set: MakeSet, embed: Embed, tmp_path: Path
):
    uri, to = make_set(30), str(tmp_path / "to")
    made = embed(uri, to)
    whole = read_covariance(to, made.info)
    (tmp_path / "to" / "covariance.npy").write_bytes(b"spoilt")
    with pytest.raises(RefusedError, match=r"covariance.npy: damaged"):
        read_covariance(to, made.info)
    assert embed(uri, to) == made
    np.testing.assert_array_equal(read_covariance(to, made.info), whole)
    (tmp_path / "to" / "covariance.npy").unlink()
    with pytest.raises(InputError, match=r"has no covariance.npy; run `shards embed` again"):
        read_covariance(to, made.info)


def test_places_of_others_are_refused(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(10)
    with pytest.raises(InputError, match="not those to be embedded"):
        embed(uri, make_set(10, name="pictures"))
    embed(uri, tmp_path / "to")
    with pytest.raises(InputError, match="of the CLIP f, not of g"):
        embed(uri, tmp_path / "to", fingerprint="g")
    with pytest.raises(InputError, match="embeddings of other shards"):
        embed(make_set(9, name="others"), tmp_path / "to")
    embed(make_set(25, name="grown"), tmp_path / "to")
    with pytest.raises(InputError, match="--dtype fp8"):
        embed(uri, tmp_path / "to", dtype="fp8")


def test_shards_of_one_name_have_a_part_each(make_set: MakeSet, embed: Embed, tmp_path: Path):
    make_set(10, name="pair/a")
    make_set(7, name="pair/b")
    manifest = embed(str(tmp_path / "pair" / "*" / "*.tar"), tmp_path / "to")
    assert [part.num_samples for part in manifest.parts] == [10, 7]
    assert len({part.name for part in manifest.parts}) == 2


def test_faulty_samples_are_left_out_and_named(make_set: MakeSet, embed: Embed, squares, tmp_path: Path):
    uri = make_set(30)
    tar = Path(uri) / "00001.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"number 17")] ^= 1
    tar.write_bytes(data)

    def nan_for_25(images, captions):
        found = squares.encode(images, captions)
        broken = torch.tensor([caption == "number 25" for caption in captions])
        return found._replace(text_embed=found.text_embed.masked_fill(broken[:, None], float("nan")))

    manifest = embed(uri, tmp_path / "to", nan_for_25)
    assert [(part.num_samples, part.num_faulty) for part in manifest.parts] == [(10, 0), (9, 1), (9, 1)]
    left = [np.load(tmp_path / "to" / "img_emb" / f"img_emb_0000{n}.npy")[:, 2] for n in range(3)]
    assert np.concatenate(left).tolist() == [n for n in range(30) if n not in (17, 25)]
    lines = [json.loads(file.read_text()) for file in sorted((tmp_path / "to" / "faults").iterdir())]
    named = [(fault["shard"], fault["key"], fault["kind"]) for fault in lines]
    assert named == [("00001.tar", "000010007", "damaged"), ("00002.tar", "000020005", "broken_embedding")]
    with pytest.raises(
        RefusedError, match=r"2 of 30 samples cannot be embedded, more than the 5% allowed; .*00001"
    ):
        embed(uri, tmp_path / "strict", nan_for_25, max_faulty=0.05)
    assert not (tmp_path / "strict" / "embeddings.json").exists()


def test_numbers_beyond_half_precision_are_faults(make_set: MakeSet, embed: Embed, squares, tmp_path: Path):
    def large(images, captions):
        found = squares.encode(images, captions)
        return found._replace(image_embed=found.image_embed + 66_000 * (found.text_embed == 3))

    assert embed(make_set(20), tmp_path / "fp16", large, dtype="fp16").num_samples == 19
    assert embed(make_set(20, name="again"), tmp_path / "bf16", large, dtype="bf16").num_samples == 20


def test_a_shard_without_a_whole_sample_has_an_empty_part(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri = make_set(20)
    tar = Path(uri) / "00001.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    manifest = embed(uri, tmp_path / "to", max_faulty=0.5)
    assert [part.num_samples for part in manifest.parts] == [10, 0]


def test_pictures_are_decoded_at_the_clips_size(make_set: MakeSet, embed: Embed, squares, tmp_path: Path):
    seen = []

    def spy(images, captions):
        seen.append(images)
        return squares.encode(images, captions)

    embed(make_set(4), tmp_path / "to", spy, image_size=2 * squares.SIDE)
    assert seen[0].shape == (4, 3, 16, 16) and seen[0].dtype == torch.uint8
    assert seen[0].flatten(2)[:, :, 0].tolist() == [[n * 7, n * 13, n] for n in range(4)]
