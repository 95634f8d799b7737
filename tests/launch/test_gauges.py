"""What Prometheus is shown of a training at each time of logging: Ray forgets a value that is not told anew."""

from typing import Any

import pytest

from dalle2_train.launch import gauges
from dalle2_train.launch.gauges import Gauges

Told = list[tuple[str, float]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """(name, value) of all that Ray is told of the run "up"."""
    told: Told = []

    class Metric:
        def __init__(self, name: str, *_: Any) -> None:
            self.name = name.removeprefix("dalle2_")

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert tags == {"run": "up"}
            told.append((self.name, value))

        inc = set

    monkeypatch.setattr(gauges, "Gauge", Metric)
    monkeypatch.setattr(gauges, "Counter", Metric)
    return told


def test_each_time_has_all_that_a_panel_divides_by(told: Told):
    shown = Gauges("up", 100)
    for step in (10, 20):
        told.clear()
        shown.metrics(step, {"loss": 0.5, "gradient_norm": 1.0})
        assert sorted(told) == [("faulty_samples", 0.0), ("loss", 0.5), ("num_steps", 100), ("step", step)]


def test_faults_are_those_on_record_however_often_it_starts(told: Told):
    for attempt in range(3):
        told.clear()
        shown = Gauges("up", 100)
        shown.begin(10 * attempt)
        shown.metrics(10 * attempt, {"faults/undecodable": 3.0, "faults/missing": 1.0})
        shown.metrics(10 * attempt + 10, {"loss": 0.5})
        assert [value for name, value in told if name == "faulty_samples"] == [4.0, 4.0]
        assert [value for name, value in told if name == "restarts"] == ([1] if attempt else [])


def test_updates_that_were_left_out_are_counted(told: Told):
    Gauges("up", 100).metrics(10, {"skipped_steps": 2.0, "loss_spikes": 0.0})
    assert ("skipped_steps", 2.0) in told and "loss_spikes" not in dict(told)
