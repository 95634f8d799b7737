"""One name, one writer."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest
from failing import fail_in_passing

from dalle2_train import storage
from dalle2_train.checkpoints import holder
from dalle2_train.checkpoints.holder import Holder, read_holder
from dalle2_train.checkpoints.layout import lease_uri
from dalle2_train.checkpoints.lease import Lease, check_held
from dalle2_train.errors import InputError

HOLD = """
import sys
from dalle2_train.checkpoints.lease import Lease
with Lease(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"memory://leases/{tmp_path.name}"


def write(run: str, holder: Holder) -> None:
    storage.publish_json(lease_uri(run), asdict(holder))


def test_it_is_there_for_as_long_as_the_block(run):
    with Lease(run) as lease:
        assert read_holder(lease.uri).id == lease.holder.id
        check_held(run, lease.holder.id)
    assert not storage.exists(lease.uri)


def test_a_living_process_of_this_machine_is_not_waited_for(run):
    write(run, Holder.me())
    with pytest.raises(InputError, match=r"process \d+ of this machine"), Lease(run):
        pass
    assert storage.exists(lease_uri(run))


def test_a_killed_process_is_followed_at_once(tmp_path):
    run = str(tmp_path / "run")
    child = subprocess.Popen([sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"process {child.pid} of this machine"), Lease(run):
        pass
    child.kill()
    child.communicate()
    start = time.monotonic()
    with Lease(run, seconds=60):
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("system", ["linux", "another"])
def test_a_killed_process_that_nobody_has_buried_is_dead(monkeypatch, tmp_path, system):
    """A zombie keeps its number and the time of its start for as long as its parent does not ask how it ended."""
    if system == "another":  # where there is no /proc
        monkeypatch.setattr(holder, "_BOOT_ID", tmp_path / "none")
    with subprocess.Popen(["sleep", "60"]) as child:
        held = replace(Holder.me(), pid=child.pid, started=holder._start_of(child.pid))
        assert not held.is_dead
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert held.is_dead
    assert held.is_dead


def test_the_run_of_a_killed_process_that_nobody_has_buried_is_free(tmp_path):
    run = str(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"held\n"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with Lease(run, seconds=60) as lease:
            assert read_holder(lease.uri) == lease.holder


def test_on_a_file_system_without_hard_links_who_wrote_last_goes_on(tmp_path, monkeypatch):
    run, other, slept = str(tmp_path), Holder.me(), []
    fail_in_passing(monkeypatch, "link", float("inf"), code=errno.EPERM)
    monkeypatch.setattr(time, "sleep", slept.append)
    write(run, replace(Holder.me(), started=1.0))
    with Lease(run) as lease:
        assert read_holder(lease.uri) == lease.holder and len(slept) == 1
    monkeypatch.setattr(time, "sleep", lambda _: write(run, other))
    with pytest.raises(InputError, match="just been begun by another"), Lease(run):
        pass
    assert read_holder(lease_uri(run)) == other


def test_a_process_whose_number_another_has_now_is_dead():
    assert replace(Holder.me(), started=1.0).is_dead and not Holder.me().is_dead
    assert not replace(Holder.me(), started=1.0, host="elsewhere").is_dead


def test_a_silent_holder_on_another_machine_is_waited_for(run, capsys):
    write(run, replace(Holder.me(), host="elsewhere"))
    start = time.monotonic()
    with Lease(run, seconds=0.4):
        assert time.monotonic() - start >= 0.4
    assert "held from elsewhere" in capsys.readouterr().err


def test_a_living_holder_on_another_machine_is_left_alone(run):
    other = replace(Holder.me(), host="elsewhere")
    write(run, other)
    threading.Timer(0.2, lambda: write(run, replace(other, beat=1))).start()
    with pytest.raises(InputError, match="trained from elsewhere"), Lease(run, seconds=5):
        pass


def test_who_was_taken_over_finds_out_and_leaves_the_other_its_lease(run):
    with Lease(run) as lease:
        other = replace(Holder.me(), host="elsewhere")
        write(run, other)
        with pytest.raises(InputError, match="taken over by process"):
            check_held(run, lease.holder.id)
    assert read_holder(lease.uri) == other


def test_it_is_renewed(tmp_path):
    with Lease(str(tmp_path), seconds=0.2) as lease:
        first = json.loads((tmp_path / "lease.json").read_text())["beat"]
        deadline = time.monotonic() + 30
        while read_holder(lease.uri).beat < first + 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
