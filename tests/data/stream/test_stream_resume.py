"""Going on in the middle of a large shard reads what is wanted next, not what came before."""

import io
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dalle2_train.data.config import DataConfig
from dalle2_train.data.shards.writer import Record, write_shards
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.order import Order
from dalle2_train.data.stream.stream import Stream

NUM_SAMPLES, LANES, BLOCK, BATCH = 10_000, 8, 64, 32


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One shard of 10,000 samples, whose captions number them."""
    stream = io.BytesIO()
    Image.effect_noise((48, 48), 60).save(stream, "PNG")
    records = (Record(stream.getvalue(), "png", f"number {n}", {}, 48, 48) for n in range(NUM_SAMPLES))
    uri = str(tmp_path_factory.mktemp("large") / "set")
    write_shards(records, uri, {"kind": "large"}, samples_per_shard=NUM_SAMPLES)
    return uri


def bytes_read() -> int:
    """By this process so far, from whatever file, as the kernel counts."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def tokenize(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.tensor([[int(caption.split()[-1])] for caption in captions])
    return numbers, torch.ones_like(numbers, dtype=torch.bool)


def open_at(uri: str, cursor: int) -> Stream:
    """A stream each lane of which has taken `cursor` samples."""
    config = DataConfig(image_size=8, num_lanes=LANES, block_size=BLOCK, prefetch_batches=0)
    told = {"seed": 2, "global_batch_size": BATCH, "batch_type": ClipBatch, "tokenize": tokenize}
    begun = Stream(uri, config, **told).state()
    places = dict.fromkeys(range(LANES), (cursor,))
    state = replace(begun, step=cursor * LANES // BATCH, cursors=places)
    return Stream(uri, config, **told, state=state)


def first_batch(uri: str, cursor: int) -> list[int]:
    with closing(open_at(uri, cursor)) as stream:
        return next(iter(stream))[0].token_ids[:, 0].tolist()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count")
def test_going_on_reads_the_rest_of_the_chunk_it_stands_in(shard: str):
    first_batch(shard, 0)  # whatever is imported at first use
    size = (Path(shard) / "00000.tar").stat().st_size
    indexes = sum(file.stat().st_size for file in Path(shard).rglob("*.parquet"))
    before = bytes_read()
    found = first_batch(shard, 600)
    read = bytes_read() - before
    order = Order(NUM_SAMPLES, LANES, BLOCK, seed=2)
    number, place = divmod(600, BLOCK)
    assert found == [
        int(order.chunk(lane, number)[place + turn])
        for turn in range(BATCH // LANES)
        for lane in range(LANES)
    ]
    # Of each lane one chunk; the index is read for each of the two times that the set was opened.
    chunks = size * LANES * BLOCK / NUM_SAMPLES
    assert read < chunks + indexes < size / 10


def test_the_state_does_not_grow(shard: str):
    early, late = (len(repr(open_at(shard, cursor).state().to_json())) for cursor in (640, 6400))
    assert late - early <= LANES + 2  # a digit more for each lane and for the step
