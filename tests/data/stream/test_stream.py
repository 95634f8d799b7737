"""The stream: the same global batches for every world size, exactly resumed, honest about damage."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch

from dalle2_train.data.check.doctor import check
from dalle2_train.data.config import DataConfig
from dalle2_train.data.faults import Fault
from dalle2_train.data.shards.index import index
from dalle2_train.data.stream.batches import BatchType, ClipBatch
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.storage import reading, retry

MakeSet = Callable[..., str]
SIDE = 8
CONFIG = DataConfig(image_size=SIDE, num_lanes=4, block_size=5)


def tokenize(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 2) ids: the caption's number twice."""
    numbers = torch.tensor([int(caption.split()[-1]) for caption in captions])
    return numbers[:, None].expand(-1, 2), torch.ones(len(captions), 2, dtype=torch.bool)


def numbers_of(image: torch.Tensor) -> list[int]:
    """Which records the pictures (B, 3, H, W) are of."""
    return image[:, 2, 0, 0].tolist()


def open_stream(
    uri: str, config: DataConfig = CONFIG, batch_type: BatchType = ClipBatch, **options
) -> Stream:
    options = {"seed": 1, "global_batch_size": 8, "tokenize": tokenize, **options}
    return Stream(uri, config, batch_type=batch_type, **options)


def global_batches(uri: str, world_size: int, steps: int, **options) -> list[dict[int, int]]:
    """Per step, what every rank gets together: index → number of the record."""
    streams = [open_stream(uri, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    steps_of_ranks = [islice(stream, steps) for stream in streams]
    found = []
    for parts in zip(*steps_of_ranks, strict=True):
        merged: dict[int, int] = {}
        for batch, _ in parts:
            assert len(batch.index) == 8 // world_size
            merged |= dict(zip(batch.index.tolist(), batch.token_ids[:, 0].tolist(), strict=True))
        found.append(merged)
    return found


@pytest.mark.parametrize("samples_per_shard", [10, 7, 100])
def test_global_batches_are_the_same_for_every_world_size(make_set: MakeSet, samples_per_shard: int):
    uri = make_set(53, samples_per_shard)
    alone = global_batches(uri, 1, 20)
    assert [sorted(batch) for batch in alone] == [list(range(8 * s, 8 * s + 8)) for s in range(20)]
    assert global_batches(uri, 2, 20) == alone
    assert global_batches(uri, 4, 20) == alone


def test_the_order_of_a_set_stays_what_it_was(make_set: MakeSet):
    """Checkpoints and published numbers rest on it: whoever changes it changes what a seed means."""
    first, second, third, *_ = global_batches(make_set(53, 7), 1, 3)
    assert list(first.values()) == [29, 3, 21, 11, 27, 4, 23, 12]
    assert list(second.values()) == [30, 5, 25, 13, 28, 1, 22, 14]
    assert list(third.values()) == [26, 2, 24, 15, 9, 18, 50, 31]


def test_an_epoch_is_every_sample_once(make_set: MakeSet):
    uri = make_set(40, 7)
    counts = Counter(number for batch in global_batches(uri, 2, 15) for number in batch.values())
    assert counts == {number: 3 for number in range(40)}


def test_fewer_shards_and_samples_than_lanes(make_set: MakeSet):
    uri = make_set(3)
    found = global_batches(uri, 4, 15)
    counts = Counter(number for batch in found for number in batch.values())
    assert counts == {0: 40, 1: 40, 2: 40}


def test_pictures_captions_and_tokens_belong_together(make_set: MakeSet):
    for batch, _ in islice(open_stream(make_set(53)), 10):
        assert batch.image.shape == (8, 3, SIDE, SIDE)
        assert batch.image.dtype == torch.uint8
        assert numbers_of(batch.image) == batch.token_ids[:, 0].tolist()


@pytest.mark.parametrize("cut", [1, 4, 7])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (4, 2), (2, 4)])
def test_resumed_equals_uninterrupted(make_set: MakeSet, cut: int, before: int, after: int):
    uri = make_set(53, 7)
    whole = global_batches(uri, 1, 12)
    states = []
    for rank in range(before):
        stream = iter(open_stream(uri, rank=rank, world_size=before))
        states.append([next(stream)[1] for _ in range(cut)][-1])
    state = json.loads(json.dumps(OrderState.merge(states).to_json()))
    assert global_batches(uri, after, 12 - cut, state=state) == whole[cut:]


