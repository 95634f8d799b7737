"""A stage runs once per question, goes on after an interruption, and tells how long it took in all."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from dalle2_train.generation.config import GenerationConfig
from dalle2_train.recipe import load_recipe
from dalle2_train.workflow import Workflow
from dalle2_train.workflow.memory import PeakMemory


@dataclass(frozen=True)
class Made:
    path: str
    count: int = 0


def test_a_finished_stage_is_not_run_again_and_gives_its_typed_result(tmp_path):
    calls = []

    def work(tell):
        calls.append(1)
        return Made("here", 3)

    for _ in range(2):
        flow = Workflow(str(tmp_path))
        assert flow.stage("a", Made, work, question={"x": 1}) == Made("here", 3)
    assert len(calls) == 1
    assert Workflow(str(tmp_path)).stage("a", Made, work, question={"x": 2}) == Made("here", 3)
    assert len(calls) == 2, "another question is another stage"


def test_a_setting_that_came_since_with_its_default_is_no_other_question(tmp_path):
    """The question of an older version, which knew neither two of the settings nor a section."""
    recipe, sampler = load_recipe("upsampler/tiny"), GenerationConfig()
    asked = {"recipe": recipe, "samplers": {"ours": sampler}, "workers": 2}
    calls = []

    def work(tell):
        calls.append(1)
        return Made("here")

    def stage(**changed):
        Workflow(str(tmp_path)).stage("a", Made, work, question=asked | changed)
        return len(calls)

    assert stage() == 1
    file = Path(tmp_path, "stages", "a.json")
    record = json.loads(file.read_text())
    del record["question"]["recipe"]["optimizer"]["sam_rho"]
    del record["question"]["recipe"]["model"]["objective"]["vlb_weight"]
    del record["question"]["samplers"]["ours"]["second_upsampler"]
    file.write_text(json.dumps(record))
    assert stage() == 1
    other = replace(recipe, optimizer=replace(recipe.optimizer, sam_rho=0.1))
    assert stage(recipe=other) == 2 and stage(recipe=other) == 2
    assert stage(samplers={"ours": replace(sampler, batch_size=3)}) == 3
    assert stage(samplers={}) == 4
    record = json.loads(file.read_text())
    record["question"]["recipe"]["optimizer"]["of_old"] = 1
    file.write_text(json.dumps(record))
    assert stage(samplers={}) == 5


def test_an_interrupted_stage_runs_again_and_its_seconds_add_up(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0])
    flow = Workflow(str(tmp_path))

    def broken(tell):
        raise KeyboardInterrupt

    monkeypatch.setattr("dalle2_train.workflow.stages._now", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt):
        flow.stage("a", Made, broken, question={})
    flow.stage("a", Made, lambda tell: Made("there"), question={})
    assert flow.records["a"].seconds == 12.0
    assert flow.records["a"].result == {"path": "there", "count": 0}


def test_peak_memory_sees_a_child_process(tmp_path, monkeypatch):
    monkeypatch.setattr("dalle2_train.workflow.stages.PeakMemory", partial(PeakMemory, 0.05))
    hold = "import time; x = bytearray(b'1') * 300_000_000; print('held', flush=True); time.sleep(30)"

    def work(tell):
        child = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1)
        child.kill()
        child.communicate()
        return Made("x")

    flow = Workflow(str(tmp_path))
    flow.stage("without", Made, lambda tell: Made("y"), question={})
    flow.stage("with", Made, work, question={})
    grown = flow.records["with"].peak_memory_gb - flow.records["without"].peak_memory_gb
    assert 0.2 < grown < 0.6  # this process gives some memory back meanwhile
