"""What a run writes about itself."""

import json

from dalle2_train import storage
from dalle2_train.training.records import LossRecord, Progress, report_once


def test_losses_are_rewound_to_the_checkpoint(tmp_path):
    run = str(tmp_path)
    record = LossRecord(run, 0)
    for step in range(1, 6):
        record.add({"step": step, "loss": 1 / step})
    record.close()
    record = LossRecord(run, 3)
    record.add({"step": 4, "loss": 7.0})
    record.close()
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert (
        [line["step"] for line in lines] == [1, 2, 3, 4]
        and lines[2]["loss"] == 1 / 3
        and lines[3]["loss"] == 7.0
    )


def test_losses_on_remote_storage_are_there_after_a_flush():
    run = "memory://records/run"
    record = LossRecord(run, 0)
    record.add({"step": 1, "loss": 0.1})
    record.flush()
    record.add({"step": 2, "loss": 0.2})
    record.close()
    again = LossRecord(run, 1)
    again.close()
    assert storage.read_bytes(f"{run}/losses.jsonl").decode().splitlines() == ['{"step": 1, "loss": 0.1}']


def test_damaged_lines_are_left_out_and_told(tmp_path, capsys):
    whole = [f'{{"step": {step}, "loss": 0.5}}\n'.encode() for step in (1, 2, 3)]
    torn = (b"\0" * 20 + b"}\n", b'\xff"}\n', b'{"st')
    (tmp_path / "losses.jsonl").write_bytes(b"".join(a + b for a, b in zip(whole, torn, strict=True)))
    LossRecord(str(tmp_path), 9).close()
    assert (tmp_path / "losses.jsonl").read_bytes() == b"".join(whole)
    assert "3 damaged lines" in capsys.readouterr().err


def test_progress_is_written_at_most_once_a_second(tmp_path):
    now, written = [0.0], []
    progress = Progress(str(tmp_path), 100, lambda uri, value: written.append(value), clock=lambda: now[0])
    for step in range(1, 41):
        now[0] += 0.125
        progress.update(step, float("nan") if step == 33 else 1.0)
    assert [value["step"] for value in written] == [1, 9, 17, 25, 33]
    assert (
        abs(written[1]["seconds_per_step"] - 0.125) < 1e-9
        and abs(written[1]["seconds_left"] - 0.125 * 91) < 1e-6
    )
    assert written[4]["loss"] is None


def test_what_failed_is_told_once_and_without_passwords(capsys):
    seen: set[str] = set()
    for uri in ("hdfs://user:hunter2@host/x", "hdfs://again"):
        report_once(seen, "writing", OSError(uri))
    said = capsys.readouterr().err
    assert said == "writing failed and is ignored from here on: OSError: hdfs://***@host/x\n"
