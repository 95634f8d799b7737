"""A shard set of very uneven shards, and what a stream over it hands out.

Its samples have captions "number N"; filters keep two of three, 120 in all: 3 epochs are 45 steps of 8.
"""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dalle2_train.data.config import DataConfig
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.shards.index import index
from dalle2_train.data.shards.writer import Record, stage_shard
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.data.stream.stream import Stream

SIZES = {
    1: [180],
    3: [1, 170, 9],
    7: [90, 3, 1, 50, 2, 30, 4],
    13: [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 20, 9, 8],
}
"""Number of shards → samples in each."""
NUM_SAMPLES, NUM_KEPT, BATCH, LANES = 180, 120, 8, 4
KEPT = {number for number in range(NUM_SAMPLES) if number % 3}
CONFIG = DataConfig(
    image_size=4, num_lanes=LANES, block_size=5, filters=FilterConfig(min_width=101), cache_megabytes=0
)


def write_uneven(folder: Path, sizes: list[int], first: int = 0) -> str:
    """Shards of `sizes` samples, which are numbered from `first` on; a third of them is narrower than the rest."""
    folder.mkdir(parents=True)
    numbers = iter(range(first, first + sum(sizes)))
    for shard, size in enumerate(sizes):
        stage_shard([_record(number) for number in islice(numbers, size)], folder, shard)
    index(str(folder), progress=lambda done, total: None)
    return str(folder)


def write_mixture(file: Path, sources: dict[str, tuple[str, float]]) -> str:
    """sources: name → (URI, weight)."""
    entries = [{"name": name, "uri": uri, "weight": weight} for name, (uri, weight) in sources.items()]
    file.write_text(json.dumps({"sources": entries}))  # YAML reads JSON
    return str(file)


def open_uneven(uri: str, rank: int, world_size: int, state: Any = None, **config: Any) -> Stream:
    """A rank's stream of pictures and captions; `config` replaces settings of CONFIG."""
    return Stream(
        uri,
        DataConfig(**{**vars(CONFIG), **config}),
        seed=5,
        global_batch_size=BATCH,
        batch_type=ClipBatch,
        rank=rank,
        world_size=world_size,
        tokenize=tokenize,
        state=state,
    )


def numbers_of(batch: ClipBatch) -> dict[int, int]:
    """Global index → number of the sample, which its picture and its caption agree on."""
    numbers = batch.token_ids[:, 0].tolist()
    assert batch.image[:, 2, 0, 0].tolist() == [number % 256 for number in numbers]
    return dict(zip(batch.index.tolist(), numbers, strict=True))


def steps_of(
    uri: str, world_size: int, num_steps: int, state: Any = None, **config: Any
) -> tuple[list[dict[int, int]], dict[str, Any]]:
    """The global batches of all ranks (index → number), and the merged state after them, as a checkpoint has it."""
    batches: list[dict[int, int]] = [{} for _ in range(num_steps)]
    states = []
    for rank in range(world_size):
        with closing(open_uneven(uri, rank, world_size, state, **config)) as stream:
            for step, (batch, _) in enumerate(islice(stream, num_steps)):
                batches[step] |= numbers_of(batch)
            states.append(stream.state())
    return batches, json.loads(json.dumps(OrderState.merge(states).to_json()))


def tokenize(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 1) ids: the caption's number."""
    numbers = torch.tensor([[int(caption.split()[-1])] for caption in captions])
    return numbers, torch.ones_like(numbers, dtype=torch.bool)


def in_order(batches: list[dict[int, int]]) -> Iterator[int]:
    """The numbers by their global index."""
    return (batch[place] for batch in batches for place in sorted(batch))


def _record(number: int) -> Record:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), (1, 2, number % 256), np.uint8)).save(stream, "PNG")
    return Record(stream.getvalue(), "png", f"number {number}", {}, 100 + number % 3, 4)
