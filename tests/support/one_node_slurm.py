"""Slurm and munge on this machine alone, configured in a folder and ended by their process ids."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from token_ray import environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

# No cgroups, no accounting, no MPI: what a container has not. One job after another on one node.
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Those of Slurm and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


@dataclass(frozen=True)
class Slurm:
    """Its folder, and what its users have in their environment."""

    folder: Path
    environment: dict[str, str]

    def run(
        self, *words: str, cwd: Path | None = None, timeout: float = 60, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A command of Slurm's; stderr is in stdout."""
        return subprocess.run(words, env={**self.environment, **more}, cwd=cwd or self.folder, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def logs(self) -> str:
        return "\n".join(
            f"== {file.name}\n{file.read_text()[-4000:]}" for file in sorted(self.folder.glob("*.log"))
        )


@contextmanager
def one_node_slurm() -> Iterator[Slurm]:
    """Started and idle; whatever it still runs at the end is cancelled."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        # munge wants everybody to find its socket, and nobody else to read its key.
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = os.open(folder / "munge.key", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(key, os.urandom(1024))
        os.close(key)
        config = folder / "slurm.conf"
        config.write_text(_config(folder))
        slurm = Slurm(folder, environment(SLURM_CONF=str(config), PATH=_path()))
        munge = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "seed")]
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *munge],
            ["slurmctld", "-D", "-c", "-f", str(config)],
            ["slurmd", "-D", "-c", "-f", str(config)],
        ):
            stack.callback(_end, _begin(slurm, command))
            _wait_for(slurm, command[0])
        stack.callback(_cancel_all, slurm)
        yield slurm


def _config(folder: Path) -> str:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        ports = [found.getsockname()[1] for found in sockets]
    return _CONFIG.format(
        host=socket.gethostname().split(".")[0],
        folder=folder,
        user=getpass.getuser(),
        cpus=os.cpu_count(),
        ctld_port=ports[0],
        slurmd_port=ports[1],
    )


def _path() -> str:
    """Debian has the daemons in sbin, which is not on everybody's PATH."""
    return os.pathsep.join([environment()["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _begin(slurm: Slurm, command: list[str]) -> subprocess.Popen[bytes]:
    # By its whole path: Popen looks along this process's PATH.
    program = shutil.which(command[0], path=_path())
    assert program is not None
    with (slurm.folder / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen([program, *command[1:]], env=slurm.environment, stdout=log, stderr=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(slurm: Slurm, name: str, seconds: float = 30) -> None:
    """Until the daemon does what the next one, or the first job, needs of it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if name == "munged" and (slurm.folder / "munge.socket").exists():
            return
        if name == "slurmctld" and slurm.run("scontrol", "ping").stdout.count("UP"):
            return
        if name == "slurmd" and slurm.run("sinfo", "--noheader", "--format=%T").stdout.strip() == "idle":
            return
        time.sleep(0.3)
    raise AssertionError(f"{name} is not up after {seconds} s:\n{slurm.logs()}")


def _cancel_all(slurm: Slurm, seconds: float = 40) -> None:
    slurm.run("scancel", f"--user={getpass.getuser()}")
    end = time.monotonic() + seconds
    while slurm.run("squeue", "--noheader").stdout.strip() and time.monotonic() < end:
        time.sleep(0.5)
