"""Small shard sets of coloured squares, embedded sets of them, and folders as clip-retrieval writes them."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from dalle2_train.data.embed.embed import embed_shards
from dalle2_train.data.embed.encoding import EmbedConfig, Embedded
from dalle2_train.data.embeddings.layout import EmbeddingManifest
from dalle2_train.data.shards.writer import Record, write_shards

SIDE = 8


def colour(number: int) -> tuple[int, int, int]:
    return (number * 7 % 256, number * 13 % 256, number % 256)


def coloured_records(count: int, split: Callable[[int], str] = lambda number: "train") -> Iterator[Record]:
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), colour(number)).save(stream, "PNG")
        fields = {"split": split(number), "number": number}
        yield Record(stream.getvalue(), "png", f"number {number}", fields, SIDE, SIDE)


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., str]:
    """make_set(count, samples_per_shard=…, split=…) → URI."""

    def make(count: int, samples_per_shard: int = 10, split=lambda number: "train", name: str = "set") -> str:
        uri = str(tmp_path / name)
        write_shards(coloured_records(count, split), uri, {"kind": name}, samples_per_shard=samples_per_shard)
        return uri

    return make


def encode(images: torch.Tensor, captions: list[str]) -> Embedded:
    """A stand-in for CLIP: (B, 4) of the mean colour, and of the caption's number."""
    means = images.float().mean((2, 3))  # (B, 3)
    image_embed = torch.cat([means, means.sum(1, keepdim=True)], 1)
    numbers = torch.tensor([float(caption.split()[-1]) for caption in captions])
    text_embed = numbers[:, None].expand(-1, 4)
    mask = torch.arange(3)[None] < torch.tensor([[1 + int(n) % 3] for n in numbers])
    return Embedded(image_embed, text_embed, text_embed[:, None].expand(-1, 3, -1), mask)


def read_with_webdataset(tar: Path) -> list[dict[str, Any]]:
    """The samples as webdataset sees them; its own opener leaves files open, so that it is handed ours."""
    with tar.open("rb") as stream:
        return list(group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}])))


@pytest.fixture
def squares() -> SimpleNamespace:
    """The helpers above, for tests that make sets of their own."""
    return SimpleNamespace(SIDE=SIDE, records=coloured_records, encode=encode, read=read_with_webdataset)


@pytest.fixture
def embed(squares: SimpleNamespace) -> Callable[..., EmbeddingManifest]:
    """embed(uri, to, encode, …) → the manifest; float32 unless told otherwise."""

    def run(
        uri: str,
        to: Path | str,
        encode=squares.encode,
        *,
        fingerprint: str = "f",
        max_faulty: float = 0.1,
        **config,
    ) -> EmbeddingManifest:
        told = EmbedConfig(
            fingerprint, **{"image_size": squares.SIDE, "dtype": "fp32", "batch_size": 4, **config}
        )
        return embed_shards(uri, str(to), encode, told, clip_uri="c", max_faulty=max_faulty)

    return run


def write_like_clip_retrieval(folder: Path, parts: list[dict[str, Any]]) -> str:
    """Folders of parts {"img_emb": (N, E), "text_emb": …, metadata's columns: …}, without a manifest."""
    for number, part in enumerate(parts):
        for column in ("img_emb", "text_emb"):
            if column in part:
                (folder / column).mkdir(parents=True, exist_ok=True)
                np.save(folder / column / f"{column}_{number}.npy", part[column])
        (folder / "metadata").mkdir(exist_ok=True)
        table = pa.table({name: part[name] for name in part if name not in ("img_emb", "text_emb")})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return str(folder)


@pytest.fixture
def clip_retrieval(tmp_path: Path) -> Callable[..., str]:
    """clip_retrieval(parts, name=…) → URI."""

    def make(parts: list[dict[str, Any]], name: str = "theirs") -> str:
        return write_like_clip_retrieval(tmp_path / name, parts)

    return make
