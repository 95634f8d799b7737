"""Ranks as plain processes, without Ray: forked from a server that has done the slow imports once."""

import multiprocessing as mp
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy_training import process_group, rank_main, strategy_of

from dalle2_train.launch import TrainJob
from dalle2_train.launch.worker import run

# The server ignores its parent's sys.path, and would silently preload nothing.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["toy_training", "processes"])


def start_ranks(run_uri: Path, world_size: int, **options: Any) -> list[Any]:
    """The ranks of a toy run, started; they meet through a file and write stderr to RUN-RANK.err."""
    store = tempfile.mktemp(prefix="store-", dir=run_uri.parent)
    ranks = [
        _CONTEXT.Process(target=_rank, args=(str(run_uri), rank, world_size, store, options))
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def finish_ranks(run_uri: Path, ranks: list[Any], timeout: float = 120) -> list[tuple[int | None, str]]:
    """(exit code, stderr) of each."""
    for rank in ranks:
        rank.join(timeout)
    return [(rank.exitcode, _errors(str(run_uri), number).read_text()) for number, rank in enumerate(ranks)]


def run_ranks(run_uri: Path, world_size: int, **options: Any) -> list[tuple[int | None, str]]:
    return finish_ranks(run_uri, start_ranks(run_uri, world_size, **options))


def call_in_ranks(
    work: Callable[..., None], world_size: int, folder: Path, *arguments: Any
) -> list[int | None]:
    """work(rank, world_size, store, *arguments, folder) in processes of their own; their exit codes."""
    store = tempfile.mktemp(prefix="store-", dir=folder)
    ranks = [
        _CONTEXT.Process(target=_call, args=(work, rank, world_size, store, *arguments, folder))
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(240)
    return [rank.exitcode for rank in ranks]


def _call(work: Callable[..., None], *arguments: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    work(*arguments)


def run_ranks_with(job: TrainJob, world_size: int, timeout: float = 300) -> list[tuple[int | None, str]]:
    """The ranks of a real job. (exit code, stderr) of each."""
    store = tempfile.mktemp(prefix="store-", dir=job.storage)
    ranks = [
        _CONTEXT.Process(target=_job_rank, args=(job, rank, world_size, store)) for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return finish_ranks(Path(job.run_uri), ranks, timeout)


def _job_rank(job: TrainJob, rank: int, world_size: int, store: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    sys.stderr = _errors(job.run_uri, rank).open("a", buffering=1)
    with process_group(rank, world_size, store):
        run(job, strategy_of(rank, world_size, job.recipe.parallel))


def _errors(run_uri: str, rank: int) -> Path:
    return Path(f"{run_uri}-{rank}.err")


def _rank(run_uri: str, rank: int, world_size: int, store: str, options: dict[str, Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    sys.stderr = _errors(run_uri, rank).open("a", buffering=1)
    rank_main(run_uri, rank, world_size, store, **options)
