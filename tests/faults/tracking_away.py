"""Stops or freezes the MLflow server of a training for a minute, again and again.

    python tests/faults/tracking_away.py --trials 20

One rank trains all the while; trials with an even number stop the server, the others freeze it. They are kept where in
the end MLflow has each loss once, as losses.jsonl has it, and where the median time of a step while the server was away
is within 5 % of that while it was there. That is asked of the alternating spans of all of a training: a machine's own
moods move the median of twelve seconds by more, which each trial's own ratio shows. Nor may any ten steps that lie in
the minute, or reach into it, take two seconds longer than usual, for a median tells of no pause; a call that waits for
MLflow takes as long as that. (Of a pause wholly after its return only the medians tell.) Nothing else may run on the
machine.
What was seen is appended to tracking_away.jsonl beside this file when the training has ended; started again, it does
the trials that are not there.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from mlflow import MlflowClient
from mlflow_server import MlflowServer
from picture_shards import write_shards
from processes import finish_ranks, start_ranks_with
from ray_workers import wait_for_step
from tiny_recipes import UPSAMPLER

from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.storage import publish_bytes

RESULTS = Path(__file__).with_suffix(".jsonl")
THERE, AWAY, START, TOGETHER, CLOSE, PAUSE = 12.0, 60.0, 6.0, 20, 0.05, 2.0
"""Seconds, but for TOGETHER, trials a training, and CLOSE, a share. START: what a server takes, about: it is away for a
minute."""
LOG_EVERY, LEAST_STEPS = 10, 200
SETTINGS = (*UPSAMPLER, "training.sample_every_steps=0", "training.num_steps=10000000", "training.num_threads=1",
            f"training.log_every_steps={LOG_EVERY}", "training.checkpoint_every_steps=1000")  # fmt: skip
Span = tuple[float, float]
"""Seconds since 1970, from and to."""


class TrackingTrials(Trials):
    """Trials of one call are one training."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._found = folder, dict[int, dict[str, Any]]()
        self.server = MlflowServer(folder)
        recipe = load_recipe("upsampler/tiny", SETTINGS)
        self.job = TrainJob(
            recipe, write_shards(folder / "set"), str(folder), "run", tracking=self.server.url
        )

    def run(self, seed: int) -> dict[str, Any]:
        if seed not in self._found:
            self._found = self._training(range(seed, TOGETHER * (seed // TOGETHER + 1)))
        return self._found[seed]

    def close(self) -> None:
        self.server.thaw()
        self.server.stop()

    def _training(self, seeds: range) -> dict[int, dict[str, Any]]:
        job = replace(self.job, name=f"run-{seeds[0]}")
        run = Path(job.run_uri)
        ranks = start_ranks_with(job, 1)
        wait_for_step(run, 100)
        spans = [self._away(seed) for seed in seeds]
        time.sleep(THERE)
        publish_bytes(stop_uri(job.run_uri), b"")
        told = finish_ranks(run, ranks)[0][1]
        ended = "PreemptedError" in told
        points = self._points(job)
        lines = [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]
        wanted = [(line["step"], line["loss"]) for line in lines if line["step"] % LOG_EVERY == 0]
        is_whole = [(step, loss) for step, loss, _ in points] == wanted
        moments = {step: moment for step, _, moment in points}
        timed = [tuple(steps_of(moments, span) for span in pair) for pair in spans]
        all_there, all_away = (list(chain(*times)) for times in zip(*timed, strict=True))
        of_all = middle(all_away) / middle(all_there)
        is_close = LOG_EVERY * min(len(all_there), len(all_away)) >= LEAST_STEPS and abs(of_all - 1) <= CLOSE
        usual = LOG_EVERY * middle(all_there) / 1000  # seconds that ten steps take
        found = {}
        for seed, (there, away), (_, minute) in zip(seeds, timed, spans, strict=True):
            there_ms, away_ms = middle(there), middle(away)
            steps = [LOG_EVERY * len(times) for times in (there, away)]
            pause = longest_of(moments, minute) - usual
            found[seed] = {
                "class": "tracking-away", "seed": seed, "done": True,
                "seen": {"how": ("stopped", "frozen")[seed % 2], "ms_there": round(there_ms, 2),
                         "ms_away": round(away_ms, 2), "ratio": round(away_ms / there_ms, 4),
                         "ratio_of_all": round(of_all, 4), "pause_s": round(pause, 2), "steps": steps,
                         "points": len(points), "whole": is_whole, "ended": ended},
                "kept": ended and is_whole and is_close and pause <= PAUSE,
            }  # fmt: skip
        return found

    def _away(self, seed: int) -> tuple[Span, Span]:
        leave, back, takes = self._ways()[seed % 2]
        began = time.time()
        time.sleep(THERE)
        left = time.time()
        leave()
        time.sleep(AWAY - takes)
        returned = time.time()
        # A server that starts is still away, but loads the machine: those seconds are of neither span.
        back()
        return (began, left), (left, returned)

    def _ways(self) -> list[tuple[Callable[[], None], Callable[[], None], float]]:
        """(leave, back, the seconds that back takes)."""
        return [(self.server.stop, self.server.start, START), (self.server.freeze, self.server.thaw, 0.0)]

    def _points(self, job: TrainJob) -> list[tuple[int, float, float]]:
        """(step, loss, when) of all that MLflow has of the run."""
        client = MlflowClient(self.server.url)
        experiment = client.get_experiment_by_name(job.experiment)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        (found,) = [one for one in runs if one.info.run_name == job.name]
        history = client.get_metric_history(found.info.run_id, "loss")
        return sorted((one.step, one.value, one.timestamp / 1000) for one in history)


def steps_of(moments: dict[int, float], span: Span) -> list[float]:
    """Milliseconds a step of every ten inside the span."""
    return [
        1000 * (moments[step] - moments[step - LOG_EVERY]) / LOG_EVERY
        for step in moments
        if step - LOG_EVERY in moments and moments[step - LOG_EVERY] >= span[0] and moments[step] <= span[1]
    ]


def middle(times: list[float]) -> float:
    """Their median; where training stood still, no number, which is within no bound."""
    return median(times) if times else math.nan


def longest_of(moments: dict[int, float], span: Span) -> float:
    """Seconds of the longest ten steps that lie in the span or reach into it: whoever waits for its end does so."""
    pairs = ((moments[step - LOG_EVERY], moments[step]) for step in moments if step - LOG_EVERY in moments)
    return max((end - begin for begin, end in pairs if end > span[0] and begin < span[1]), default=math.inf)


if __name__ == "__main__":
    conduct(RESULTS, TrackingTrials, 20, __doc__)
