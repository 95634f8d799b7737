"""The command line's manners: exit codes, one message, JSON on the last line, nothing heavy to parse."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle2_train import cli
from dalle2_train.checkpoints.holder import Holder
from dalle2_train.cli import main
from dalle2_train.cli.manners import Outcome
from dalle2_train.errors import InputError, PreemptedError, RefusedError
from dalle2_train.storage import publish_json
from dalle2_train.training.goodput import Goodput
from dalle2_train.training.stopwatch import Lap

COMMANDS = ("recipes", "doctor", "shards", "train", "runs", "evaluate", "promote", "export", "sample",
            "vary", "interpolate", "textdiff", "inpaint", "probe")  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (70 + i, 80), (20 * i, 90, 200)).save(folder / f"{i:03d}.png")
        (folder / f"{i:03d}.txt").write_text(f"colour number {i}")
    return folder


def last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dalle2_train.cli import build_parser; text = build_parser().format_help();"
        f"assert all(name in text for name in {COMMANDS}), text;"
        "heavy = {'torch', 'pydantic', 'yaml', 'numpy', 'fsspec', 'ray', 'mlflow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, *(f"shards {step}" for step in ("ingest", "index", "check", "stats", "score", "embed"))],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert f"dalle2-train {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("too wide"), 2),
        (RefusedError("a fault"), 3),
        (PreemptedError("stopped"), 75),
        (KeyError("oh"), 1),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise error

    monkeypatch.setattr(cli.setup, "_recipes", fail)
    assert main(["recipes"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert str(error) in said.err
    assert ("Traceback" in said.err) == (code == 1)


def test_recipes_lists_one_name_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "prior/tiny" in capsys.readouterr().out.splitlines()


def test_a_printed_recipe_is_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "prior/tiny", "--set", "training.num_steps=7", "--json"]) == 0
    found = last_json(capsys)
    assert found["training"]["num_steps"] == 7
    assert found["optimizer"]["beta1"] == 0.9


def test_a_printed_recipe_begins_with_its_header_and_the_count_of_what_was_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recipes", "prior/karlo"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Karlo's diffusion prior.\n")
    assert printed.count("# Parameters: ") == 1 and "# Parameters: 1,022,028,544." in printed
    assert "\nfamily: prior\n" in printed
    assert main(["recipes", "prior/karlo", "--set", "model.network.depth=19"]) == 0
    block = 12 * 2048**2 + 13 * 2048  # four projections and the MLP of 8192, their biases, two norms
    assert capsys.readouterr().out.startswith(f"# Parameters: {1_022_028_544 - block:,}\nfamily: prior\n")
    assert main(["recipes", "direct/tiny"]) == 0
    assert capsys.readouterr().out.count("# Parameters: ") == 1


@pytest.mark.parametrize("kind", [InputError, KeyError])
def test_no_end_tells_a_password(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise kind("http://user:hunter2@host/x")

    monkeypatch.setattr(cli.setup, "_recipes", fail)
    main(["recipes"])
    said = capsys.readouterr().err
    assert "http://***@host/x" in said and "hunter2" not in said


def test_doctor_tells_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--tracking", "http://user:hunter2@127.0.0.1:9", "--json"]) == 3
    said = capsys.readouterr().out
    assert "http://***@127.0.0.1:9" in said and "hunter2" not in said


def test_doctor_says_which_check_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main(["doctor", "--storage", str(blocked / "runs"), "--json"]) == 3
    checks = {check["name"]: check for check in last_json(capsys)["checks"]}
    assert not checks["storage"]["ok"]
    assert checks["no lightning"]["ok"]


def test_shards_are_made_indexed_and_found_good(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = str(tmp_path / "shards")
    assert main(["shards", "ingest", f"folder:{pictures}", "--to", shards, "--dry-run", "--json"]) == 0
    assert last_json(capsys)["dry_run"]
    assert not list(Path(shards).rglob("*.tar"))
    assert main(["shards", "ingest", f"folder:{pictures}", "--to", shards, "--json"]) == 0
    assert last_json(capsys)["num_samples"] == 12
    assert main(["shards", "index", shards, "--json"]) == 0
    assert last_json(capsys)["num_shards"] == 1
    assert main(["shards", "check", shards, "--json"]) == 0
    assert last_json(capsys)["faults"] == []


@pytest.mark.parametrize("step", ["index", "check", "stats"])
def test_a_dry_run_looks_and_writes_nothing(
    step: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    main(["shards", "ingest", f"folder:{pictures}", "--to", str(shards)])
    shutil.rmtree(shards / "index")
    (shards / "manifest.json").unlink()
    (shards / "00001.tar").write_bytes(b"no tar")
    before = sorted(shards.rglob("*"))
    assert main(["shards", step, str(shards), "--dry-run", "--json"]) == 0
    assert last_json(capsys)["num_shards"] == 2
    assert sorted(shards.rglob("*")) == before
    assert main(["shards", step, str(tmp_path / "none"), "--dry-run"]) == 2
    assert "holds no .tar shards" in capsys.readouterr().err


def test_a_cut_shard_is_refused_by_name(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    main(["shards", "ingest", f"folder:{pictures}", "--to", str(shards)])
    tar = next(shards.rglob("*.tar"))
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    assert main(["shards", "check", str(shards), "--json"]) == 3
    faults = last_json(capsys)["faults"]
    assert tar.name in {fault["shard"] for fault in faults}
    assert all(fault.keys() >= {"shard", "key", "kind"} for fault in faults)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["recipes", "clip/huge"], "clip/huge"),
        (["shards", "ingest", "nowhere:x", "--to", "TMP/s"], "nowhere:x"),
        (["shards", "index", "TMP/none"], "TMP/none"),
        (["shards", "stats", "TMP/mixture.yaml"], "one by one"),
        (["shards", "check", __file__], "no .tar"),
        (["shards", "index", "TMP", "--tracking", "TMP/t.db"], "--clip"),
        (["runs", "--storage", "TMP", "none"], "TMP/none"),
        (["runs", "--storage", "TMP", "--stop"], "--stop"),
        (["sample", "TMP/none", "--prompt", "x", "--to", "TMP/x.png"], "TMP/none"),
        (["sample", "models:/unclip@champion", "--prompt", "x", "--to", "TMP/x.png"], "--tracking"),
        (["sample", "TMP", "--prompt", "x", "--to", "TMP/x.jpg"], ".png"),
        (["sample", "TMP", "--prompt", "x", "--to", "TMP/x.png", "--set", "guidance=3"], "guidance"),
        (
            ["sample", "TMP", "--prompt", "x", "--to", "TMP/x.png", "--set", "generation.gidance=3"],
            "'gidance'",
        ),
        (
            ["sample", "TMP", "--prompt", "x", "--to", "TMP/x.png", "--set", "generation.preset=paper"],
            "'preset'",
        ),
        (["calibrate", "TMP/none", "--data", "TMP"], "TMP/none"),
        (["calibrate", "TMP/none", "--data", "TMP", "--set", "num_sample=3"], "'num_samples'"),
        (
            ["calibrate", "models:/prior@champion", "--data", "TMP"],
            "calibrate the run, evaluate and promote it",
        ),
        (["runs", "--storage", "TMP/none"], "TMP/none"),
        (
            [
                "train",
                "prior/tiny",
                "--data",
                "TMP/none",
                "--storage",
                "TMP",
                "--name",
                "x",
                "--set",
                "modle.a=3",
            ],
            "modle",
        ),
        (
            ["train", "clip/tiny", "--data", "TMP/none", "--storage", "TMP", "--name", "x", "--dry-run"],
            "TMP/none",
        ),
        (["evaluate", "TMP/none", "--data", "TMP"], "TMP/none"),
        (["promote", "--to", "champion", "--tracking", "TMP/t.db"], "--rollback"),
        (["promote", "TMP/none", "--to", "champion", "--tracking", "TMP/t.db"], "TMP/none"),
        (["promote", "TMP/none", "--to", "x", "--tracking", "TMP/t.db", "--set", "minimun=3"], "'minimum'"),
        (["export", "TMP/none", "--format", "safetensors", "--to", "TMP/out"], "TMP/none"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.replace("TMP", str(tmp_path)) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert word.replace("TMP", str(tmp_path)) in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


EMBED = ["shards", "embed", "x", "--clip", "x", "--to", "x"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "clip/tiny"],
        ["shards"],
        [],
        ["train", "--workers", "two"],
        ["shards", "index", "x", "--workers", "-1"],
        [*EMBED, "--batch-size", "0"],
        [*EMBED, "--max-faulty", "10"],
        [*EMBED, "--max-faulty", "nan"],
    ],
)
def test_a_wrong_command_line_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_runs_tells_how_far_each_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = {
        "status": "running", "step": 30, "num_steps": 100, "loss": 0.25,
        "seconds_per_step": 2.0, "seconds_left": 140.0, "updated": 0.0,
    }  # fmt: skip
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.json").write_text(json.dumps(progress))
    assert main(["runs", "--storage", str(tmp_path), "--json"]) == 0
    found = last_json(capsys)["runs"]
    assert [(run["name"], run["step"], run["checkpoint"], run["model"]) for run in found] == [
        ("a", 30, None, None),
        ("b", 30, None, None),
    ]
    assert main(["runs", "--storage", str(tmp_path), "b", "--stop"]) == 0
    assert (tmp_path / "b" / "stop").exists() and "asked to stop" in capsys.readouterr().out
    assert not (tmp_path / "a" / "stop").exists()


@pytest.mark.parametrize(
    ("said", "told"), [("failed", "restarting"), ("running", "running"), ("starting", "starting")]
)
def test_runs_tells_who_goes_on_and_who_ended_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    (tmp_path / "a").mkdir()
    progress = {
        "status": said,
        "step": 3,
        "num_steps": 9,
        "loss": None,
        "seconds_left": None,
        "updated": time.time(),
    }
    publish_json(str(tmp_path / "a" / "progress.json"), progress)
    me = Holder.me()
    for holder, words in ((me, f"{told} "), (replace(me, started=1.0), "ended without a word")):
        publish_json(str(tmp_path / "a" / "lease.json"), asdict(holder))
        assert main(["runs", "--storage", str(tmp_path), "a"]) == 0
        assert words in capsys.readouterr().out
    assert main(["runs", "--storage", str(tmp_path), "a", "--stop"]) == 2
    assert not (tmp_path / "a" / "stop").exists()


def test_runs_follows_one_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process trains meanwhile: each look finds it further on."""
    monkeypatch.setattr(time, "sleep", lambda _: tell(*next(words)))
    progress = {"num_steps": 9, "loss": 0.5, "seconds_left": None}

    def tell(status: str, step: int) -> None:
        told = {**progress, "status": status, "step": step, "updated": float(step)}
        publish_json(str(tmp_path / "a" / "progress.json"), told)

    (tmp_path / "a").mkdir()
    tell("running", 1)
    words = iter([("running", 4), ("preempted", 5)])
    assert main(["runs", "--storage", str(tmp_path), "a", "--follow"]) == 0
    said = capsys.readouterr()
    assert "followed for 0:0" in said.err and "done" not in said.err
    assert said.out.split() == ["a", "preempted", "5", "/", "9", "loss", "0.5000"]
    assert next(words, None) is None


