"""Provokes what dalle2_train/parallel/gathering.py keeps clear of: the death of a gloo group's process.

    python tests/faults/gloo_names.py

Each kind of collective is asked for 320,000 times by a group of one rank, 16 at a time, three times over, with the two
threads that torch gives a group and with one. A line each: how the processes ended, by exit code (-6: SIGABRT).
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

ROUNDS, AT_ONCE, TIMES = 20_000, 16, 3

Ask = Callable[[Any], Any]
SHORT: dict[str, Ask] = {
    "ALLREDUCE": lambda group: group.allreduce([torch.ones(4)]),
    "ALLGATHER": lambda group: group._allgather_base(torch.empty(4), torch.ones(4)),
}
LONG: dict[str, Ask] = {
    "ALLGATHER_COALESCED": lambda group: group.allgather_coalesced([[torch.empty(4)]], [torch.ones(4)]),
}
KINDS = ("ALLREDUCE", "ALLGATHER", "ALLREDUCE+ALLGATHER", "ALLREDUCE+ALLGATHER_COALESCED")


def ask(kinds: str, num_threads: int) -> None:
    """In a process of its own: those kinds in turn."""
    torch.set_num_threads(1)
    options = dist.ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue] - torch's stub lacks it
    options._threads = num_threads
    options._devices = [dist.ProcessGroupGloo.create_default_device()]
    group = dist.ProcessGroupGloo(dist.HashStore(), 0, 1, options)
    asks = [(SHORT | LONG)[name] for name in kinds.split("+")]
    for _ in range(ROUNDS):
        for work in [asks[number % len(asks)](group) for number in range(AT_ONCE)]:
            work.wait()


def main() -> None:
    """Every kind with two threads, then with one."""
    for num_threads in (2, 1):
        for kinds in KINDS:
            command = [sys.executable, __file__, kinds, str(num_threads)]
            codes = [subprocess.run(command, stderr=subprocess.DEVNULL).returncode for _ in range(TIMES)]
            print(f"{num_threads} threads  {kinds:<32} {codes}", flush=True)


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else ask(sys.argv[1], int(sys.argv[2]))
