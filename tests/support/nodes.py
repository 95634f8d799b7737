"""Several Ray nodes on this one machine: each has a network address, processes, /tmp and /dev/shm of its own.

What machines do not share, these do not. They need root and Debian's iproute2 (`can_have_nodes`).
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PORT = 6379
_SCRIPT = """
set -e
new=$(mktemp -d /run/dalle2-XXXXXX)
mount -t tmpfs tmpfs $new
for path in {kept}; do mkdir -p $new/${{path#/tmp/}}; mount --bind $path $new/${{path#/tmp/}}; done
mount --move $new /tmp
mount -t tmpfs tmpfs /dev/shm
rmdir $new
hostname {name}
{before}
exec {command}
"""


def can_have_nodes() -> bool:
    """Is this root, with the programs that it takes, and may it make namespaces?"""
    if os.geteuid() != 0 or any(shutil.which(program) is None for program in ("ip", "unshare", "nsenter")):
        return False
    return (
        subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode
        == 0
    )


@dataclass
class Node:
    """One of them."""

    name: str
    address: str
    process: subprocess.Popen[bytes]

    @property
    def init(self) -> psutil.Process:
        """The first process inside; with it all others end."""
        return psutil.Process(self.process.pid).children()[0]

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def processes(self, word: str) -> list[psutil.Process]:
        """Those inside whose command line has `word` in it."""
        return [one for one in self.init.children(recursive=True) if word in _words(one)]


@dataclass
class Nodes:
    """A Ray cluster of them, on a network that this machine has the first address of."""

    folder: Path
    """Seen by all; so are this repository and its Python. Logs go there."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of all nodes and what runs on them."""
    nodes: list[Node] = field(default_factory=list)
    _made: int = 0
    _token: str = field(default_factory=lambda: os.urandom(32).hex())
    _bridge: str = field(default_factory=lambda: f"d2t{os.getpid() % 100000}")

    @property
    def address(self) -> str:
        """This machine's, for servers that all nodes are to reach."""
        return f"{self._network}.1"

    @property
    def python_path(self) -> str:
        """Finds this repository and the modules beside this one."""
        return os.pathsep.join([str(ROOT), str(Path(__file__).parent)])

    @property
    def ray_address(self) -> str:
        return f"{self._network}.2:{PORT}"

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def start(
        self,
        num_cpus: int,
        *,
        num_gpus: int = 0,
        environment: dict[str, str] | None = None,
        before: str = "true",
    ) -> Node:
        """One more, the first of which is the head. num_gpus: that Ray believes it has. before: what its shell does
        before Ray starts."""
        self._made += 1
        name, address = f"{self._bridge}n{self._made}", f"{self._network}.{self._made + 1}"
        self._connect(name, address)
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if self.nodes:
            where = [f"--address={self.ray_address}"]
        command = [
            str(Path(sys.prefix) / "bin" / "ray"), "start", "--block", *where, f"--node-ip-address={address}",
            f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", "--object-store-memory=100000000",
        ]  # fmt: skip
        process = self._spawn(name, command, before, environment or {})
        while not psutil.Process(process.pid).children():
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()
            time.sleep(0.02)
        node = Node(name, address, process)
        self.nodes.append(node)
        return node

    def wait(self, count: int, seconds: float = 120) -> dict[str, str]:
        """Until the head knows so many nodes alive; their `ids`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if len(ids := self.ids()) == count:
                return ids
            time.sleep(0.5)
        raise AssertionError(f"no {count} nodes after {seconds:.0f} s; see {self.folder}/*.log")

    def ids(self) -> dict[str, str]:
        """Address → Ray's id of the nodes that the head knows alive."""
        code = (
            "import json, ray; ray.init('auto', logging_level='ERROR'); "
            "print(json.dumps({n['NodeManagerAddress']: n['NodeID'] for n in ray.nodes() if n['Alive']}))"
        )
        done = self.run([sys.executable, "-c", code], check=False)
        # What Ray has to say, it may say after that.
        found = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return json.loads(found[-1]) if found else {}

    def kill(self, node: Node) -> None:
        """All its processes at once, as a machine that loses its power."""
        with suppress(psutil.Error, IndexError):
            node.init.kill()
        node.process.wait()
        self.nodes.remove(node)
        _ip("netns", "del", node.name)

    def popen(self, node: Node, command: list[str], **options: object) -> subprocess.Popen[str]:
        """A program on a node."""
        inside = [
            "nsenter",
            "--target",
            str(node.init.pid),
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--",
            *command,
        ]
        return subprocess.Popen(inside, env=self._env(), cwd=ROOT, text=True, **options)  # pyright: ignore

    def run(
        self, command: list[str], node: Node | None = None, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """A program on the head, or another node, to its end; stderr is in stdout."""
        process = self.popen(node or self.head, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text, _ = process.communicate(timeout=timeout)
        assert not check or process.returncode == 0, text
        return subprocess.CompletedProcess(command, process.returncode, text)

    def unplug(self, node: Node) -> None:
        """It runs on, and nobody hears of it any more."""
        _ip("link", "set", _link(node.name), "down")

    def plug(self, node: Node) -> None:
        _ip("link", "set", _link(node.name), "up")

    @property
    def _network(self) -> str:
        return f"10.203.{os.getpid() % 250}"

    def _env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        return {
            **kept,
            "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": self.python_path,
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_ADDRESS": self.ray_address,
            # The nodes' names are in no DNS.
            "GLOO_SOCKET_IFNAME": "eth0",
            **self.environment,
        }

    def _spawn(
        self, name: str, command: list[str], before: str, more: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        shared = {ROOT, self.folder, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
        kept = [str(path) for path in sorted(shared) if path.is_relative_to("/tmp")]
        words = {"kept": " ".join(map(shlex.quote, kept)), "name": name, "before": before}
        script = _SCRIPT.format(**words, command=shlex.join(command))
        inside = ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child",
                  "--mount-proc", "sh", "-c", script]  # fmt: skip
        env = {key: value for key, value in self._env().items() if key != "RAY_ADDRESS"} | more
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(inside, env=env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def open(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def close(self) -> None:
        for node in self.nodes[::-1]:
            self.kill(node)
        _ip("link", "del", self._bridge)

    def _connect(self, name: str, address: str) -> None:
        _ip("netns", "add", name)
        _ip("link", "add", _link(name), "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", _link(name), "master", self._bridge, "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")


@contextmanager
def nodes(folder: Path, **environment: str) -> Iterator[Nodes]:
    """An empty cluster: `start` its head first."""
    cluster = Nodes(folder, environment)
    cluster.open()
    try:
        yield cluster
    finally:
        cluster.close()


def kill_inside(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """A program that `popen` started: nsenter is its parent, and passes no signal on."""
    for child in psutil.Process(process.pid).children():
        child.send_signal(number)


def _link(name: str) -> str:
    return f"{name}v"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
