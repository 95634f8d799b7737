"""Flips one bit of a checkpoint, in whatever file of it, and looks whether it is found before anything is loaded.

    python tests/faults/checkpoint_flip.py --trials 100

Which file, byte and bit follow from the seed. A trial is kept where the newest checkpoint is passed over, the older one
is taken, and the run goes on from there to the numbers of an undisturbed one. What was seen is appended to
checkpoint_flip.jsonl beside this file, a line a trial; started again, it does the trials that are not there yet.
"""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from processes import run_ranks
from toy_training import losses

from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps

RESULTS = Path(__file__).with_suffix(".jsonl")
OPTIONS: dict[str, Any] = {"dtype": "float64", "num_steps": 9, "checkpoint_every_steps": 3, "dropout": 0.3}


class FlipTrials(Trials):
    """Shares the undisturbed run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, folder / "whole"
        assert [code for code, _ in run_ranks(self.whole, 2, **OPTIONS)] == [0, 0]
        assert committed_steps(str(self.whole)) == [6, 9]

    def run(self, seed: int) -> dict[str, Any]:
        draws = random.Random(seed)
        run = self.folder / f"trial-{seed}"
        shutil.copytree(self.whole, run)
        shutil.rmtree(run / "model")
        files = sorted(file for file in Path(checkpoint_uri(str(run), 9)).iterdir() if file.is_file())
        file = files[seed % len(files)]
        data = bytearray(file.read_bytes())
        place, bit = draws.randrange(len(data)), draws.randrange(8)
        data[place] ^= 1 << bit
        file.write_bytes(bytes(data))
        results = run_ranks(run, 2, **OPTIONS)
        found = "step-00000009 is not whole" in results[0][1] and "going on from" in results[0][1]
        is_same = [code for code, _ in results] == [0, 0] and losses(str(run)) == losses(str(self.whole))
        shutil.rmtree(run)
        seen = {"file": file.name, "byte": place, "bit": bit, "of": len(data), "found": found}
        return {
            "class": "checkpoint-flip",
            "seed": seed,
            "done": True,
            "seen": seen,
            "kept": found and is_same,
        }


if __name__ == "__main__":
    conduct(RESULTS, FlipTrials, 100, __doc__)
