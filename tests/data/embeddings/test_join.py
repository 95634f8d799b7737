"""Embeddings joined with their shards, or trained on alone: by key, whatever the order and the gaps."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dalle2_train.data.config import DataConfig
from dalle2_train.data.embed.foreign import index_embeddings
from dalle2_train.data.embeddings.layout import EmbeddingManifest, load
from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.shards.index import load_or_index
from dalle2_train.data.shards.writer import write_shards
from dalle2_train.data.stream.batches import (
    BatchType,
    DecoderBatch,
    DecoderTokenBatch,
    PriorBatch,
    PriorTokenBatch,
    UpsamplerBatch,
)
from dalle2_train.data.stream.handouts import BatchMaker
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError, RefusedError

MakeSet = Callable[..., str]
Embed = Callable[..., EmbeddingManifest]
ClipRetrieval = Callable[..., str]
SIDE = 8
CONFIG = DataConfig(image_size=SIDE, num_lanes=4, block_size=5)


def tokenize(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 2) ids: the caption's number twice."""
    numbers = torch.tensor([int(caption.split()[-1]) for caption in captions])
    return numbers[:, None].expand(-1, 2), torch.ones(len(captions), 2, dtype=torch.bool)


def open_stream(uri: str, batch_type: BatchType, embeddings: str | None = None, **options: Any) -> Stream:
    options = {"config": CONFIG, "seed": 1, "global_batch_size": 8, "tokenize": tokenize, **options}
    return Stream(uri, options.pop("config"), batch_type=batch_type, embeddings=embeddings, **options)


def numbers_of(image: torch.Tensor) -> list[int]:
    """Which records the pictures (B, 3, H, W) are of."""
    return image[:, 2, 0, 0].tolist()


def epochs(stream: Stream, num_samples: int) -> Counter[int]:
    """Number → how often it comes in 40 epochs, whole ones for every lane; by the embedding's third dimension."""
    steps = islice(stream, 5 * num_samples)
    return Counter(int(number) for batch, _ in steps for number in batch.image_embed[:, 2].tolist())


def foreign(numbers: list[int], **columns: Any) -> dict[str, Any]:
    """A part as clip-retrieval writes it, of these records."""
    vectors = np.array([[n * 7 % 256, n * 13 % 256, n % 256, 1] for n in numbers], np.float16)
    keys = [f"{n // 10:05d}{n % 10:04d}" for n in numbers]
    return {"img_emb": vectors, "image_path": keys, "caption": [f"number {n}" for n in numbers], **columns}


def taken_up(uri: str) -> str:
    index_embeddings(uri, "c", "f", embed_dim=4)
    return uri


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_vectors_belong_to_their_pictures(make_set: MakeSet, embed: Embed, tmp_path: Path, dtype: str):
    uri, to = make_set(53, 7), str(tmp_path / "to")
    embed(uri, to, dtype=dtype, text_encodings=True)
    for batch, _ in islice(open_stream(uri, DecoderBatch, to), 10):
        numbers = numbers_of(batch.image)
        assert batch.image_embed.dtype == batch.text_encodings.dtype == torch.float32
        assert batch.image_embed[:, 2].tolist() == numbers
        assert batch.text_embed[:, 0].tolist() == numbers
        assert batch.text_encodings.shape == (8, 3, 4)
        assert batch.text_encodings[:, 2, 1].tolist() == numbers
        assert batch.text_mask.sum(1).tolist() == [1 + number % 3 for number in numbers]


