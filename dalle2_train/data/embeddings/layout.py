"""How embeddings are kept: clip-retrieval's folders of columns, a part a shard, and `embeddings.json` over them.

`img_emb/img_emb_N.npy` and `text_emb/text_emb_N.npy` (rows × E), `metadata/metadata_N.parquet`, and where wanted
`text_encodings/text_encodings_N.npy` (rows × L × E) with `text_mask/text_mask_N.npy` (rows × L). E embedding,
L text length.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.values import decode_array
from dalle2_train.errors import InputError, RefusedError

MANIFEST, COVARIANCE = "embeddings.json", "covariance.npy"
FORMAT_VERSION = 1
IMAGE_EMBED, TEXT_EMBED, METADATA = "img_emb", "text_emb", "metadata"
TEXT_ENCODINGS, TEXT_MASK = "text_encodings", "text_mask"


@dataclass(frozen=True)
class Part:
    """The rows of one shard."""

    name: str
    """N in the files' names."""
    num_samples: int
    splits: dict[str, int]
    """Split → samples."""
    files: dict[str, str]
    """Column → SHA-256 of its file."""
    num_faulty: int = 0
    """Samples of the shard that could not be embedded."""
    source: str | None = None
    """SHA-256 of the shard; None: nobody knows what they were made of."""


@dataclass(frozen=True)
class EmbeddingInfo:
    """What a set says of its vectors; `mean`, `std` (E,) and `norm` are those of the train split's pictures."""

    clip_uri: str
    clip_fingerprint: str
    embed_dim: int
    dtype: str
    """fp32, fp16 or bf16: what img_emb and text_emb hold."""
    num_vectors: int
    """How many they are the statistics of."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    norm: float
    """The mean L2 norm."""
    covariance_sha256: str
    """Of covariance.npy, (E, E) float64."""


@dataclass(frozen=True)
class EmbeddingManifest:
    """All parts of a set, and by which CLIP. It is published last: a set that has one is whole."""

    parts: tuple[Part, ...]
    info: EmbeddingInfo
    of: str | None = None
    """Digest of the shards' manifest; None: nobody knows what they were made of."""
    version: int = FORMAT_VERSION

    @property
    def num_samples(self) -> int:
        """Of all parts; those that could not be embedded do not count."""
        return sum(part.num_samples for part in self.parts)

    @property
    def digest(self) -> str:
        """SHA-256 over the parts' names and files: the identity of the data."""
        text = "\n".join(f"{part.name} {digest_of(part)}" for part in self.parts)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def has_text_encodings(self) -> bool:
        """Whether every sample has its text's embedding, encodings and mask."""
        return all(
            {TEXT_EMBED, TEXT_ENCODINGS, TEXT_MASK} <= set(part.files)
            for part in self.parts
            if part.num_samples
        )

    def count(self) -> dict[str, int]:
        """Samples per split."""
        counts: Counter[str] = Counter()
        for part in self.parts:
            counts.update(part.splits)
        return dict(sorted(counts.items()))


def digest_of(part: Part) -> str:
    """SHA-256 over the digests of a part's files."""
    text = " ".join(f"{column} {digest}" for column, digest in sorted(part.files.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def file_name(column: str, part: str) -> str:
    """Of a part's column, in the set's folder."""
    return f"{column}/{column}_{part}.{'parquet' if column == METADATA else 'npy'}"


def part_name(shard_path: str) -> str:
    """N for the shard that a manifest calls `shard_path`; shards of one name in several folders have one each."""
    stem = shard_path.rsplit("/", 1)[-1].removesuffix(".tar")
    if "/" not in shard_path:
        return stem
    return f"{stem}-{hashlib.sha256(shard_path.encode()).hexdigest()[:8]}"


def has_embeddings(home: str) -> bool:
    """Is there a whole embedded set in the folder `home`?"""
    return storage.exists(storage.join(home, MANIFEST))


def publish(manifest: EmbeddingManifest, home: str) -> None:
    """Writes `manifest` to the folder `home`."""
    storage.publish_json(storage.join(home, MANIFEST), dataclasses.asdict(manifest))


def load(home: str) -> EmbeddingManifest:
    """The manifest in the folder `home`. Missing, damaged, or of another version: InputError."""
    place = storage.join(home, MANIFEST)
    found = storage.read_json(place)
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise InputError(
            f"{place}: is of version {version}, this program's is {FORMAT_VERSION}; update the program"
        )
    try:
        parts = tuple(Part(**entry) for entry in found["parts"])
        return EmbeddingManifest(parts, _info(found["info"]), found["of"], found["version"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: no manifest of embeddings ({error}); run `shards embed` again") from error


def read_covariance(home: str, info: EmbeddingInfo) -> NDArray[np.float64]:
    """(E, E) float64: that of the train split's image embeddings.

    Raises InputError where the file is missing, RefusedError where it is damaged.
    """
    uri = storage.join(home, COVARIANCE)
    if not storage.exists(uri):
        raise InputError(f"{home}: has no {COVARIANCE}; run `shards embed` again")
    data = storage.read_bytes(uri)
    if storage.sha256_bytes(data) != info.covariance_sha256:
        raise RefusedError(f"{uri}: damaged; run `shards embed` again")
    return decode_array(data, limit=len(data))


def _info(entry: dict[str, Any]) -> EmbeddingInfo:
    return EmbeddingInfo(**{**entry, "mean": tuple(entry["mean"]), "std": tuple(entry["std"])})
