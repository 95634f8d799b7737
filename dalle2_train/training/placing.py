"""A network as a rank holds it: on its device, in its memory format, compiled, its blocks sharded over the mesh."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from dalle2_train.parallel.precision import attention_kernel
from dalle2_train.parallel.recompute import recompute
from dalle2_train.parallel.shard import ParallelConfig, is_sharded, shard_model
from dalle2_train.training.channels_last import use_channels_last
from dalle2_train.training.config import TrainingConfig


def place(
    network: nn.Module,
    blocks: list[nn.Module],
    mesh: DeviceMesh,
    device: torch.device,
    config: TrainingConfig,
    parallel: ParallelConfig,
    autocast_dtype: torch.dtype | None,
) -> None:
    """Every rank of the mesh calls it, once. blocks: the parts that are gathered one at a time."""
    if config.channels_last:
        use_channels_last(network, weights=not is_sharded(mesh, parallel))
    network.to(device)
    if parallel.activation_checkpointing:
        recompute(blocks, lambda: attention_kernel(device.type))
    if config.compile:
        for part in blocks if is_sharded(mesh, parallel) else [network]:
            part.compile()
    shard_model(network, mesh, blocks, parallel, autocast_dtype)


def trained_blocks(network: nn.Module) -> list[nn.Module]:
    """`network.blocks`, or what lies in ModuleLists; those that have something to train."""
    found = getattr(network, "blocks", None) or _outermost_list_items(network)
    return [block for block in found if any(p.requires_grad for p in block.parameters())]


def _outermost_list_items(module: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += list(child)
        else:
            found += _outermost_list_items(child)
    return found
