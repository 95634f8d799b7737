"""Loopback servers: an object store, a web server that knows ranges, and a proxy that fails on purpose."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from s3fs import S3FileSystem

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "server", "date", "content-length"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one segment: else Nagle's algorithm costs 40 ms a request.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        return

    def handle_expect_100(self) -> bool:
        done = super().handle_expect_100()
        self.wfile.flush()
        return done

    def answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *args: Any) -> None:
        """Clients that hang up are no news."""


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def web_server(folder: Path, *, ranges: bool = True, etags: bool = True) -> Iterator[str]:
    """Serves the files of `folder`; yields its URL. Listings it has none."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            file = folder / self.path.lstrip("/")
            if not file.is_file():
                return self.answer(404, {}, b"not here")
            data, headers = file.read_bytes(), {}
            if etags:
                headers["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'
            asked = _RANGE.fullmatch(self.headers.get("Range", "")) if ranges else None
            if asked is None:
                return self.answer(200, headers, data)
            start, end = int(asked[1]), int(asked[2] or len(data) - 1)
            if start >= len(data):
                return self.answer(416, {}, b"")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return self.answer(206, headers, data[start : end + 1])

        do_HEAD = do_GET  # noqa: N815

    with running(Handler) as url:
        yield url


class Faults:
    """What a proxy does to its clients; may be changed while it runs."""

    def __init__(self, seed: int = 0) -> None:
        self.errors = self.resets = 0.0
        """Shares of the requests: answered by 500 or 503, cut in the midst of the body."""
        self.outage_ends = 0.0
        self.counts = {"requests": 0, "errors": 0, "resets": 0, "refused": 0}
        self._outage: tuple[int, float] | None = None
        self._planned: dict[int, str] = {}
        self._draws, self._lock = random.Random(seed), threading.Lock()

    def begin_outage(self, seconds: float) -> None:
        """From now on every connection is reset."""
        self.outage_ends = time.monotonic() + seconds

    def outage_after(self, requests: int, seconds: float) -> None:
        """Begins an outage when so many requests more have been answered."""
        self._outage = (self.counts["requests"] + requests, seconds)

    def plan(self, following: dict[int, str]) -> None:
        """The n-th request from now on (1: the next) has this fault."""
        self._planned = {self.counts["requests"] + n: fault for n, fault in following.items()}

    def draw(self) -> str:
        """What happens to a request: "", errors, resets or refused."""
        with self._lock:
            chance = self._draws.random()
            self.counts["requests"] += 1
            if self._outage is not None and self.counts["requests"] > self._outage[0]:
                self.begin_outage(self._outage[1])
                self._outage = None
            fault = self._planned.pop(self.counts["requests"], "")
            if time.monotonic() < self.outage_ends:
                fault = "refused"
            elif chance < self.errors:
                fault = "errors"
            elif chance < self.errors + self.resets:
                fault = "resets"
            if fault:
                self.counts[fault] += 1
            return fault


@contextmanager
def flaky_proxy(upstream: str, faults: Faults) -> Iterator[str]:
    """An HTTP proxy before the server at the URL `upstream`; yields its own URL."""
    host = upstream.removeprefix("http://")

    class Handler(_Handler):
        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = faults.draw()
            if fault == "refused":
                return self.reset()
            if fault == "errors":
                return self.answer(random.choice((500, 502, 503)), {}, b"")
            connection = http.client.HTTPConnection(host, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            headers = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
            length = int(response.headers["Content-Length"] or 0) if self.command == "HEAD" else len(data)
            if fault == "resets":
                self.answer(response.status, headers, data[: len(data) // 2], length)
                self.wfile.flush()
                return self.reset()
            return self.answer(response.status, headers, data, length)

        def reset(self) -> None:
            """Ends the connection by RST, not by FIN."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815

    with running(Handler) as url:
        yield url


@contextmanager
def object_store(address: str = "127.0.0.1") -> Iterator[str]:
    """An empty S3 in a process of its own; yields its URL."""
    # s3fs keeps its instances for the life of a process, each with the endpoint that was told when it was made.
    S3FileSystem.clear_instance_cache()
    command = [sys.executable, str(Path(__file__).with_name("store_child.py")), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, f"the object store ended with {process.wait()} before it listened"
            yield f"http://{address}:{port}"
        finally:
            process.kill()
