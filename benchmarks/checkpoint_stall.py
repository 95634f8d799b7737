"""How long a checkpoint keeps a training waiting: beside the training, as ours are written, and in the midst of it.

    python -m benchmarks.checkpoint_stall [--channels 192,384] [--batch 16]

Two ranks train an upsampler with FSDP2 on one machine and save every 10 steps into a local folder. Who waits is the
training thread: for the copy of its tensors, or for the whole save. Promised: less than one step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import photographs
from benchmarks.measure import Promise, alternate, circumstances, table

ROUNDS, NUM_STEPS, EVERY, RANKS = 4, 42, 10, 2
"""The first save, of step 10, warms up."""
BESIDE, AMIDST = "beside the training", "in the midst of it"


@dataclass
class Watch:
    """A recorder that keeps seconds: of the steps without a save, and of what saves kept waiting."""

    steps: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)

    def callback(self) -> Any:
        import pytorch_lightning as pl

        watch = self

        class Laps(pl.Callback):
            def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
                # A save is begun when its step has ended, so that it is in the lap of the next.
                before = module.completed_steps - 1
                if before > EVERY:
                    (watch.stalls if before % EVERY == 0 else watch.steps).append(
                        module.lap.checkpoint if before % EVERY == 0 else module.lap.useful
                    )

        return Laps()


def main() -> int:
    """Writes the JSON; 1 where the promise is not kept."""
    args = _parse()
    with tempfile.TemporaryDirectory() as folder:
        data = photographs.shards(str(Path(folder) / "shards"), 64, 64)
        steps: list[float] = []

        def run(is_beside: bool) -> float:
            found = _train(Path(folder), data, args, is_beside)
            steps.append(1000 * median(found.steps))
            return 1000 * median(found.stalls)

        measured = alternate({BESIDE: lambda: run(True), AMIDST: lambda: run(False)}, "ms", ROUNDS)
    step = median(steps)
    promises = [
        Promise("waiting beside the training / a step", measured[BESIDE].median / step, most=1.0),
        Promise(
            "waiting in the midst / beside", measured[AMIDST].median / measured[BESIDE].median, least=1.0
        ),
    ]
    found = {
        **circumstances("make bench-checkpoints"),
        "step_ms": round(step, 1),
        "waiting": {name: one.to_json() for name, one in measured.items()},
        "promises": {promise.name: promise.to_json() for promise in promises},
        "channels": args.channels,
        "batch": args.batch,
    }
    args.to.write_text(json.dumps(found, indent=1) + "\n")
    print(f"a step: {step:.0f} ms", table(measured, promises), sep="\n")
    return 0 if all(promise.kept for promise in promises) else 1


def _train(folder: Path, data: str, args: argparse.Namespace, is_beside: bool) -> Watch:
    """Of rank 0."""
    run = folder / f"run-{len(list(folder.glob('run-*')))}"
    run.mkdir()
    with ProcessPoolExecutor(RANKS, mp.get_context("spawn")) as ranks:
        asked = [ranks.submit(_rank, rank, run, data, _settings(args), is_beside) for rank in range(RANKS)]
        # Of a rank that fails or dies the first to be asked hears, through gloo or the pool.
        return next(one.result(timeout=600) for one in asked)


def _rank(rank: int, folder: Path, data: str, settings: Sequence[str], is_beside: bool) -> Watch:
    import torch
    import torch.distributed as dist

    from dalle2_train.launch import TrainJob
    from dalle2_train.launch.worker import Host, run
    from dalle2_train.recipe import load_recipe
    from dalle2_train.training import fit as fitting
    from dalle2_train.training.strategy import MeshStrategy

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "store"), RANKS), rank=rank, world_size=RANKS
    )
    job = TrainJob(load_recipe("upsampler/tiny", settings), data, str(folder), "run")
    if not is_beside:
        _save_amidst()
    watch, real = Watch(), fitting.run_steps
    fitting.run_steps = lambda module, stream, strategy, callbacks: real(
        module, stream, strategy, [*callbacks, watch.callback()]
    )
    strategy = MeshStrategy(job.recipe.parallel, torch.device("cpu"), local_rank=rank, local_world_size=RANKS)
    run(job, strategy, Host())
    dist.destroy_process_group()
    return watch


def _save_amidst() -> None:
    from dalle2_train.checkpoints.saver import Saver

    begin = Saver.begin

    def begin_and_wait(self: Saver, snapshot: Any) -> None:
        begin(self, snapshot)
        self.wait()

    Saver.begin = begin_and_wait


def _settings(args: argparse.Namespace) -> list[str]:
    return [
        f"model.network.channels=[{args.channels}]", f"training.global_batch_size={args.batch}",
        f"training.num_steps={NUM_STEPS}", f"training.checkpoint_every_steps={EVERY}",
        "training.sample_every_steps=0", "training.num_threads=1", "training.precision=fp32",
        "optimizer.name=adamw", "data.block_size=16",
    ]  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", default="192,384")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--to", type=Path, default=Path("docs/results/checkpoint_stall.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
