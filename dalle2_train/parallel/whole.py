"""Whole tensors of sharded ones and back, by collectives with short names.

The two threads of a gloo group write down, unlocked, which collective they did last (torch 2.13). A name of more than
15 letters lies on the heap, where one thread writes into what the other has just freed: "malloc(): unaligned tcache
chunk detected", once in millions of collectives. `DTensor.full_tensor` is such a one (ALLGATHER_COALESCED).
"""

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def whole(tensor: DTensor) -> Tensor:
    """All rows of a tensor whose rows FSDP2 has dealt out; every rank of its mesh calls it."""
    rows, ranks, part = _rows(tensor), _ranks(tensor), tensor.to_local()
    if ranks == 1:
        return part
    padded = part.new_zeros(rows, *part.shape[1:])
    padded[: len(part)] = part
    gathered = part.new_empty(ranks * rows, *part.shape[1:])
    dist.all_gather(
        list(gathered.chunk(ranks)), padded, group=tensor.device_mesh.get_group(_dimension(tensor))
    )
    return gathered[: tensor.shape[0]]


def own_rows(values: Tensor, tensor: DTensor) -> Tensor:
    """Those of `values`, of the whole tensor's shape, that this rank holds of `tensor`."""
    start = _rows(tensor) * tensor.device_mesh.get_local_rank(_dimension(tensor))
    return values[start : start + len(tensor.to_local())]


def _dimension(tensor: DTensor) -> int:
    """Of its mesh, along which the rows are dealt out."""
    *copies, dealt = tensor.placements
    assert dealt == Shard(0) and all(placement.is_replicate() for placement in copies), tensor.placements
    return tensor.device_mesh.ndim - 1


def _ranks(tensor: DTensor) -> int:
    return tensor.device_mesh.size(_dimension(tensor))


def _rows(tensor: DTensor) -> int:
    """Of every rank but the last ones, which may have fewer or none."""
    return -(-tensor.shape[0] // _ranks(tensor))
