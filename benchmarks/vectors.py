"""Embeddings to batches: the stream that trains the prior, and embedding-reader, which reads them in their order."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.streams import samples_per_second
from dalle2_train.data.config import DataConfig
from dalle2_train.data.embed.foreign import index_embeddings
from dalle2_train.data.embeddings.layout import has_embeddings
from dalle2_train.data.stream.batches import PriorTokenBatch
from dalle2_train.data.stream.stream import Stream

EMBED_DIM, PARTS, ROWS_PER_PART, BATCH = 768, 2, 100_000, 1024
"""Of CLIP's ViT-L/14, in half precision, as clip-retrieval writes them."""
CONFIG = DataConfig(num_workers=0, cache_megabytes=0, block_size=1024)
_TURN = CONFIG.block_size * CONFIG.num_lanes // BATCH
_TEXT_LENGTH = 77


def vectors(to: str) -> str:
    """The set at `to`: random vectors, captions beside them. Made there when it isn't yet."""
    if has_embeddings(to):
        return to
    random = np.random.default_rng(0)
    for folder in ("img_emb", "metadata"):
        (Path(to) / folder).mkdir(parents=True, exist_ok=True)
    for part in range(PARTS):
        rows = random.standard_normal((ROWS_PER_PART, EMBED_DIM), np.float32).astype(np.float16)
        np.save(Path(to) / "img_emb" / f"img_emb_{part}.npy", rows)
        captions = [f"photograph number {part * ROWS_PER_PART + row}" for row in range(ROWS_PER_PART)]
        pq.write_table(pa.table({"caption": captions}), Path(to) / "metadata" / f"metadata_{part}.parquet")
    index_embeddings(to, "none", "none", EMBED_DIM)
    return to


def ours(uri: str) -> float:
    """Samples a second of the stream, shuffled: vectors and captions. What tokenises them is left out."""
    stream = Stream(
        uri, CONFIG, seed=0, global_batch_size=BATCH, batch_type=PriorTokenBatch, tokenize=_no_tokens
    )
    speed = samples_per_second(iter(stream), BATCH, warm_up=4 * _TURN, num_batches=32 * _TURN)
    stream.close()
    return speed


def embedding_reader(python: str, uri: str) -> float:
    """Samples a second of embedding-reader, which the interpreter `python` has: vectors and captions in order."""
    program = Path(__file__).with_name("embedding_reader_alone.py")
    command = [python, str(program), uri, str(BATCH)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _no_tokens(captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (len(captions), _TEXT_LENGTH)
    return torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
