"""A prior and a decoder trained by every layout of ranks: the same batches, all numbers written down."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from families import CONTEXT_LENGTH, EMBED_DIM, null_text
from family_rank import Order, double
from toy_training import process_group, strategy_of

from dalle2_train import seeding
from dalle2_train.checkpoints.exchange import gather
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.data.stream.batches import DecoderBatch, PriorBatch
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.parallel.ema import warmed_up_decay
from dalle2_train.parallel.shard import ParallelConfig, local, trained_parameters
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.decoder import DecoderModelConfig, DecoderModule
from dalle2_train.training.fit import Setup, fit
from dalle2_train.training.prior import PriorModelConfig, PriorModule
from dalle2_train.training.strategy import MeshStrategy

GLOBAL_BATCH = 16
DTYPES = {"float64": (torch.float64, 50), "float32": (torch.float32, 10)}


@dataclass(frozen=True)
class Layout:
    """How a training is laid out over ranks."""

    world_size: int
    shard: int
    accumulation: int = 1
    activation_checkpointing: bool = False
    reshard_after_forward: bool = True

    @property
    def name(self) -> str:
        return "-".join(str(value) for value in vars(self).values())

    @property
    def parallel(self) -> ParallelConfig:
        return ParallelConfig(self.shard, self.reshard_after_forward, self.activation_checkpointing)


class Watched(UnclipModule):
    """Mixed into a family's module: beside the sharded average it keeps one of the gathered parameters, and it counts
    what the rank holds when it holds most."""

    shadow: dict[str, torch.Tensor]
    shard: int
    held = 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        step = self.completed_steps
        if step == 0:
            self.shadow = self._gathered()
        super().training_step(batch, batch_idx)
        decay = warmed_up_decay(self.training_config.ema_decay, step)
        for name, parameter in self._gathered().items():
            self.shadow[name].lerp_(parameter, 1.0 - decay)

    def _gradient(self, batch: Any, step: int) -> Any:
        found = super()._gradient(batch, step)
        self.held = max(self.held, self._count_held())
        return found

    def _gathered(self) -> dict[str, torch.Tensor]:
        return whole(dict(trained_parameters(self.network)), self.shard)

    def _count_held(self) -> int:
        assert self.ema is not None
        optimizer = self.optimizers(use_pl_optimizer=False)
        tensors = [p for _, p in trained_parameters(self.network)]
        tensors += [p.grad for p in tensors if p.grad is not None]
        tensors += list(self.ema.averages.values())
        tensors += [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        return sum(local(tensor.detach()).nbytes for tensor in tensors)


class WatchedPrior(Watched, PriorModule):
    pass


class WatchedDecoder(Watched, DecoderModule):
    pass


def whole(tensors: dict[str, torch.Tensor], shard: int) -> dict[str, torch.Tensor]:
    """Put together from the parts of the first `shard` ranks, which share a copy: in one exchange, for a step has
    hundreds of them."""
    parts = gather({name: local(tensor.detach()) for name, tensor in tensors.items()})[:shard]
    return {name: torch.cat([part[name] for part in parts]) for name in tensors}


def build(family: str, dtype: torch.dtype, settings: Any) -> Watched:
    torch.manual_seed(0)
    text = double(null_text())
    null = type(text)(text.text_embed.to(dtype), text.text_encodings.to(dtype), text.text_mask)
    if family == "prior":
        size = PriorConfig(EMBED_DIM, CONTEXT_LENGTH, depth=4, num_heads=2, head_dim=8)
        return WatchedPrior(Prior(size).to(dtype), PriorModelConfig(size), null, *settings)
    size = DecoderConfig(8, (32, 32), 1, (False, True), head_dim=16, embed_dim=EMBED_DIM)
    return WatchedDecoder(Decoder(size).to(dtype), DecoderModelConfig(size), null, *settings)


@dataclass
class Drawn:
    """Global batch s is drawn from (s, sample); a rank takes every world_size-th sample."""

    family: str
    dtype: torch.dtype
    ledger: ClassVar = {"": Ledger(GLOBAL_BATCH, GLOBAL_BATCH, {}, {})}
    known_faults: ClassVar = ()
    max_faulty: ClassVar = 0.01

    def __iter__(self) -> Iterator[Any]:
        step = 0
        while True:
            index = torch.arange(dist.get_rank(), GLOBAL_BATCH, dist.get_world_size()) + step * GLOBAL_BATCH
            yield self._batch(index), Order()
            step += 1

    def close(self) -> None:
        pass

    def _batch(self, index: torch.Tensor) -> Any:
        def draw(what: str, *shape: int) -> torch.Tensor:
            return seeding.normal(shape, 0, what, 0, index, self.dtype)

        text = (draw("embed", EMBED_DIM), draw("states", CONTEXT_LENGTH, EMBED_DIM), self._mask(index))
        if self.family == "prior":
            return PriorBatch(index, draw("image", EMBED_DIM), *text)
        pictures = (
            (seeding.normal((3, 8, 8), 0, "picture", 0, index, torch.float32) * 64 + 128).clamp(0, 255).byte()
        )
        return DecoderBatch(index, pictures, draw("image", EMBED_DIM), *text)

    def _mask(self, index: torch.Tensor) -> torch.Tensor:
        return torch.arange(CONTEXT_LENGTH) < 2 + index[:, None] % (CONTEXT_LENGTH - 2)


def train(folder: Path, family: str, dtype_name: str, layout: Layout, strategy: MeshStrategy) -> None:
    """Leaves NAME.json in `folder`."""
    dtype, num_steps = DTYPES[dtype_name]
    micro = GLOBAL_BATCH // layout.world_size // layout.accumulation
    training = TrainingConfig(
        num_steps, GLOBAL_BATCH, micro_batch_size=micro, precision="fp32", checkpoint_every_steps=num_steps
    )
    settings = (training, OptimizerConfig(learning_rate=1e-3, weight_decay=0.1), layout.parallel)
    module = build(family, dtype, settings)
    module.shard = layout.shard
    run = folder / f"{family}-{dtype_name}-{layout.name}"
    manifest = ModelManifest(kind=family, config={"layout": layout.name})
    fit(module, Setup(lambda *_: Drawn(family, dtype), str(run), manifest, strategy))
    assert module.ema is not None
    means = whole(module.ema.averages, layout.shard)
    differ = [name for name, mean in means.items() if not torch.equal(mean, module.shadow[name])]
    assert all(means[name].shape == parameter.shape for name, parameter in module.network.named_parameters()
               if parameter.requires_grad)  # fmt: skip
    held = [0] * dist.get_world_size()
    dist.all_gather_object(held, module.held)
    blocks = [sum(p.numel() for p in block.parameters()) for block in module.blocks()]
    if dist.get_rank() == 0:
        losses = [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]
        found = {"losses": losses, "averages_that_differ": differ, "held": held, "largest_block": max(blocks)}
        (folder / f"{run.name}.json").write_text(json.dumps(found))


def train_layouts(
    rank: int, world_size: int, store: str, jobs: list[tuple[str, str, Layout]], folder: Path
) -> None:
    """A rank's share of all of them, in a process of its own."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store):
        for family, dtype_name, layout in jobs:
            train(folder, family, dtype_name, layout, strategy_of(rank, world_size, layout.parallel))


def train_alone(folder: Path, family: str, dtype_name: str, layout: Layout) -> None:
    with one_rank_strategy(layout.parallel) as strategy:
        train(folder, family, dtype_name, layout, strategy)
