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
    shares = is_sharded(mesh, parallel)
    if config.channels_last:
        use_channels_last(network, weights=not shares)
    if not shares:
        network.to(device)
    if parallel.activation_checkpointing:
        recompute(blocks, lambda: attention_kernel(device.type))
    if config.compile:
        for part in blocks if shares else [network]:
            part.compile()
    # Block by block it moves what is trained to the device, and leaves the rank's share there: the whole may be more
    # than the device holds.
    shard_model(network, mesh, blocks, parallel, autocast_dtype)
    _move_what_stays_whole(network, device)


def _move_what_stays_whole(network: nn.Module, device: torch.device) -> None:
    """Frozen parameters and buffers."""
    moved: dict[int, nn.Parameter] = {}  # tied ones stay one
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad and parameter.device != device:
                there = moved.setdefault(
                    id(parameter), nn.Parameter(parameter.to(device), requires_grad=False)
                )
                setattr(module, name, there)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


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
