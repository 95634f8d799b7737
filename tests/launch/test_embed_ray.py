"""Embedding and indexing on two Ray actors, one killed in the midst: the files are those of one process."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from embed_child import NUM_SHARDS, refuse_3, write_set
from folders import contents

from dalle2_train.data.shards.index import index
from dalle2_train.data.shards.manifest import load
from dalle2_train.errors import InputError
from dalle2_train.launch.embed import embed
from dalle2_train.launch.shard_map import shard_map

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.filterwarnings("default"),
              pytest.mark.usefixtures("cluster")]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder)
    return folder


def test_actors_embed_what_one_process_does_though_one_is_killed(folder: Path, tmp_path: Path):
    torch.set_num_threads(1)
    embed(str(folder / "shards"), str(tmp_path / "alone"), str(folder / "clip"), batch_size=1)
    to, killed = tmp_path / "to", []
    threading.Thread(target=_kill_an_actor, args=(to, killed), daemon=True).start()
    embed(str(folder / "shards"), str(to), str(folder / "clip"), batch_size=1, workers=2)
    assert killed
    assert contents(to) == contents(tmp_path / "alone")


def test_actors_index_what_one_process_does(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder / "shards", tmp_path / "copy")
    (copy / "manifest.json").unlink()
    shutil.rmtree(copy / "index")
    index(str(copy), map_shards=shard_map(2))
    assert load(str(copy)).shards == load(str(folder / "shards")).shards


def test_an_actors_refusal_is_the_commands(folder: Path):
    with pytest.raises(InputError, match="number 3 is refused"):
        list(shard_map(2)(refuse_3, list(range(8))))
    assert list(shard_map(2)(refuse_3, [9, 8, 7, 6])) == [9, 8, 7, 6]


def _kill_an_actor(to: Path, killed: list[int]) -> None:
    """As soon as the first parts are there, and not yet all."""
    while len(list(to.glob("parts/*.json"))) < 2:
        time.sleep(0.01)
    actors = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]
    if len(list(to.glob("parts/*.json"))) < NUM_SHARDS:
        os.kill(actors[0].pid, signal.SIGKILL)
        killed.append(actors[0].pid)
