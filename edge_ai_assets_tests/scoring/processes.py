"""The service as processes of its own, for tests that kill them; and a client that asks for nothing twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parents[2]
SERVE = (sys.executable, "-P", "-m", "edge_ai_assets.scoring.serve")
SITE = "bergen"
SECONDS = 60.0
"""What nothing here should take, on a busy machine either."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asking:
    """One connection that is kept; a request is sent once, whatever becomes of it."""

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: str | None = None,
        seconds: float = SECONDS,
    ) -> None:
        where = urlsplit(url)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http: http.client.HTTPConnection
        if where.scheme == "https":
            self._http = http.client.HTTPSConnection(where.netloc, timeout=seconds, context=tls)
        else:
            self._http = http.client.HTTPConnection(where.netloc, timeout=seconds)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        try:
            self._http.request(method, path, body, self._headers | dict(headers or {}))
            got = self._http.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        except BaseException:
            self._http.close()
            raise


def ask(
    url: str,
    path: str,
    body: bytes | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
) -> Answer:
    """One request on a connection of its own."""
    with Asking(url, tls=tls, token=token) as asking:
        return asking.ask("GET" if body is None else "POST", path, body, {"Connection": "close"})


class Service:
    """`edge-ai serve`, started and waited for.

    Args:
        folder: for its outbox, its log and what it leaves behind.
        wait: for it to be ready; else it may well be one that never is.
    """

    def __init__(
        self,
        folder: Path,
        release: Path,
        *options: str,
        workers: int = 1,
        command: Sequence[str] = SERVE,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / f"service-{time.monotonic_ns()}.log"
        ready, tell = os.pipe()
        arguments = ["--site", SITE, "--release", str(release), "--outbox", str(folder / "outbox.db")]
        arguments += ["--port", "0", "--workers", str(workers), "--ready-fd", str(tell), *options]
        given = environment_of(TMPDIR=str(folder)) if environment is None else environment
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=given,
                pass_fds=[tell],
            )
        os.close(tell)
        with os.fdopen(ready, "rb") as line:
            if wait:
                assert line.readline() == b"ready\n", self.log.read_text()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]

    @property
    def url(self) -> str:
        host, port = next(line["addresses"][0][:2] for line in self.said if "addresses" in line)
        return f"http://{host}:{port}"

    @property
    def workers(self) -> list[int]:
        """Process ids of those that are ready or about to be."""
        return children(self.pid)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def environment_of(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT)} | more


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def accepted(connection: socket.socket) -> bool:
    """Whether a process of this machine has taken it. Until then it waits for one, and has no inode there."""
    _, ours = connection.getsockname()[:2]
    _, theirs = connection.getpeername()[:2]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        there, here, inode = (line.split()[each] for each in (1, 2, 9))
        if (int(there.rpartition(":")[2], 16), int(here.rpartition(":")[2], 16)) == (theirs, ours):
            return inode != "0"
    return False


def wait(true: Callable[[], Any], seconds: float = SECONDS) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := true():
            return result
        time.sleep(0.01)
    raise AssertionError(f"it did not become true within {seconds:g} s")
