"""Sharded tensors put together by ranks, by our way and by torch's."""

from pathlib import Path

import torch
from collectives_seen import written_to
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from toy_training import process_group

from dalle2_train.parallel.gathering import gather_rows, own_rows
from dalle2_train.parallel.shard import ParallelConfig, build_mesh

SHAPES = ((5, 3), (1, 2, 2, 2), (8, 4), (4,))
"""On two and four ranks rows are uneven, and some rank has none."""


def compare(rank: int, world_size: int, store: str, shard: int, folder: Path) -> None:
    """In a process of its own: raises where they differ. What ours asked torch for is in `folder`, what torch's did in
    `folder`/theirs."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store):
        mesh = build_mesh(ParallelConfig(shard), "cpu", [world_size] * world_size)
        values = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in SHAPES]
        tensors = [distribute_tensor(value, mesh, [Replicate(), Shard(0)]) for value in values]
        with written_to(folder):
            ours = [gather_rows(tensor) for tensor in tensors]
        with written_to(folder / "theirs"):
            theirs = [tensor.full_tensor() for tensor in tensors]
        for tensor, value, mine, other in zip(tensors, values, ours, theirs, strict=True):
            assert isinstance(tensor, DTensor)
            assert torch.equal(mine, value) and torch.equal(other, value)
            assert torch.equal(own_rows(value, tensor), tensor.to_local())
