"""The line of progress says true things."""

import json
import time
from pathlib import Path

import pytest

from dalle2_train.storage import publish_json
from dalle2_train.workflow.curves import running_mean
from dalle2_train.workflow.progress import Status, clock, describe, on_a_line, watch_run


def test_the_line_says_how_far_and_how_long():
    assert describe(Status(200, 800, loss=0.5), elapsed=30.0) == "   200/800   25 %  loss 0.5000  1:30 left"
    assert describe(Status(8, 8, seconds_left=0.0), elapsed=1.0) == "     8/8  100 %  0:00 left"
    assert describe(None, elapsed=61.0) == "… 1:01"
    assert clock(3599.6) == "60:00"


def test_of_a_training_that_goes_on_the_time_left_is_not_guessed(tmp_path: Path):
    """Its steps were done by an earlier command: the seconds of this one say nothing of them."""
    watch = watch_run(str(tmp_path))
    told = {"step": 112, "num_steps": 150, "loss": None, "seconds_left": None, "status": "running",
            "updated": time.time() + 1}  # fmt: skip
    publish_json(str(tmp_path / "progress.json"), told)
    assert describe(watch(), elapsed=20.0) == "   112/150   74 %"
    publish_json(str(tmp_path / "progress.json"), {**told, "seconds_left": 72.0})
    assert describe(watch(), elapsed=20.0) == "   112/150   74 %  1:12 left"


def test_an_earlier_attempts_last_word_is_not_shown(tmp_path):
    told = {"step": 3, "num_steps": 9, "loss": 1.5, "seconds_left": 6.0, "status": "running",
            "updated": time.time() - 600}  # fmt: skip
    (tmp_path / "progress.json").write_text(json.dumps(told))
    watch = watch_run(str(tmp_path))
    assert watch() is None
    # Who asks for it is shown it; how much time was left does not hold any more.
    assert watch_run(str(tmp_path), since=0.0)() == Status(3, 9, 1.5, from_start=False)
    now = {**told, "updated": time.time() + 1}
    (tmp_path / "progress.json").write_text(json.dumps({**now, "status": "finished"}))
    assert watch() == Status(3, 9, 1.5, from_start=False)
    (tmp_path / "progress.json").write_text(json.dumps(now))
    assert watch() == Status(3, 9, 1.5, 6.0, from_start=False)


def test_a_block_on_a_line_is_told_to_its_end(capsys):
    with on_a_line("draw") as line:
        line.tell(1, 2)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("draw         … ") and last == "draw         done in 0:00"
    with pytest.raises(ValueError, match="odd"), on_a_line("draw"):
        raise ValueError("odd")
    assert capsys.readouterr().err.splitlines()[-1] == "draw         stopped after 0:00"


def test_a_line_begins_with_what_is_known(capsys):
    with on_a_line("run", first=Status(3, 9)):
        pass
    assert capsys.readouterr().err.splitlines()[0].startswith("run               3/9")


def test_running_mean_is_the_mean_of_the_last_ones():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]
