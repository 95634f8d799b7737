"""Trains from and into an object store that fails: 10 % errors, connections cut, or a minute without it.

    python tests/faults/storage_away.py --trials 30

Two ranks read their shards from an S3 and write their checkpoints there, through a proxy. Of three trials one has a
tenth of its requests answered by 500, 502 or 503, one a tenth of its connections reset, in the midst of bodies too, and
one, from a random request on, 60 s of refused connections. A trial is kept where the run ends by itself with the keys
and losses of an undisturbed one, bit for bit, and nothing in its folder is half written. What was seen is appended to
storage_away.jsonl beside this file; started again, it does the trials that are not there yet.
"""

import os
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from keys_recorded import KEYS, history, run_recorded
from left_over import left_over, missing_files
from picture_shards import write_shards
from processes import run_ranks_with
from servers import Faults, flaky_proxy, object_store
from tiny_recipes import UPSAMPLER

from dalle2_train.checkpoints.layout import losses_uri
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.storage import read_bytes
from dalle2_train.storage.places import open_fs

RESULTS = Path(__file__).with_suffix(".jsonl")
AWAY, SHARE, BUCKET = 60.0, 0.1, "s3://bucket"
SETTINGS = (
    *UPSAMPLER,
    "training.sample_every_steps=0",
    "training.num_steps=40",
    "training.checkpoint_every_steps=10",
)
KINDS = ("errors", "resets", "away")


class StorageTrials(Trials):
    """Shares the store, the shards in it and the undisturbed run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults, self._stack = folder, Faults(), ExitStack()
        url = self._stack.enter_context(flaky_proxy(self._stack.enter_context(object_store()), self.faults))
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
                       KEYS: str(folder / "keys")}  # fmt: skip
        shards = Path(write_shards(folder / "set"))
        fs, _ = open_fs(BUCKET)
        fs.mkdir(BUCKET)
        fs.put(str(shards), f"{BUCKET}/shards", recursive=True)
        recipe = load_recipe("upsampler/tiny", SETTINGS)
        self.whole = TrainJob(recipe, f"{BUCKET}/shards", BUCKET, "whole")
        before = self.faults.counts["requests"]
        self._train(self.whole)
        self.num_requests = self.faults.counts["requests"] - before

    def run(self, seed: int) -> dict[str, Any]:
        kind, draws = KINDS[seed % 3], random.Random(seed)
        job, before = replace(self.whole, name=f"trial-{seed}"), dict(self.faults.counts)
        if kind == "away":
            # Not in its last words: another run may need a few requests less.
            self.faults.outage_after(draws.randrange(self.num_requests * 9 // 10), AWAY)
        else:
            setattr(self.faults, kind, SHARE)
        began = time.monotonic()
        codes = self._train(job)
        seconds = time.monotonic() - began
        self.faults.errors = self.faults.resets = 0.0
        met = {name: self.faults.counts[name] - before[name] for name in before}
        seen = {"kind": kind, "codes": codes, "seconds": round(seconds, 1), **met,
                "left_over": left_over(job), "missing": missing_files(job)}  # fmt: skip
        was_met = met["refused" if kind == "away" else kind] > 0
        kept = (
            codes == [0, 0]
            and was_met
            and self._is_same(job)
            and not seen["left_over"]
            and not seen["missing"]
        )
        return {"class": "storage-away", "seed": seed, "done": True, "seen": seen, "kept": kept}

    def close(self) -> None:
        self._stack.close()

    def _train(self, job: TrainJob) -> list[int | None]:
        errors = str(self.folder / job.name)
        return [code for code, _ in run_ranks_with(job, 2, timeout=400, work=run_recorded, beside=errors)]

    def _is_same(self, job: TrainJob) -> bool:
        texts = [read_bytes(losses_uri(one.run_uri)) for one in (job, self.whole)]
        keys = [history(self.folder / "keys" / one.name) for one in (job, self.whole)]
        return texts[0] == texts[1] and keys[0] == keys[1]


if __name__ == "__main__":
    conduct(RESULTS, StorageTrials, 30, __doc__)
