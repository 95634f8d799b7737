"""One mesh, (replicate, shard), covers a single rank, DDP, FSDP and HSDP: sizes (1, 1), (N, 1), (1, N) and (R, S)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from dalle2_train.errors import InputError


@dataclass(frozen=True)
class ParallelConfig:
    """How ranks share the weights."""

    shard: int | Literal["auto"] = "auto"
    """Ranks that share one copy of the weights; the others hold copies. auto: the ranks of one machine."""
    reshard_after_forward: bool = True
    """Gathered weights are dropped after a block's forward and gathered again for its backward: less memory, more to
    send. false: kept in between."""
    activation_checkpointing: bool = False
    """A block's forward is done again for its backward rather than kept: less memory, a third more to compute."""
    cpu_offload: bool = False
    """Weights, gradients and the optimizer's state live in the host's memory, the device holds what is computed."""


def mesh_sizes(config: ParallelConfig, local_world_sizes: Sequence[int]) -> tuple[int, int]:
    """(replicate, shard). local_world_sizes: of each rank, the ranks of its machine. Raises InputError where the shard
    size does not divide the number of ranks."""
    world_size, shard = len(local_world_sizes), config.shard
    if shard == "auto":
        # Of machines with 4, 4 and 2 ranks pairs share one copy: no copy is spread over two machines.
        shard = math.gcd(*local_world_sizes)
    if shard < 1 or world_size % shard:
        raise InputError(f"parallel.shard is {shard}, which does not divide the {world_size} ranks; "
                         "choose a divisor, or auto")  # fmt: skip
    return world_size // shard, shard


def build_mesh(config: ParallelConfig, device_type: str, local_world_sizes: Sequence[int]) -> DeviceMesh:
    """The (replicate, shard) mesh over all ranks; every rank calls it. local_world_sizes: as of `mesh_sizes`."""
    sizes = mesh_sizes(config, local_world_sizes)
    return init_device_mesh(device_type, sizes, mesh_dim_names=("replicate", "shard"))


def shard_model(
    network: nn.Module,
    mesh: DeviceMesh,
    blocks: list[nn.Module],
    config: ParallelConfig,
    dtype: torch.dtype | None,
) -> None:
    """Shard the trained parameters of `blocks`, then what is left of `network`, in place; a single rank's stay whole,
    unless they live in the host's memory.

    Frozen parameters stay whole on every rank, so they may be read outside of `forward`. dtype: what the network
    computes in (None: its own); gradients are exchanged and weights kept in fp32 all the same.
    """
    for name, parameter in network.named_parameters():
        assert parameter.ndim > 0, f"{name} has no dimension to shard: keep it as shape (1,)"
    if not is_sharded(mesh, config):
        return
    offload = (
        CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu") if config.cpu_offload else OffloadPolicy()
    )
    mesh = mesh if mesh.size(0) > 1 else mesh["shard"]
    # Between blocks the activations stay in `dtype`: the layers around them have their weights in it too.
    inside = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    outside = replace(inside, output_dtype=torch.float32 if dtype else None)
    frozen = {parameter for parameter in network.parameters() if not parameter.requires_grad}
    options: dict[str, Any] = {
        "mesh": mesh,
        "ignored_params": frozen,
        "offload_policy": offload,
        "reshard_after_forward": config.reshard_after_forward,
    }
    for block in blocks:
        fully_shard(block, mp_policy=inside, **options)
    fully_shard(network, mp_policy=outside, **options)


def is_sharded(mesh: DeviceMesh, config: ParallelConfig) -> bool:
    """Does the network compute through FSDP2, which casts at its blocks' doors?"""
    return mesh.size() > 1 or config.cpu_offload


def set_gradient_sync(network: nn.Module, is_last: bool) -> None:
    """Exchange gradients only after the last micro-batch. Does nothing where nothing is sharded."""
    if isinstance(network, FSDPModule):
        network.set_is_last_backward(is_last)
        network.set_requires_gradient_sync(is_last)


def reshard(network: nn.Module) -> None:
    """Forget gathered parameters, so that the next forward gathers what the shards hold by then."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """A rank's own part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def trained_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of what the optimizer changes."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
