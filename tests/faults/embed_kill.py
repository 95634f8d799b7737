"""Kills `shards embed` at random moments, starts it again, and compares every file with an uninterrupted run's.

    python tests/faults/embed_kill.py --trials 20

A trial kills twice. What it saw is appended to embed_kill.jsonl beside this file, a line a trial; started again, it
does the trials that are not there yet.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from folders import contents
from forked import PATIENCE, Forked

RESULTS = Path(__file__).with_suffix(".jsonl")
NUM_SHARDS = 8


class Reference:
    """The set to be embedded, and what an uninterrupted run makes of it."""

    def __init__(self, runs: Forked, folder: Path) -> None:
        self.folder = folder
        runs.finish([runs.start("write_set", folder)])
        runs.finish([runs.start("embed_set", folder, folder / "whole")])
        self.files, self.keys = contents(folder / "whole"), keys(folder / "whole")


def run_trial(runs: Forked, reference: Reference, to: Path, seed: int) -> dict[str, Any]:
    """The line of results. "kept" says whether every file and key is that of the uninterrupted run."""
    draws = random.Random(seed)
    kills = [_kill_at_random(runs.start("embed_set", reference.folder, to), to, draws) for _ in range(2)]
    runs.finish([runs.start("embed_set", reference.folder, to)])
    found = keys(to)
    kept = found == reference.keys and len(set(found)) == len(found) and contents(to) == reference.files
    seen = {"kills": kills, "keys": len(found)}
    return {"class": "embed-kill", "seed": seed, "done": True, "seen": seen, "kept": kept}


def _kill_at_random(process: Any, to: Path, draws: random.Random) -> dict[str, int]:
    """SIGKILL a moment after a random part is whole, at times before the first; returns which parts were.

    One that ended well before its moment is not killed; one that failed by itself: RuntimeError.
    """
    begun = _num_parts(to)
    wanted, pause = draws.randint(begun, NUM_SHARDS), draws.uniform(0, 0.08)
    deadline = time.monotonic() + PATIENCE
    while _num_parts(to) < wanted and process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.join(pause)
    if process.exitcode is None:
        process.kill()
    process.join(PATIENCE)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"embedding ended with {process.exitcode} before it was killed")
    return {"from": begun, "wanted": wanted, "reached": _num_parts(to), "exit": process.exitcode}


def _num_parts(to: Path) -> int:
    return sum(1 for _ in to.glob("parts/part_*.json"))


def keys(folder: Path) -> list[str]:
    """Of all samples, part after part."""
    tables = [pq.read_table(file, columns=["key"]) for file in sorted(folder.glob("metadata/*.parquet"))]
    return [key for table in tables for key in table.column("key").to_pylist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    trials = parser.parse_args().trials
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    done = {json.loads(line)["seed"] for line in lines}
    runs = Forked("embed_child")
    with tempfile.TemporaryDirectory() as temporary, RESULTS.open("a", buffering=1) as results:
        reference = Reference(runs, Path(temporary) / "set")
        for seed in sorted(set(range(trials)) - done):
            line = run_trial(runs, reference, Path(temporary) / f"trial-{seed}", seed)
            results.write(json.dumps(line) + "\n")
    if not all(json.loads(line)["kept"] for line in RESULTS.read_text().splitlines()):
        sys.exit(f"not every trial kept what it should: see {RESULTS}")


if __name__ == "__main__":
    main()
