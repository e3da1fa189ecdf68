"""Starting a server, waiting until it answers, stopping it with all its processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scoring import load
from scoring.candidates import Candidate

START_SECONDS, STOP_SECONDS = 60, 15


class ServerError(RuntimeError):
    """A server does not start, or answers wrongly."""


class Server:
    """A candidate that runs."""

    def __init__(self, candidate: Candidate, port: int, process: int) -> None:
        self.candidate, self.process = candidate, process
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}{candidate.path}"

    def elsewhere(self, name: str, path: str) -> Server:
        """The same process, GETs at another path: what its HTTP costs without any work."""
        candidate = self.candidate._replace(name=name, path=path, body=None, kind="empty")
        return Server(candidate, int(self.address.rpartition(":")[2]), self.process)

    def ask(self, body: bytes | None) -> Any:
        """The answer to one request, from JSON.

        Raises:
            OSError, HTTPException: it cannot be asked.
            ServerError: the answer is no 200.
        """
        connection = http.client.HTTPConnection(self.address, timeout=30)
        with contextlib.closing(connection):
            method, headers = ("POST" if body else "GET"), {"Content-Type": "application/json"}
            connection.request(method, self.candidate.path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status != 200:
            raise ServerError(f"{self.candidate.name} answers {response.status}: {answer[:500]!r}")
        return json.loads(answer)


@contextlib.contextmanager
def running(candidate: Candidate, body: bytes | None, folder: Path, cores: str) -> Iterator[Server]:
    """Start a server and yield it when it answers `body`; stopped on leaving.

    Args:
        folder: where it runs and its log is.
        cores: where it runs, as taskset takes it; "" for anywhere.

    Raises:
        ServerError: it ended, or does not answer within START_SECONDS; with the end of its log.
    """
    ports: defaultdict[str, int] = defaultdict(_free_port)
    command = load.pinned(cores) + [word.format_map(ports) for word in candidate.command]
    settings = {name: value.format_map(ports) for name, value in candidate.environment.items()}
    folder.mkdir()
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(candidate, ports["port"], process.pid)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                server.ask(body)
                break
            except (OSError, http.client.HTTPException, ServerError) as error:
                if process.poll() is not None or time.monotonic() > until:
                    end = log.read_text(errors="replace")[-2000:]
                    raise ServerError(
                        f"{candidate.name} does not answer ({error}); its log ends:\n{end}"
                    ) from error
                time.sleep(0.1)
        yield server
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = load.processes(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for member in family:  # those that outlived it: some servers leave their workers behind
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(member) == process.pid:  # else the number is somebody else's by now
                os.kill(member, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
