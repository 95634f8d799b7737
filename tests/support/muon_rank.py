"""Steps of Muon on a small convolutional network, by one process or by ranks that share its kernels."""

from pathlib import Path

import torch
from collectives_seen import written_to
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from toy_training import process_group

from dalle2_train.parallel.muon import Muon, kernels
from dalle2_train.parallel.shard import ParallelConfig, build_mesh, shard_model


def weights_after_steps(world_size: int, shard: int) -> dict[str, Tensor]:
    """The whole float64 weights after three steps on the same batch."""
    found = {name: value.detach() for name, value in train(world_size, shard).named_parameters()}
    return {n: value.full_tensor() if isinstance(value, DTensor) else value for n, value in found.items()}


def train(world_size: int, shard: int) -> nn.Module:
    """A network after three steps."""
    torch.manual_seed(0)
    # Five and one output channels: ranks hold uneven shards, and one of them nothing.
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(5, 5), nn.SiLU(), nn.Conv2d(5, 1, 3)).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    if world_size > 1:
        config = ParallelConfig(shard)
        mesh = build_mesh(config, "cpu", [world_size] * world_size)
        shard_model(network, mesh, [network[0], network[3]], config, None)
    groups = [{"params": list(network.parameters())}]
    optimizer = Muon(groups, kernels(network), lr=0.1, weight_decay=0.1, betas=(0.9, 0.99))
    for _ in range(3):
        network(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


def note_steps(rank: int, world_size: int, store: str, shard: int, folder: Path) -> None:
    """In a process of its own; every rank writes what its steps asked torch for."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store), written_to(folder):
        train(world_size, shard)


def save_weights(rank: int, world_size: int, store: str, shard: int, folder: Path) -> None:
    """In a process of its own; the first rank writes."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store):
        found = weights_after_steps(world_size, shard)
        if rank == 0:
            torch.save(found, folder / "weights.pt")
