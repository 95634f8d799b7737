"""All rows of a sharded tensor, and a rank's own of them, by a collective with a short name.

The two threads of a gloo group each write down, without a lock, which collective they did last (torch 2.13,
`ProcessGroupGloo::runLoop`). A name of more than 15 letters lies on the heap, where one thread writes into what the
other has just freed, and the rank dies: docs/decisions/0009-cluster.md. `DTensor.full_tensor` asks for such a one,
ALLGATHER_COALESCED. Once torch takes the lock, that will do.

Legend: R rows of the whole tensor, r of a rank.
"""

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def gather_rows(tensor: DTensor) -> Tensor:
    """(R, …) of a tensor whose rows FSDP2 has dealt out, without a gradient; every rank of its mesh calls it. Of a
    single rank it is that rank's own memory."""
    num_rows, num_ranks, mine = _num_rows(tensor), _num_ranks(tensor), tensor.to_local()
    if num_ranks == 1:
        return mine
    padded = mine.new_zeros(num_rows, *mine.shape[1:])
    padded[: len(mine)] = mine
    gathered = mine.new_empty(num_ranks * num_rows, *mine.shape[1:])
    group = tensor.device_mesh.get_group(_mesh_dimension(tensor))
    dist.all_gather(list(gathered.chunk(num_ranks)), padded, group=group)
    return gathered[: tensor.shape[0]]


def own_rows(values: Tensor, tensor: DTensor) -> Tensor:
    """(R, …) → (r, …): the rows of `values` that this rank holds of `tensor`; a view."""
    start = _num_rows(tensor) * tensor.device_mesh.get_local_rank(_mesh_dimension(tensor))
    return values[start : start + len(tensor.to_local())]


def _mesh_dimension(tensor: DTensor) -> int:
    """Of its mesh, along which the rows are dealt out."""
    *copies, dealt = tensor.placements
    assert dealt == Shard(0) and all(placement.is_replicate() for placement in copies), tensor.placements
    return tensor.device_mesh.ndim - 1


def _num_ranks(tensor: DTensor) -> int:
    return tensor.device_mesh.size(_mesh_dimension(tensor))


def _num_rows(tensor: DTensor) -> int:
    """r of every rank but the last ones, which may have fewer or none."""
    return -(-tensor.shape[0] // _num_ranks(tensor))
