"""Trains on two nodes that share no /tmp, and looks whether every checkpoint has both ranks' parts.

    python tests/faults/node_tmp.py --trials 20

A trial is a training of two workers, one on each node, into an S3. It is kept where every checkpoint is whole, with a
part of each rank, where one process goes on from it, and where the released weights are those of two ranks that share
all, byte for byte. What was seen is appended to node_tmp.jsonl beside this file; started again, it does the trials that
are not there yet. Needs root and iproute2.
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from left_over import left_over, missing_files
from living_nodes import BUCKET, SHARED, start_driver, workers_nodes
from picture_shards import write_shards
from processes import run_ranks_with
from tiny_recipes import UPSAMPLER

from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, model_uri
from dalle2_train.checkpoints.manifest import FileEntry, read_manifest
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe

RESULTS = Path(__file__).with_suffix(".jsonl")


class TmpTrials(Trials):
    """Shares the cluster and the shards; each trial has a seed of its own to train with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_shards(folder / "set")
        self._stack = ExitStack()
        self.cluster = self._stack.enter_context(workers_nodes(folder))

    def run(self, seed: int) -> dict[str, Any]:
        settings = ("training.sample_every_steps=0", "training.num_steps=20", "training.checkpoint_every_steps=5",
                    "training.keep_checkpoints=9", SHARED, f"training.seed={seed}")  # fmt: skip
        recipe = load_recipe("upsampler/tiny", (*UPSAMPLER, *settings))
        job = TrainJob(recipe, self.data, BUCKET, f"trial-{seed}")
        code = start_driver(self.cluster, job, settings).wait(400)
        steps = committed_steps(job.run_uri)
        parts = [_ranks_with_a_part(checkpoint_uri(job.run_uri, step)) for step in steps]
        left, missing = left_over(job), missing_files(job)
        together = replace(job, storage=str(self.folder), name=f"together-{seed}")
        run_ranks_with(together, 2)
        weights = [_weights(one.run_uri) for one in (job, together)]
        goes_on = self._goes_on(job, settings)
        return {
            "class": "node-tmp", "seed": seed, "done": True,
            "seen": {"steps": steps, "parts": parts, "goes_on": goes_on, "left_over": left, "missing": missing},
            "kept": code == 0 and goes_on and steps == [5, 10, 15, 20] and parts == [[0, 1]] * 4
            and not left and not missing and weights[0] == weights[1],
        }  # fmt: skip

    def _goes_on(self, job: TrainJob, settings: tuple[str, ...]) -> bool:
        """In one process, which holds all weights."""
        alone = load_recipe(
            "upsampler/tiny", (*UPSAMPLER, *settings, "parallel.shard=1", "training.num_steps=22")
        )
        ranks = run_ranks_with(replace(job, recipe=alone), 1, beside=str(self.folder / f"alone-{job.name}"))
        return [code for code, _ in ranks] == [0]

    def close(self) -> None:
        self._stack.close()


def _weights(run_uri: str) -> FileEntry:
    return read_manifest(model_uri(run_uri)).files["model.safetensors"]


def _ranks_with_a_part(folder: str) -> list[int]:
    return sorted(int(name.split("_")[2]) for name in read_manifest(folder).files if name.startswith("__"))


if __name__ == "__main__":
    conduct(RESULTS, TmpTrials, 20, __doc__)
