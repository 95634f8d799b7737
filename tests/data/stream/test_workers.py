"""Loader workers: a dead one is told, and none outlives who reads."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import psutil
import pytest
from uneven import SIZES, open_uneven, write_uneven

from dalle2_train.errors import InputError

pytestmark = pytest.mark.system


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return write_uneven(tmp_path / "set", SIZES[3])


def loaders_of(process: psutil.Process) -> list[psutil.Process]:
    """The spawned children, without multiprocessing's tracker."""
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


def ours() -> list[psutil.Process]:
    return loaders_of(psutil.Process())


def ended(processes: list[psutil.Process], seconds: float = 20) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_a_killed_worker_ends_the_run_with_one_error(uri: str):
    with closing(open_uneven(uri, 0, 1, num_workers=2)) as stream:
        iterator = iter(stream)
        next(iterator)
        ours()[0].send_signal(signal.SIGKILL)
        with pytest.raises(RuntimeError, match="a loader worker died"):
            for _ in islice(iterator, 1000):
                pass
        assert not ours()


def test_leaving_while_large_chunks_are_handed_over_does_not_hang(uri: str):
    """A chunk of pictures is more than a pipe holds: its worker is in the midst of it, again and again."""
    for pause in range(8):
        with closing(open_uneven(uri, 0, 1, num_workers=2, image_size=128)) as stream:
            next(iter(stream))
            time.sleep(0.005 * pause)
        assert not ours()


def leave_by_close(stream, iterator) -> None:
    stream.close()


def leave_by_exception(stream, iterator) -> None:
    with pytest.raises(KeyError):
        iterator.throw(KeyError("of whoever trains"))


def leave_by_forgetting(stream, iterator) -> None:
    """Whoever held them lets go."""


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_exception, leave_by_forgetting])
def test_leaving_leaves_no_process(uri: str, leave: Callable[..., None]):
    holder = [open_uneven(uri, 0, 1, num_workers=2)]
    iterator = iter(holder[0])
    next(iterator)
    workers = ours()
    assert len(workers) == 2
    leave(holder[0], iterator)
    holder.clear()
    del iterator
    gc.collect()
    assert ended(workers)


def test_workers_die_with_a_killed_parent(uri: str, tmp_path: Path):
    program = (
        "import sys, time; from uneven import open_uneven\n"
        "if __name__ == '__main__':\n"
        f"    iterator = iter(open_uneven({uri!r}, 0, 1, num_workers=2)); next(iterator)\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    script = tmp_path / "reader.py"
    script.write_text(program)
    path = os.pathsep.join([str(Path(__file__).parents[2] / "support"), str(Path(__file__).parents[3])])
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        workers = loaders_of(psutil.Process(parent.pid))
        assert len(workers) == 2
        parent.kill()
    assert ended(workers)


def test_what_goes_wrong_in_a_worker_is_raised_as_it_is(uri: str):
    with closing(open_uneven(uri, 0, 1, num_workers=1)) as stream:
        for index in Path(uri).glob("index/*.parquet"):
            index.unlink()
        with pytest.raises(InputError, match="no such file"):
            next(iter(stream))
