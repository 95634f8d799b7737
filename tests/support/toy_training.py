"""A small model of nothing, with lists of blocks, dropout, a frozen parameter and uneven shapes."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from cutting import Cutter, UploadCutter
from torch import Tensor, nn

from dalle2_train import seeding
from dalle2_train.checkpoints.layout import checkpoint_uri
from dalle2_train.checkpoints.manifest import ModelManifest, has_manifest
from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.errors import RefusedError
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training import callbacks
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.finished import FitResult
from dalle2_train.training.fit import Setup, fit
from dalle2_train.training.protocols import Loss
from dalle2_train.training.strategy import MeshStrategy

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=3, schedule="cosine", weight_decay=0.1)


class ToyBatch(NamedTuple):
    index: Tensor
    x: Tensor


class ToyNetwork(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)
        self.entry = nn.Linear(5, 7)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(7, 7), nn.GELU(), nn.Dropout(dropout)) for _ in range(2)]
        )
        self.exit = nn.Linear(7, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.entry(x)
        for block in self.blocks:
            h = h + block(h)
        return self.exit(h) * self.scale + self.shift


class ToyModule(UnclipModule):
    kind = "prior"

    def __init__(self, *args: Any, nan_steps: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nan_steps = nan_steps

    def compute_loss(self, batch: ToyBatch, step: int) -> Loss:
        eps = seeding.normal((3,), self.seed, "noise", step, batch.index, batch.x.dtype)
        target = torch.sin(batch.x[:, :3]) + 0.1 * eps
        loss = (self.network(batch.x) - target).square().mean()
        # Only one rank holds the bad sample: the others have to hear of it.
        if step in self.nan_steps and 0 in (batch.index % 8).tolist():
            loss = loss * float("nan")
        return Loss(loss, {"twice": 2 * loss.detach()})


@dataclass
class ToyOrder:
    step: int
    ranks: list[int]
    delivered: tuple[int, ...] = (0,)
    quarantined: tuple[int, ...] = (0,)

    @classmethod
    def merge(cls, states: list["ToyOrder"]) -> "ToyOrder":
        assert len({state.step for state in states}) == 1
        return cls(states[0].step, [rank for state in states for rank in state.ranks])

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "ranks": self.ranks}


@dataclass
class ToyStream:
    """Global batch s is drawn from (s, sample); a rank takes every world_size-th sample."""

    order: Any
    on_fault: Callable[[Fault], None]
    size: int
    dtype: torch.dtype
    seconds: float = 0.0
    faults_per_step: tuple[int, ...] = (0,)
    """Of each rank, from `faulty_from` on."""
    faulty_from: int = 0
    ends: tuple[int, int] | None = None
    """(rank, step) where there is no batch any more."""
    max_faulty: float = 0.01
    num_lost: int = 0
    """Samples that the manifest knows to be lost."""
    acts: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    """Step → what happens before its batch is made, however fast or slow the machine is."""

    @property
    def ledger(self) -> dict[str, Ledger]:
        return {
            "": Ledger(1000, 1000 - self.num_lost, {}, {"truncated": self.num_lost} if self.num_lost else {})
        }

    @property
    def known_faults(self) -> list[Fault]:
        return [Fault("lost.tar", None, "truncated", "cut", self.num_lost)] if self.num_lost else []

    def __iter__(self):
        rank, world_size = dist.get_rank(), dist.get_world_size()
        step, faulty = (self.order or {"step": 0})["step"], 0
        while True:
            if (rank, step) == self.ends:
                raise RefusedError("nothing but damage in 00007.tar")
            index = step * self.size + torch.arange(rank, self.size, world_size)
            time.sleep(self.seconds)
            self.acts.get(step, lambda: None)()
            for number in range(
                self.faults_per_step[rank % len(self.faults_per_step)] * (step >= self.faulty_from)
            ):
                faulty += 1
                self.on_fault(Fault(f"0000{rank}.tar", f"{step}-{number}", "broken_image", "not a picture"))
            step += 1
            state = ToyOrder(step, [rank], (step * len(index),), (faulty,))
            yield ToyBatch(index, seeding.normal((5,), 0, "x", 0, index, self.dtype)), state

    def close(self) -> None:
        pass


def train_toy(
    run_uri: str,
    strategy: MeshStrategy,
    *,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    nan_steps: tuple[int, ...] = (),
    seconds: float = 0.0,
    sam_rho: float = 0.0,
    optimizer: Literal["adamw", "muon"] = "adamw",
    recorder: Any = None,
    sampler: Any = None,
    config: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **training: Any,
) -> FitResult:
    torch.manual_seed(0)
    settings = {
        "num_steps": 12,
        "global_batch_size": 8,
        "checkpoint_every_steps": 4,
        "log_every_steps": 2,
        "precision": "fp32",  # the weights' own format, on machines that are fast at bf16 too
    } | training
    training_config = TrainingConfig(**settings)
    module = ToyModule(
        _network(dropout, dtype),
        training_config,
        replace(OPTIMIZER, sam_rho=sam_rho, name=optimizer),
        strategy._config,
        nan_steps=nan_steps,
    )
    setup = Setup(
        lambda order, on_fault: ToyStream(
            order, on_fault, training_config.global_batch_size, dtype, seconds, **(data or {})
        ),
        run_uri,
        ModelManifest(kind="prior", config=config or {"toy": 1}),
        strategy,
        recorder=recorder,
        sampler=sampler,
        extra_files={"note.txt": b"beside the weights"},
    )
    return fit(module, setup)


def _network(dropout: float, dtype: torch.dtype) -> ToyNetwork:
    network = ToyNetwork(dropout)
    return network.double() if dtype == torch.float64 else network


def train_alone(run_uri: str, **options: Any) -> FitResult:
    with one_rank_strategy(ParallelConfig()) as strategy:
        return train_toy(run_uri, strategy, **options)


def losses(run_uri: str) -> list[float]:
    lines = [json.loads(line) for line in Path(run_uri, "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def _signal_self(run_uri: str) -> None:
    """SIGTERM once the run is under way: before, there would be nobody to handle it."""
    while not os.path.exists(f"{run_uri}/losses.jsonl") or os.path.getsize(f"{run_uri}/losses.jsonl") == 0:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def _begin_behind(cutter: Cutter, uri: str, step: int) -> None:
    """Once the checkpoint of that step is there, so that all of it lies before what is counted."""
    while not has_manifest(checkpoint_uri(uri, step)):
        time.sleep(0.01)
    cutter.begin()


@contextmanager
def process_group(rank: int, world_size: int, store: str) -> Iterator[None]:
    """A gloo group of plain processes that meet through a file."""
    dist.init_process_group("gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size)
    yield
    dist.destroy_process_group()


def strategy_of(rank: int, world_size: int, config: ParallelConfig) -> MeshStrategy:
    return MeshStrategy(config, torch.device("cpu"), local_rank=rank, local_world_size=world_size)


def rank_main(run_uri: str, rank: int, world_size: int, store: str, **options: Any) -> None:
    """One rank of a run in a process of its own. options: uri: where the run is, if not in the folder `run_uri`."""
    torch.set_num_threads(1)
    uri = options.pop("uri", run_uri)
    options |= {"dtype": getattr(torch, options.get("dtype", "float32"))}
    shard, stop_rank = options.pop("shard", "auto"), options.pop("stop_rank", None)
    callbacks.PATIENCE_SECONDS = options.pop("picture_patience", callbacks.PATIENCE_SECONDS)
    cut, cutter = options.pop("cut", None), None
    if cut is not None:
        at = cut["at"] if rank == cut["rank"] else None
        after = cut.get("after", False)
        is_local = uri == run_uri
        cutter = Cutter(Path(uri, "checkpoints"), at, after) if is_local else UploadCutter(at, after)
        cutter.install()
        # It counts from the last batch before the checkpoint on.
        options["data"] = {"acts": {cut["step"] - 1: partial(_begin_behind, cutter, uri, cut["step"] // 2)}}
    if rank == stop_rank:
        threading.Thread(target=_signal_self, args=(run_uri,), daemon=True).start()
    with process_group(rank, world_size, store):
        train_toy(uri, strategy_of(rank, world_size, ParallelConfig(shard=shard)), **options)
    if cutter is not None:
        Path(f"{run_uri}-{rank}.count").write_text(str(cutter.count))
