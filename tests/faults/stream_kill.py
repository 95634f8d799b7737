"""Kills the ranks that read a stream at random moments, goes on with another number of them, and compares the keys.

    python tests/faults/stream_kill.py --trials 50

A trial kills twice; its world sizes, loader workers and moments follow from its seed. What it saw is appended to
stream_kill.jsonl beside this file, a line a trial; started again, it does the trials that are not there yet.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from forked import PATIENCE, Forked

RESULTS = Path(__file__).with_suffix(".jsonl")
NUM_STEPS, EVERY, SECONDS = 150, 4, 0.002


def run_trial(ranks: Forked, sets: Path, folder: Path, seed: int) -> dict[str, Any]:
    """The line of results. "kept" says whether the keys of all steps are those of an uninterrupted run."""
    draws = random.Random(seed)
    uri = str(sets / ("mixture.yaml" if seed % 2 else "set"))
    attempts: list[dict[str, int]] = []
    for number in range(3):
        world_size = draws.choice([n for n in (1, 2, 4) if not attempts or n != attempts[-1]["world_size"]])
        attempt = {
            "world_size": world_size,
            "workers": draws.choice([0, 0, 1, 3]),
            "from": _committed(folder),
        }
        started = _start(ranks, folder, number, uri, attempt)
        if number < 2:
            _kill_at_random(started, folder, number, draws, attempt["from"])
        else:
            ranks.finish(started)
        attempts.append({**attempt, "reached": _reached(folder, number)})
    found = history(folder, [attempt["from"] for attempt in attempts])
    kept = found == uninterrupted(ranks, sets, uri)
    return {"class": "stream-kill", "seed": seed, "done": True, "seen": attempts, "kept": kept}


def uninterrupted(ranks: Forked, sets: Path, uri: str) -> dict[int, dict[int, int]]:
    """The keys of all steps, read by one rank alone; read once and kept."""
    folder = sets / f"uninterrupted-{Path(uri).stem}"
    if not (folder / "done").exists():
        folder.mkdir()
        ranks.finish(_start(ranks, folder, 0, uri, {"world_size": 1, "workers": 0}))
        (folder / "done").touch()
    return history(folder, [0])


def history(folder: Path, starts: list[int]) -> dict[int, dict[int, int]]:
    """Step → global index → key, as trained on: where an attempt starts, what came later before is undone."""
    found: dict[int, dict[int, int]] = {}
    for attempt, start in enumerate(starts):
        found = {step: keys for step, keys in found.items() if step < start}
        for file in folder.glob(f"keys-{attempt}-*.jsonl"):
            for step, keys in _lines(file):
                batch = found.setdefault(step, {})
                assert not set(batch) & {index for index, _ in keys}, "two ranks have read one place"
                batch.update(map(tuple, keys))
    return found


def _start(ranks: Forked, folder: Path, attempt: int, uri: str, how: dict[str, int]) -> list[Any]:
    options = {"workers": how["workers"], "every": EVERY, "seconds": SECONDS}
    return [
        ranks.start("read_as_rank", folder, attempt, rank, how["world_size"], uri, NUM_STEPS, **options)
        for rank in range(how["world_size"])
    ]


def _kill_at_random(started: list[Any], folder: Path, attempt: int, draws: random.Random, begin: int) -> None:
    """SIGKILL to each, in any order, when they have come to a random step; sometimes before they have begun."""
    step = draws.randrange(begin, NUM_STEPS)
    deadline = time.monotonic() + (draws.uniform(0, 0.5) if draws.random() < 0.1 else PATIENCE)
    while _reached(folder, attempt) < step and time.monotonic() < deadline:
        # They may have come to the step, and ended, since it was looked.
        if all(process.exitcode is not None for process in started) and _reached(folder, attempt) < step:
            raise RuntimeError("the ranks ended before they were killed")
        time.sleep(0.001)
    time.sleep(draws.uniform(0, 0.01))
    for process in draws.sample(started, len(started)):
        process.kill()
        time.sleep(draws.uniform(0, 0.005))
    for process in started:
        process.join(PATIENCE)


def _committed(folder: Path) -> int:
    return max((int(file.stem.split("-")[1]) for file in folder.glob("checkpoint-*.json")), default=0)


def _reached(folder: Path, attempt: int) -> int:
    """Steps that some rank of the attempt has done; 0: none yet."""
    files = folder.glob(f"keys-{attempt}-*.jsonl")
    return max((lines[-1][0] + 1 for file in files if (lines := _lines(file))), default=0)


def _lines(file: Path) -> list[Any]:
    """Whole lines; the kill may have cut the last."""
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    trials = parser.parse_args().trials
    done = {line["seed"] for line in _lines(RESULTS) if line["done"]} if RESULTS.exists() else set()
    ranks = Forked("stream_rank")
    with tempfile.TemporaryDirectory() as temporary, RESULTS.open("a", buffering=1) as results:
        sets = Path(temporary) / "sets"
        ranks.finish([ranks.start("write_sets", sets)])
        for seed in sorted(set(range(trials)) - done):
            folder = Path(temporary) / f"trial-{seed}"
            folder.mkdir()
            line = run_trial(ranks, sets, folder, seed)
            results.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr)


if __name__ == "__main__":
    main()