def test_where_no_encodings_are_stored_tokens_come(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri, to = make_set(53, 7), str(tmp_path / "to")
    embed(uri, to)
    for batch, _ in islice(open_stream(uri, DecoderTokenBatch, to), 5):
        assert batch.token_ids[:, 0].tolist() == batch.image_embed[:, 2].tolist() == numbers_of(batch.image)
    for batch, _ in islice(open_stream(uri, PriorTokenBatch, to), 5):  # captions are the metadata's
        assert batch.token_ids[:, 0].tolist() == batch.image_embed[:, 2].tolist()
    with pytest.raises(InputError, match="embed with --text-encodings"):
        open_stream(uri, DecoderBatch, to)


def test_the_prior_needs_no_picture_and_no_shard(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri, to = make_set(53, 7), str(tmp_path / "to")
    embed(uri, to, text_encodings=True)
    beside = open_stream(uri, PriorBatch, to)
    pictures = open_stream(uri, UpsamplerBatch)
    for (ours, _), (images, _) in islice(zip(beside, pictures, strict=True), 5):
        assert ours.image_embed[:, 2].tolist() == numbers_of(images.image)
    assert epochs(open_stream(to, PriorBatch), 53) == {number: 40 for number in range(53)}
    assert epochs(open_stream(to, PriorTokenBatch), 53) == {number: 40 for number in range(53)}
    for file in Path(uri).glob("*.tar"):
        file.unlink()  # nothing is read of them
    assert len(list(islice(open_stream(uri, PriorTokenBatch, to), 10))) == 10


def test_splits_and_filters_are_the_metadatas(make_set: MakeSet, embed: Embed, tmp_path: Path):
    to = str(tmp_path / "to")
    embed(make_set(50, split=lambda number: "validation" if number % 3 == 0 else "train"), to)
    seen = epochs(open_stream(to, PriorTokenBatch), 33)
    assert seen == {number: 40 for number in range(50) if number % 3}
    short = DataConfig(num_lanes=4, block_size=5, filters=FilterConfig(max_caption_length=len("number 9")))
    assert set(epochs(open_stream(to, PriorTokenBatch, config=short), 6)) == {1, 2, 4, 5, 7, 8}


def test_samples_left_out_are_passed_over_with_the_pictures(
    make_set: MakeSet, embed: Embed, squares, tmp_path: Path
):
    uri, to = make_set(40), str(tmp_path / "to")

    def nan_for_17(images, captions):
        found = squares.encode(images, captions)
        broken = torch.tensor([caption == "number 17" for caption in captions])
        return found._replace(image_embed=found.image_embed.masked_fill(broken[:, None], float("nan")))

    embed(uri, to, nan_for_17)
    stream = open_stream(uri, DecoderTokenBatch, to)
    for batch, _ in islice(stream, 39):
        assert batch.image_embed[:, 2].tolist() == numbers_of(batch.image)
    assert epochs(open_stream(uri, DecoderTokenBatch, to), 39) == {n: 40 for n in range(40) if n != 17}


def test_sets_that_do_not_match_are_refused(
    make_set: MakeSet, embed: Embed, squares: SimpleNamespace, tmp_path: Path
):
    to = str(tmp_path / "to")
    embed(make_set(49, 7), to)
    turned = str(tmp_path / "turned")
    write_shards(reversed(list(squares.records(49))), turned, {"kind": "turned"}, samples_per_shard=7)
    others = {
        "has other shards than .*, none of 00007.tar": make_set(60, 7, name="longer"),
        "another 00006.tar": make_set(48, 7, name="shorter"),
        r"another 00000.tar .*keys are the same": turned,
    }
    for message, uri in others.items():
        with pytest.raises(InputError, match=message):
            open_stream(uri, DecoderTokenBatch, to)


def test_other_captions_than_those_embedded_are_not_ignored(make_set: MakeSet, embed: Embed, tmp_path: Path):
    uri, to = make_set(20), str(tmp_path / "to")
    embed(uri, to, text_encodings=True)
    config = DataConfig(image_size=SIDE, num_lanes=4, captions="json.caption")
    for data, batch_type in ((uri, DecoderBatch), (uri, PriorTokenBatch), (to, PriorTokenBatch)):
        with pytest.raises(InputError, match=r"data.captions is 'json.caption'"):
            open_stream(data, batch_type, to, config=config)
    assert next(iter(open_stream(uri, DecoderTokenBatch, to, config=config)))[0].token_ids.shape == (8, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": "random"},
        {"crop": "random", "min_crop_fraction": 0.5},
        {"flip": True},
        {"cache_folder": "/nowhere", "cache_gigabytes": 1},
    ],
)
def test_what_is_set_for_pictures_is_not_ignored_where_none_are_read(
    make_set: MakeSet, embed: Embed, settings: dict[str, Any]
):
    uri = make_set(20)
    embed(uri, uri)
    with pytest.raises(InputError, match=f"data.{next(iter(settings))} is .*reads no pictures"):
        open_stream(uri, PriorTokenBatch, config=DataConfig(num_lanes=4, **settings))


def test_captions_are_not_chosen_where_none_are_read(make_set: MakeSet):
    with pytest.raises(InputError, match=r"data.captions is 'json.caption', .*reads no captions"):
        open_stream(make_set(20), UpsamplerBatch, config=DataConfig(num_lanes=4, captions="json.caption"))


def test_pictures_are_not_looked_for_among_embeddings(make_set: MakeSet, embed: Embed, tmp_path: Path):
    embed(make_set(20), tmp_path / "to")
    with pytest.raises(InputError, match="holds embeddings and no pictures"):
        open_stream(str(tmp_path / "to"), DecoderTokenBatch)


def test_sets_without_vectors_are_refused(make_set: MakeSet):
    with pytest.raises(InputError, match="holds no embeddings"):
        open_stream(make_set(20), PriorBatch)


class TestForeign:
    """What clip-retrieval wrote."""

    def test_parts_of_another_cut_are_joined_by_key(self, make_set: MakeSet, clip_retrieval: ClipRetrieval):
        uri = make_set(53, 10)
        order = np.random.default_rng(0).permutation(53).tolist()
        theirs = taken_up(clip_retrieval([foreign(order[:20]), foreign(order[20:])]))
        for batch, _ in islice(open_stream(uri, DecoderTokenBatch, theirs), 20):
            numbers = numbers_of(batch.image)
            assert batch.image_embed[:, 2].tolist() == batch.token_ids[:, 0].tolist() == numbers
            assert batch.image_embed[:, 0].tolist() == [n * 7 % 256 for n in numbers]
        # The captions of the prior are the metadata's, whose rows are in their order.
        for batch, _ in islice(open_stream(uri, PriorTokenBatch, theirs), 20):
            assert batch.token_ids[:, 0].tolist() == batch.image_embed[:, 2].tolist()

    def test_missing_and_repeated_keys_and_nan_rows_are_passed_over_and_counted(
        self, make_set: MakeSet, clip_retrieval: ClipRetrieval
    ):
        uri = make_set(53, 10)
        part = foreign([*range(20), *range(25, 53), 7])
        part["img_emb"][11] = np.nan
        theirs = taken_up(clip_retrieval([part]))
        stream = open_stream(uri, DecoderTokenBatch, theirs)
        ledger = stream.ledger[""]
        assert ledger.faulty == {"no_embedding": 5, "duplicate": 1}
        assert ledger.expected == ledger.kept + sum(ledger.faulty.values())
        left = {n for n in range(53) if n not in (7, 11, *range(20, 25))}
        assert epochs(stream, len(left)).keys() == left

    def test_statistics_are_those_of_the_finite_rows(self, clip_retrieval: ClipRetrieval):
        part = foreign(list(range(30)), split=["train"] * 20 + ["validation"] * 10)
        part["img_emb"][4] = np.inf
        uri = taken_up(clip_retrieval([part]))
        used = np.delete(part["img_emb"][:20], 4, axis=0).astype(np.float64)
        np.testing.assert_allclose(load(uri).info.mean, used.mean(0), rtol=1e-12)
        assert load(uri).count() == {"train": 20, "validation": 10} and load(uri).info.num_vectors == 19
        assert load(uri).info.dtype == "fp16"

    def test_paths_are_keys_too(self, make_set: MakeSet, clip_retrieval: ClipRetrieval):
        part = foreign(list(range(20)))
        part["image_path"] = [f"/somewhere/{key}.jpg" for key in part["image_path"]]
        stream = open_stream(make_set(20), DecoderTokenBatch, taken_up(clip_retrieval([part])))
        batch, _ = next(iter(stream))
        assert batch.image_embed[:, 2].tolist() == numbers_of(batch.image)

    def test_without_keys_they_serve_alone_only(self, make_set: MakeSet, clip_retrieval: ClipRetrieval):
        part = foreign(list(range(40)))
        del part["image_path"]
        theirs = taken_up(clip_retrieval([part]))
        assert epochs(open_stream(theirs, PriorTokenBatch), 40) == {n: 40 for n in range(40)}
        with pytest.raises(
            InputError, match=r"wholly misaligned .*0-000000 and 0-000001 .*000000000 and 000000001"
        ):
            open_stream(make_set(40), DecoderTokenBatch, theirs)

    def test_without_captions_there_is_no_text(self, clip_retrieval: ClipRetrieval):
        part = foreign(list(range(40)))
        del part["caption"]
        theirs = taken_up(clip_retrieval([part]))
        with pytest.raises(InputError, match="no column 'caption'"):
            next(iter(open_stream(theirs, PriorTokenBatch)))

    def test_known_columns_have_laions_names(self, clip_retrieval: ClipRetrieval):
        part = foreign(list(range(40)), similarity=[n / 40 for n in range(40)], WIDTH=[64.0] * 40)
        theirs = taken_up(clip_retrieval([part]))
        filters = FilterConfig(min_similarity=0.5, min_width=64)
        config = DataConfig(num_lanes=4, block_size=5, filters=filters)
        assert epochs(open_stream(theirs, PriorTokenBatch, config=config), 20).keys() == set(range(20, 40))

    def test_what_cannot_be_the_clips_is_refused(
        self, make_set: MakeSet, embed: Embed, clip_retrieval, tmp_path: Path
    ):
        with pytest.raises(InputError, match=r"rows are \(4,\) of float16, not \(768,\)"):
            index_embeddings(clip_retrieval([foreign([1, 2])]), "c", "f", embed_dim=768)
        short = foreign([1, 2, 3])
        short["img_emb"] = short["img_emb"][:2]
        with pytest.raises(InputError, match="has 3 rows, but 2 embeddings"):
            taken_up(clip_retrieval([short], name="short"))
        with pytest.raises(InputError, match="holds no img_emb"):
            taken_up(make_set(3))
        embed(make_set(5, name="ours"), tmp_path / "to")
        with pytest.raises(InputError, match="made by `shards embed`"):
            taken_up(str(tmp_path / "to"))


def test_an_order_of_embeddings_alone_is_resumed(make_set: MakeSet, embed: Embed, tmp_path: Path):
    to = str(tmp_path / "to")
    embed(make_set(53, 7), to)
    whole = [batch.image_embed for batch, _ in islice(open_stream(to, PriorTokenBatch), 12)]
    stream = iter(open_stream(to, PriorTokenBatch))
    state = [next(stream)[1] for _ in range(5)][-1]
    again = [batch.image_embed for batch, _ in islice(open_stream(to, PriorTokenBatch, state=state), 7)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, whole[5:], strict=True))
    assert load_or_index(str(tmp_path / "set")).num_samples == 53


