"""Sets with something wrong in them: found by the check, survived by the stream, nothing lost and nothing executed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import SECOND, Case
from hostile_cases import CASES, EXECUTED

from dalle2_train.data.faults import SAMPLE_KINDS, SHARD_KINDS

GIGABYTE = 1 << 30
SUPPORT = Path(__file__).parents[2] / "support"

cases = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for case in CASES:
        case.build(folder / case.name)
    return folder


@pytest.fixture(scope="module")
def checks(folder: Path) -> dict[str, Any]:
    return results("check", folder)


@pytest.fixture(scope="module")
def streams(folder: Path, checks: dict[str, Any]) -> dict[str, Any]:
    return results("stream", folder)


def results(what: str, folder: Path) -> dict[str, Any]:
    """What a process of its own says of every set: its memory is measured."""
    path = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "hostile_run.py"), what, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@cases
def test_the_check_finds_it(case: Case, checks: dict[str, Any]):
    found = {tuple(fault) for fault in checks[case.name]["faults"]}
    assert {(SECOND, key, kind) for key, kind in case.faults} <= found
    assert {shard for shard, _, _ in found} == ({SECOND} if case.faults else set())


@cases
def test_the_stream_loses_nothing_silently(case: Case, streams: dict[str, Any]):
    found = streams[case.name]
    assert len(found["delivered"]) == case.delivered
    assert found["expected"] == case.expected
    assert len(found["delivered"]) + found["known"] + found["met"] + found["filtered"] == case.expected


def test_every_whole_sample_is_delivered_once(streams: dict[str, Any]):
    of_fine = [sorted(streams[case.name]["delivered"]) for case in CASES if not case.faults]
    keys = [f"sample {shard:05d}{number:04d}" for shard in range(2) for number in range(6)]
    assert of_fine and all(captions == keys for captions in of_fine)


def test_nothing_is_executed(folder: Path, streams: dict[str, Any]):
    assert not (folder / EXECUTED).exists()


@pytest.mark.parametrize("what", ["checks", "streams"])
def test_memory_stays_under_a_gigabyte(what: str, request: pytest.FixtureRequest):
    peaks = {name: found["peak"] for name, found in request.getfixturevalue(what).items()}
    assert {name: peak for name, peak in peaks.items() if peak >= GIGABYTE} == {}


def test_the_payloads_are_live(folder: Path, tmp_path: Path):
    """A corpus whose bombs are duds proves nothing."""
    import pickle

    from hostile_cases import Payload

    pickle.loads(pickle.dumps(Payload(str(tmp_path / EXECUTED))))
    assert (tmp_path / EXECUTED).exists()


def test_kinds_are_of_the_list():
    assert len(CASES) > 30
    kinds = {(key is None, kind) for case in CASES for key, kind in case.faults}
    assert all(kind in (SHARD_KINDS if of_shard else SAMPLE_KINDS) for of_shard, kind in kinds)
