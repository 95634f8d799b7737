"""Cuts the writing of a checkpoint at every write, rename, removal and upload, goes on, and compares.

    python tests/faults/checkpoint_cut.py --trials 200

Two ranks train into a folder or an S3; one of them is killed in the midst of one of the things that it does there while
the second checkpoint is written, and the other with it. Where, which rank and which thing follow from the seed. A trial
is kept where the same two ranks go on to the losses and weights of an undisturbed run, byte for byte, and leave nothing
half written. What was seen is appended to checkpoint_cut.jsonl beside this file, a line a trial; started again, it does
the trials that are not there yet.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from processes import finish_ranks, run_ranks, start_ranks
from servers import object_store
from toy_training import losses

from dalle2_train.checkpoints.layout import committed_steps, started_steps
from dalle2_train.storage import download_tree
from dalle2_train.storage.places import open_fs

RESULTS = Path(__file__).with_suffix(".jsonl")
OPTIONS: dict[str, Any] = {"dtype": "float64", "num_steps": 9, "checkpoint_every_steps": 3, "dropout": 0.3}
FROM_STEP = 6
"""The save that is cut is the one of this step; the one before is whole."""
BUCKET = "s3://runs"


class Place(NamedTuple):
    """What is cut."""

    is_remote: bool
    rank: int
    at: int
    """1: its first one."""
    after: bool
    """Once it is done, rather than in its midst."""


class CutTrials(Trials):
    """Shares the undisturbed run, the store and the list of all that can be cut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._stack = folder, ExitStack()
        url = self._stack.enter_context(object_store())
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        open_fs(BUCKET)[0].mkdir(BUCKET)
        self.whole = folder / "whole"
        assert [code for code, _ in run_ranks(self.whole, 2, **OPTIONS)] == [0, 0]
        counts = [(is_remote, rank, count) for is_remote in (False, True)
                  for rank, count in enumerate(self._count(is_remote))]  # fmt: skip
        self.places = [Place(is_remote, rank, at + 1, after) for after in (False, True)
                       for is_remote, rank, count in counts for at in range(count)]  # fmt: skip

    def run(self, seed: int) -> dict[str, Any]:
        place = self.places[seed % len(self.places)]
        run = self.folder / f"trial-{seed}"
        uri, options = self._options(run, place.is_remote)
        cut = {"step": FROM_STEP, "at": place.at, "rank": place.rank, "after": place.after}
        ranks = start_ranks(run, 2, **options, cut=cut)
        ranks[place.rank].join(60)
        killed = ranks[place.rank].exitcode == -9
        ranks[1 - place.rank].kill()
        finish_ranks(run, ranks)
        before = committed_steps(uri)
        codes = [code for code, _ in run_ranks(run, 2, **options)]
        left = sorted(set(started_steps(uri)) - set(committed_steps(uri)))
        if place.is_remote:
            download_tree(uri, run)
        kept = killed and codes == [0, 0] and self._is_same(run) and not left
        shutil.rmtree(run)
        seen = {**place._asdict(), "killed": killed, "committed": before, "left_over": left}
        return {"class": "checkpoint-cut", "seed": seed, "done": True, "seen": seen, "kept": kept}

    def close(self) -> None:
        self._stack.close()

    def _count(self, is_remote: bool) -> list[int]:
        """Of each rank, how many things there are to be cut."""
        run = self.folder / f"counted-{is_remote}"
        _, options = self._options(run, is_remote)
        run_ranks(run, 2, **options, cut={"step": FROM_STEP, "at": None, "rank": None})
        return [int((self.folder / f"{run.name}-{rank}.count").read_text()) for rank in range(2)]

    def _options(self, run: Path, is_remote: bool) -> tuple[str, dict[str, Any]]:
        """(where the run is, what its ranks are told)."""
        if not is_remote:
            return str(run), OPTIONS
        uri = f"{BUCKET}/{run.name}"
        return uri, {**OPTIONS, "uri": uri}

    def _is_same(self, run: Path) -> bool:
        models = [folder / "model" / "model.safetensors" for folder in (run, self.whole)]
        same_model = models[0].read_bytes() == models[1].read_bytes()
        return same_model and losses(str(run)) == losses(str(self.whole))


if __name__ == "__main__":
    conduct(RESULTS, CutTrials, 200, __doc__)
