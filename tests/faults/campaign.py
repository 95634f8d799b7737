"""How a class of trials is conducted: a line a trial, resumable, with progress and the time left."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Trials(ABC):
    """What the trials of a class share, and one of them."""

    @abstractmethod
    def run(self, seed: int) -> dict[str, Any]:
        """The trial's line: class, seed, done, seen, kept."""

    def close(self) -> None:  # noqa: B027 - most share files alone
        """Ends what they share."""


def lines_of(results: Path) -> list[dict[str, Any]]:
    """Those that are whole: a kill may have cut the last."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]


def conduct(results: Path, open_trials: Callable[[Path], Trials], count: int, about: str | None) -> None:
    """Do the trials that are not in `results` yet, of as many as --trials says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=count)
    asked = parser.parse_args().trials
    lines = lines_of(results)
    missing = sorted(set(range(asked)) - {line["seed"] for line in lines if line["done"]})
    if missing:
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(open_trials(Path(folder))) as trials:
            _do(results, trials, missing)
    lines = lines_of(results)
    broken = [line["seed"] for line in lines if not line["kept"]]
    print(f"{results.stem}: {len(lines)} trials, {len(lines) - len(broken)} kept; broken: {broken or 'none'}")
    sys.exit(3 if broken else 0)


def _do(results: Path, trials: Trials, seeds: list[int]) -> None:
    began = time.monotonic()
    results.write_text(
        "".join(json.dumps(line) + "\n" for line in lines_of(results))
    )  # without a line that was cut
    with results.open("a", buffering=1) as stream:
        for done, seed in enumerate(seeds):
            line = trials.run(seed)
            stream.write(json.dumps(line) + "\n")
            left = (time.monotonic() - began) / (done + 1) * (len(seeds) - done - 1)
            verdict = "kept" if line["kept"] else "BROKEN"
            print(
                f"{results.stem} {done + 1}/{len(seeds)} {verdict} {left / 60:.0f} min left", file=sys.stderr
            )
