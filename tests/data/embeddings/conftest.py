"""Embedded sets of coloured squares, and folders as clip-retrieval writes them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle2_train.data.embeddings.embed import embed_shards
from dalle2_train.data.embeddings.encoding import EmbedConfig
from dalle2_train.data.embeddings.layout import EmbeddingManifest


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