def test_who_stops_following_a_run_is_not_told_that_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    told = {"status": "running", "step": 1, "num_steps": 9, "loss": 0.5, "seconds_left": None, "updated": 1.0}
    (tmp_path / "a").mkdir()
    publish_json(str(tmp_path / "a" / "progress.json"), told)
    main(["runs", "--storage", str(tmp_path), "a", "--follow"])
    said = capsys.readouterr().err
    assert "followed for 0:0" in said and "stopped after" not in said


def test_runs_tells_where_the_time_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter((1000.0, 1100.0, 1150.0, 1180.0, 1250.0))
    run = tmp_path / "a"
    for resumed_from, steps in ((0, (1, 2)), (1, (2,))):
        goodput = Goodput(str(run), resumed_from, 2, clock=lambda: next(clock))
        for step in steps:
            goodput.add(step, Lap(50.0, 5.0, 0.0, 0.0))
        publish_json(goodput.uri, goodput.to_json())
    publish_json(str(run / "progress.json"), {
        "status": "finished", "step": 2, "num_steps": 2, "loss": 0.25,
        "seconds_per_step": 50.0, "seconds_left": 0.0, "updated": 0.0,
    })  # fmt: skip
    assert main(["runs", "--storage", str(tmp_path), "a"]) == 0
    # Of 250 s two steps of 45 s are in the history; one was done again, each waited 5 s for data, and 100 s are left.
    lines = capsys.readouterr().out.splitlines()[-7:]
    assert lines[0] == "wall time 250 s over 2 attempts"
    assert [line.split()[-3:-2] + line.split()[-1:] for line in lines[1:]] == [
        ["90", "36.0%"], ["45", "18.0%"], ["15", "6.0%"], ["0", "0.0%"], ["0", "0.0%"], ["100", "40.0%"],
    ]  # fmt: skip
