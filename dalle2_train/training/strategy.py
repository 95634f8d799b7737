"""Lightning's FSDP2 strategy over our (replicate, shard) mesh, in a process group that somebody else has made."""

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.strategies.parallel import ParallelStrategy

from dalle2_train.checkpoints.exchange import gather
from dalle2_train.parallel.shard import ParallelConfig, build_mesh


class GroupEnvironment(ClusterEnvironment):
    """Ranks as the existing process group has them: the launcher made it, Lightning only looks."""

    def __init__(self, local_rank: int, node_rank: int) -> None:
        super().__init__()
        self._local_rank, self._node_rank = local_rank, node_rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return dist.get_world_size()

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._local_rank

    def node_rank(self) -> int:
        return self._node_rank


class MeshStrategy(ModelParallelStrategy):
    """What every rank trains with, be it one or a thousand, here or under Ray."""

    def __init__(
        self,
        config: ParallelConfig,
        device: torch.device,
        *,
        local_rank: int = 0,
        local_world_size: int = 1,
        node_rank: int = 0,
    ) -> None:
        super().__init__()
        self.cluster_environment = GroupEnvironment(local_rank, node_rank)
        self._config, self._device, self._local_world_size = config, device, local_world_size

    @property
    def root_device(self) -> torch.device:
        return self._device

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """Every rank sees other samples, sharded or not."""
        return {"num_replicas": dist.get_world_size(), "rank": dist.get_rank()}

    def setup_environment(self) -> None:
        """As in Lightning, but with our mesh; Lightning's own is data × tensor."""
        ParallelStrategy.setup_environment(self)
        self.set_world_ranks()
        # Machines may be filled unevenly, and a mesh is the same on all ranks.
        mesh = build_mesh(self._config, self._device.type, gather(self._local_world_size))
        assert self.lightning_module is not None
        self._device_mesh = self.lightning_module._device_mesh = mesh
