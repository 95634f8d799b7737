"""A Ray of one node that asks for a token, in processes of its own, as `ray start` starts one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """This process's, with our programs and this very package before all others, and without a Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


@dataclass(frozen=True)
class Head:
    """Where it is, and what its users have in their environment."""

    gcs: str
    dashboard: str
    token: str
    environment: dict[str, str]

    def run(self, *words: str, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
        """A program, as somebody who has the token, where `more` does not say otherwise; stderr is in stdout."""
        return subprocess.run(words, env={**self.environment, **more}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout)  # fmt: skip

    def ask(
        self, path: str, token: str | None = None, body: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """(status, answer) of a request to the dashboard, with the token that is given."""
        request = urllib.request.Request(
            self.dashboard + path, None if body is None else json.dumps(body).encode()
        )
        request.add_header("Content-Type", "application/json")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        return fetch(request)

    def metrics_targets(self) -> list[dict[str, Any]]:
        """What Prometheus is told: groups of nodes, which begin to be listed once they run."""
        status, answer = self.ask("/api/prometheus/sd", self.token)
        return json.loads(answer) if status == 200 else []


def fetch(request: urllib.request.Request | str) -> tuple[int, bytes]:
    """(status, answer), past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@contextmanager
def token_ray(folder: Path) -> Iterator[Head]:
    """Started with the token in a file under `folder`, on free ports of 127.0.0.1; ended by its process id alone."""
    token = os.urandom(32).hex()
    (folder / "token").write_text(token)
    # Short: a socket's path may have 107 characters.
    sessions = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    env = environment(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(folder / "token"),
        RAY_TMPDIR=sessions,
        RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0",
    )
    gcs, dashboard, agent, client = _free_ports(4)
    command = [
        "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", "--num-cpus=2",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        "--object-store-memory=200000000",
    ]  # fmt: skip
    head = Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", token, env)
    with (folder / "ray.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        _wait_for(head, process, folder / "ray.log")
        yield head
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(sessions, ignore_errors=True)


def _wait_for(head: Head, process: subprocess.Popen[str], log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            # The node has to be known too, or there is nowhere to run a job.
            if any(group["targets"] for group in head.metrics_targets()):
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"no dashboard after {seconds} s: {log.read_text()}")


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
