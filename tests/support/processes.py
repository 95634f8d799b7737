"""Ranks as plain processes, without Ray: forked from a server that has done the slow imports once."""

import faulthandler
import multiprocessing as mp
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy_training import process_group, rank_main, strategy_of

from dalle2_train.launch import TrainJob
from dalle2_train.launch.worker import Host, run

# The server ignores its parent's sys.path, and would silently preload nothing.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["toy_training", "processes"])


def start_ranks(run_uri: Path, world_size: int, **options: Any) -> list[Any]:
    """The ranks of a toy run, started; they meet through a file and write stderr to RUN-RANK.err."""
    store = tempfile.mktemp(prefix="store-", dir=run_uri.parent)
    ranks = [
        _CONTEXT.Process(
            target=_rank, args=(dict(os.environ), str(run_uri), rank, world_size, store, options)
        )
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
    work: Callable[..., None], world_size: int, folder: Path, *arguments: Any, seconds: float = 240
) -> list[int | None]:
    """work(rank, world_size, store, *arguments, folder) in processes of their own; their exit codes."""
    store = tempfile.mktemp(prefix="store-", dir=folder)
    ranks = [
        _CONTEXT.Process(
            target=_call, args=(dict(os.environ), work, rank, world_size, store, *arguments, folder)
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(seconds)
    return [rank.exitcode for rank in ranks]


def _call(environment: dict[str, str], work: Callable[..., None], *arguments: Any) -> None:
    _enter(environment)
    work(*arguments)


def run_ranks_with(
    job: TrainJob,
    world_size: int,
    timeout: float = 300,
    work: Callable[..., Any] = run,
    beside: str | None = None,
) -> list[tuple[int | None, str]]:
    """The ranks of a real job, each doing `work`. (exit code, stderr) of each.

    beside: where they write stderr and meet, BESIDE-*; beside the run's folder, if that is a local one.
    """
    beside = beside or job.run_uri
    return finish_ranks(Path(beside), start_ranks_with(job, world_size, work, beside), timeout)


def start_ranks_with(
    job: TrainJob, world_size: int, work: Callable[..., Any] = run, beside: str | None = None
) -> list[Any]:
    """The ranks of a real job, started."""
    beside = beside or job.run_uri
    store = tempfile.mktemp(prefix="store-", dir=Path(beside).parent)
    ranks = [
        _CONTEXT.Process(
            target=_job_rank, args=(dict(os.environ), job, rank, world_size, store, work, beside)
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def _job_rank(
    environment: dict[str, str],
    job: TrainJob,
    rank: int,
    world_size: int,
    store: str,
    work: Callable[..., Any],
    beside: str,
) -> None:
    _enter(environment)
    sys.stderr = _errors(beside, rank).open("a", buffering=1)
    with process_group(rank, world_size, store):
        work(job, strategy_of(rank, world_size, job.recipe.parallel), Host())


def _enter(environment: dict[str, str]) -> None:
    """The server has that of when it began."""
    # Of a rank that crashes it is told where.
    faulthandler.enable(all_threads=True)
    os.environ.update(environment)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def _errors(run_uri: str, rank: int) -> Path:
    return Path(f"{run_uri}-{rank}.err")


def _rank(
    environment: dict[str, str], run_uri: str, rank: int, world_size: int, store: str, options: dict[str, Any]
) -> None:
    _enter(environment)
    sys.stderr = _errors(run_uri, rank).open("a", buffering=1)
    rank_main(run_uri, rank, world_size, store, **options)