def test_a_state_of_other_data_is_refused(make_set: MakeSet):
    _, state = next(iter(open_stream(make_set(53))))
    with pytest.raises(InputError, match="other data"):
        open_stream(make_set(54, name="other"), state=state)


def test_a_state_of_one_rank_does_not_do_for_all(make_set: MakeSet):
    uri = make_set(53)
    _, state = next(iter(open_stream(uri, rank=0, world_size=2)))
    with pytest.raises(InputError, match="merge"):
        open_stream(uri, state=state)


def test_only_the_split_is_read(make_set: MakeSet):
    uri = make_set(50, split=lambda number: "validation" if number % 3 == 0 else "train")
    seen = {number for batch in global_batches(uri, 1, 20) for number in batch.values()}
    assert seen == {number for number in range(50) if number % 3}
    with pytest.raises(InputError, match="nowhere"):
        open_stream(uri, DataConfig(split="nowhere"))


def test_the_cache_changes_nothing(make_set: MakeSet):
    uri = make_set(53, 7)
    bare = DataConfig(image_size=SIDE, num_lanes=4, block_size=5, cache_megabytes=0)
    for (ours, _), (theirs, _) in islice(zip(open_stream(uri), open_stream(uri, bare), strict=True), 20):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_faults_in_shards_of_one_name_are_told_apart(make_set: MakeSet, tmp_path: Path):
    tars = [Path(make_set(10, name=f"pair/{folder}")) / "00000.tar" for folder in "ab"]
    uri = f"{tmp_path}/pair/*/*.tar"
    index(uri)
    for tar in tars:
        data = bytearray(tar.read_bytes())
        data[data.index(b"number 7") + 7] ^= 1
        tar.write_bytes(data)
    met: list[Fault] = []
    with closing(open_stream(uri, on_fault=met.append)) as stream:
        list(islice(stream, 3))
    both = {(str(tar), "000000007") for tar in tars}
    assert {(fault.shard, fault.key) for fault in met} == both
    assert both < {(fault.shard, fault.key) for fault in check(uri).faults}
    for tar in tars:
        tar.write_bytes(tar.read_bytes()[:8000])
    index(uri)
    known = [fault for fault in open_stream(uri).known_faults if fault.key is None]
    assert {(fault.shard, fault.kind) for fault in known} == {(str(tar), "truncated") for tar in tars}


def test_damaged_samples_are_passed_over(make_set: MakeSet, caplog):
    uri = make_set(53, 100)
    tar = Path(uri) / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"number 17") + 7] ^= 1
    tar.write_bytes(data)
    alone, two = global_batches(uri, 1, 20), global_batches(uri, 2, 20)
    assert alone == two
    assert {number for batch in alone for number in batch.values()} == set(range(53)) - {17}
    assert "000000017" in caplog.text


def test_a_shard_that_is_all_damage_ends_the_run(make_set: MakeSet):
    uri = make_set(20, 100)
    tar = Path(uri) / "00000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(RefusedError, match="damaged samples in a row"):
        next(iter(open_stream(uri)))


def test_storage_that_fails_for_a_moment_costs_nothing(make_set: MakeSet, monkeypatch):
    uri, failures, read = make_set(53), [0], reading._read_local
    whole = global_batches(uri, 1, 12)

    def flaky(*args):
        failures[0] += 1
        if failures[0] % 3 == 1:
            raise ConnectionResetError("reset by peer")
        return read(*args)

    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(reading, "_read_local", flaky)
    assert global_batches(uri, 1, 12) == whole
    assert failures[0] > 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"world_size": 3}, "num_lanes"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2; give one from 0 to 1"),
        ({"global_batch_size": 6}, "global_batch_size"),
        ({"tokenize": None}, "tokenize"),
    ],
)
def test_sizes_that_do_not_divide_are_told(make_set: MakeSet, options: dict, named: str):
    with pytest.raises(InputError, match=named):
        open_stream(make_set(20), **options)
