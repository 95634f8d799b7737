"""The samples of a shard through a CLIP: rows of columns as they will be stored, and the faults of all others.

B batch, L text length, E embedding, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import BF16, DTYPES, encodings_dtype, widened
from dalle2_train.data.faults import Fault
from dalle2_train.data.samples.decode_sample import DecodeSample
from dalle2_train.data.samples.loader import Loader, Wanted
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.reader import Reader
from dalle2_train.data.shards.shard_index import Place, faulty_positions
from dalle2_train.errors import InputError


class Embedded(NamedTuple):
    """What `encode` returns for B samples; the last two are None when text encodings are not wanted."""

    image_embed: Tensor  # (B, E)
    text_embed: Tensor  # (B, E)
    text_encodings: Tensor | None = None  # (B, L, E)
    text_mask: Tensor | None = None  # (B, L) bool


Encode = Callable[[Tensor, list[str]], Embedded]
"""(uint8 (B, 3, S, S), B captions) → Embedded."""


@dataclass(frozen=True)
class EmbedConfig:
    """How pictures and captions are embedded."""

    clip_fingerprint: str
    image_size: int
    """S, pixels a side that the CLIP sees."""
    dtype: str = "fp16"
    """fp32, fp16 or bf16: what image and text embeddings are kept in."""
    text_encodings: bool = False
    """Whether the tokens' states are kept too, in half precision: 118 kB a sample at 77 tokens of 768."""
    batch_size: int = 64
    """Samples encoded at once."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}")


class EncodedRows(NamedTuple):
    """Samples of a batch that were embedded, and those that could not be."""

    positions: list[int]
    captions: list[str]
    columns: dict[str, NDArray[Any]]
    """Column → rows as they are stored."""
    faults: list[Fault]


def encoded(shards: ShardSet, config: EmbedConfig, encode: Encode) -> Iterator[EncodedRows]:
    """The only shard of a set, batch by batch; the next one is read and decoded while the CLIP computes."""
    shard, index = shards.name(0), shards.index(0)
    known = dict(faulty_positions(index))
    faults = [Fault(shard, index.keys[position], kind) for position, kind in known.items()]
    yield EncodedRows([], [], {}, faults)
    left = [position for position in range(len(index)) if position not in known]
    batches = [left[start : start + config.batch_size] for start in range(0, len(left), config.batch_size)]
    load = Loader(DecodeSample(config.image_size, embeddings=False), Reader(shards))

    def loaded(positions: list[int]) -> list[Decoded | Fault]:
        return load([Wanted(Place(0, position), key=0) for position in positions])

    with ThreadPoolExecutor(1, "embed-read") as thread:
        coming = [thread.submit(loaded, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            found = coming.pop().result()
            coming = [thread.submit(loaded, after) for after in batches[number + 1 : number + 2]]
            yield _encode(batch, found, shard, config, encode)


def _encode(
    positions: list[int], found: list[Decoded | Fault], shard: str, config: EmbedConfig, encode: Encode
) -> EncodedRows:
    faults = [sample for sample in found if isinstance(sample, Fault)]
    good = [(p, sample) for p, sample in zip(positions, found, strict=True) if isinstance(sample, Decoded)]
    if not good:
        return EncodedRows([], [], {}, faults)
    pictures = np.stack([sample.image for _, sample in good if sample.image is not None])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()  # (B, 3, S, S)
    columns = _columns(encode(images, [sample.caption for _, sample in good]), config, len(good))
    finite = _finite(columns, config.dtype)
    reason = f"what the CLIP gave is no finite number in {config.dtype}"
    faults += [
        Fault(shard, sample.key, "broken_embedding", reason)
        for (_, sample), whole in zip(good, finite, strict=True)
        if not whole
    ]
    kept = [good[i] for i in np.flatnonzero(finite)]
    return EncodedRows(
        [position for position, _ in kept],
        [sample.caption for _, sample in kept],
        {name: column[finite] for name, column in columns.items()},
        faults,
    )


def _columns(embedded: Embedded, config: EmbedConfig, count: int) -> dict[str, NDArray[Any]]:
    columns = {
        layout.IMAGE_EMBED: _stored(embedded.image_embed, config.dtype),
        layout.TEXT_EMBED: _stored(embedded.text_embed, config.dtype),
    }
    if config.text_encodings:
        assert embedded.text_encodings is not None and embedded.text_mask is not None
        columns[layout.TEXT_ENCODINGS] = _stored(embedded.text_encodings, encodings_dtype(config.dtype))
        columns[layout.TEXT_MASK] = embedded.text_mask.bool().cpu().numpy()
    for name, column in columns.items():
        assert len(column) == count, f"encode gave {len(column)} rows of {name} for {count} samples"
    return columns


def _stored(values: Tensor, dtype: str) -> NDArray[Any]:
    """`values` as a file of `dtype` holds them, in the same shape."""
    if dtype == BF16:
        bits = values.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16)
        return bits.numpy().view(DTYPES[BF16])
    with np.errstate(over="ignore"):  # infinite, and so a fault
        return values.detach().float().cpu().numpy().astype(DTYPES[dtype])


def _finite(columns: dict[str, NDArray[Any]], dtype: str) -> NDArray[np.bool_]:
    """(B,) whether both embeddings are finite as they are stored: half precision ends at 65,504."""
    both = (widened(columns[name], dtype) for name in (layout.IMAGE_EMBED, layout.TEXT_EMBED))
    return np.logical_and.reduce([np.isfinite(vectors).all(1) for vectors in both])
