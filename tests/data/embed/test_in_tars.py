"""Embeddings that lie in the tars: taken out once, into the columns that `shards embed` would have written."""

import io
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset.writer import TarWriter

from dalle2_train.data.config import DataConfig
from dalle2_train.data.embed.embed import unpack_shards
from dalle2_train.data.shards.index import index
from dalle2_train.data.stream.batches import DecoderBatch, DecoderTokenBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError, RefusedError

MakeSet = Callable[..., str]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def put_into_tars(
    uri: str, squares: SimpleNamespace, encodings: bool = True, **replaced: dict[int, bytes | None]
) -> None:
    """Gives every sample its vectors as members; `replaced`: member (without .npy) → number → other bytes, or none."""
    for tar in sorted(Path(uri).glob("*.tar")):
        samples = squares.read(tar)
        with tar.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
            for sample in samples:
                number = int(sample["txt"].decode().split()[-1])
                found = squares.encode(
                    torch.from_numpy(_square(sample["png"]))[None], [sample["txt"].decode()]
                )
                names = found._fields if encodings else found._fields[:2]
                members = {f"{name}.npy": npy(getattr(found, name)[0].numpy()) for name in names}
                for name, others in replaced.items():
                    if number in others:
                        members[f"{name}.npy"] = others[number]
                kept = {name: data for name, data in members.items() if data is not None}
                writer.write(
                    {"__key__": sample["__key__"], "png": sample["png"], "txt": sample["txt"], **kept}
                )
    index(uri)


def _square(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()


@pytest.mark.parametrize("encodings", [True, False])
def test_they_become_the_columns_that_embedding_writes(
    make_set: MakeSet, embed, squares, tmp_path: Path, encodings: bool
):
    uri = make_set(25)
    put_into_tars(uri, squares, encodings)
    ours = unpack_shards(uri, "c", "f", embed_dim=4)
    theirs = embed(uri, tmp_path / "to", text_encodings=encodings)
    assert ours == theirs
    for column in ("img_emb", "text_emb", *(("text_encodings", "text_mask") if encodings else ())):
        for number in range(3):
            name = f"{column}/{column}_0000{number}.npy"
            assert (Path(uri) / name).read_bytes() == (tmp_path / "to" / name).read_bytes()
    batch_type = DecoderBatch if encodings else DecoderTokenBatch
    stream = Stream(uri, DataConfig(image_size=8, num_lanes=4), seed=0, global_batch_size=8, batch_type=batch_type,
                    tokenize=lambda texts: (torch.zeros(len(texts), 2), torch.ones(len(texts), 2)))  # fmt: skip
    for batch, _ in islice(stream, 6):
        assert batch.image_embed[:, 2].tolist() == batch.image[:, 2, 0, 0].tolist()


def test_samples_without_a_whole_vector_are_left_out(make_set: MakeSet, squares: SimpleNamespace):
    uri = make_set(50)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    put_into_tars(
        uri,
        squares,
        image_embed={
            7: npy(np.full(4, np.nan, np.float32)),
            23: npy(np.zeros(3, np.float32)),
            24: pickled.getvalue(),
        },
        text_embed={31: None},
    )
    manifest = unpack_shards(uri, "c", "f", embed_dim=4)
    assert [(part.num_samples, part.num_faulty) for part in manifest.parts] == [
        (9, 1),
        (10, 0),
        (8, 2),
        (9, 1),
        (10, 0),
    ]


def test_too_many_broken_vectors_are_refused(make_set: MakeSet, squares: SimpleNamespace):
    uri = make_set(20)
    put_into_tars(uri, squares, image_embed={number: npy(np.zeros(3, np.float32)) for number in (4, 5, 6)})
    with pytest.raises(RefusedError, match=r"3 of 20 samples .* the 10% allowed; .*repair the shards$"):
        unpack_shards(uri, "c", "f", embed_dim=4)
    assert not (Path(uri) / "embeddings.json").exists()


def test_tars_without_them_are_refused(make_set: MakeSet, squares: SimpleNamespace):
    uri = make_set(10)
    with pytest.raises(InputError, match=r"hold no image_embed.npy and text_embed.npy"):
        unpack_shards(uri, "c", "f", embed_dim=4)
    put_into_tars(uri, squares)
    with pytest.raises(InputError, match=r"embeddings are \(4,\) of float32, the CLIP's \(768,\)"):
        unpack_shards(uri, "c", "f", embed_dim=768)
    with tarfile.open(Path(uri) / "00000.tar") as tar:
        assert "000000000.image_embed.npy" in tar.getnames()