@pytest.mark.parametrize("batch_type", [PriorBatch, PriorTokenBatch])
@pytest.mark.parametrize(
    ("world_size", "block_size", "dtype"), [(1, 5, "fp32"), (2, 5, "fp16"), (4, 64, "bf16")]
)
def test_rows_gathered_together_are_the_samples_taken_one_by_one(
    make_set: MakeSet,
    embed: Embed,
    tmp_path: Path,
    monkeypatch,
    batch_type: BatchType,
    world_size: int,
    block_size: int,
    dtype: str,
):
    """With broken rows and empty captions among them, across epochs, and resumed wherever the other way stood."""
    to = str(tmp_path / "to")
    embed(make_set(53, 7), to, dtype=dtype, text_encodings=True)
    for part, row, value in ((0, 3, np.nan), (4, 0, np.inf), (4, 1, np.nan)):
        file = tmp_path / "to" / "img_emb" / f"img_emb_0000{part}.npy"
        vectors = np.load(file)
        vectors[row, 2] = 0x7FC0 if dtype == "bf16" else value
        np.save(file, vectors)
    file = tmp_path / "to" / "metadata" / "metadata_00002.parquet"
    table = pq.read_table(file)
    texts = [*table.column("caption").to_pylist()[:-1], " "]
    pq.write_table(table.set_column(0, "caption", pa.array(texts)), file)
    config = DataConfig(num_lanes=4, block_size=block_size)

    def run(steps: int, together: bool, rank: int, state=None):
        with monkeypatch.context() as patch:
            if not together:
                patch.setattr(BatchMaker, "_vectors_alone", lambda self: None)
            seen: list[Fault] = []
            stream = open_stream(to, batch_type, config=config, rank=rank, world_size=world_size, state=state,
                                 on_fault=seen.append)  # fmt: skip
            batches = list(islice(stream, steps))
            stream.close()
        return batches, seen

    for rank in range(world_size):
        (ours, our_faults), (theirs, their_faults) = run(20, True, rank), run(20, False, rank)
        for (a, state), (b, other) in zip(ours, theirs, strict=True):
            assert state == other
            assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))
        assert Counter((f.shard, f.key, f.kind) for f in our_faults) == Counter(
            (f.shard, f.key, f.kind) for f in their_faults
        )
        assert {f.kind for f in our_faults} >= {"broken_embedding"}
        again, _ = run(5, True, rank, state=theirs[6][1])
        assert all(torch.equal(a.index, b.index) for (a, _), (b, _) in zip(again, theirs[7:12], strict=True))
        assert all(torch.equal(a[1], b[1]) for (a, _), (b, _) in zip(again, theirs[7:12], strict=True))


def test_a_set_that_is_all_damage_ends_the_run(make_set: MakeSet, embed: Embed, tmp_path: Path):
    to = str(tmp_path / "to")
    embed(make_set(40), to)
    for file in (tmp_path / "to" / "img_emb").iterdir():
        np.save(file, np.full((10, 4), np.nan, np.float32))
    with pytest.raises(
        RefusedError, match=r"damaged samples in a row, the last of them 0000.* in metadata_0000"
    ):
        next(iter(open_stream(to, PriorTokenBatch)))
