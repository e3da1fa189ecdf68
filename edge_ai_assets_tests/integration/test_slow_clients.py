"""The service as it runs, with ten thousand idle connections and clients that drip: it scores on.

The idle connections come from several addresses of the loopback network, as one has too few ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests.scoring.serving import Client, request
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

IDLE = 10_000
SLOW = 200
CLIENTS = 32
SECONDS = 12.5
"""Of scoring: longer than a head may take, shorter than a connection may be idle."""
RSS = 300 * 1024 * 1024
PER_CONNECTION = 10 * 1024
FILES = IDLE + SLOW + CLIENTS + 500
RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
BODY = json.dumps({"records": [RECORD]}).encode()
SCORE = request("POST", "/v1/score", BODY)
LIVE = request("GET", "/health/live")


class Service(NamedTuple):
    pid: int
    address: tuple[str, int]
    outbox: Path

    @property
    def rss(self) -> int:
        """Resident memory, in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def connections(self) -> int:
        return sum(os.readlink(link).startswith("socket:") for link in Path(f"/proc/{self.pid}/fd").iterdir())


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the test needs, for this process and those it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    if hard != resource.RLIM_INFINITY and hard < FILES:
        missing = f"{FILES} open files are needed, the hard limit is {hard} (ulimit -Hn)"
        pytest.fail(missing) if os.environ.get("CI") and hard >= 20_000 else pytest.skip(missing)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def service(tmp_path: Path, many_files: None) -> Iterator[Service]:
    release, outbox = tiny_release(tmp_path / "release"), tmp_path / "outbox.db"
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    ready, says_ready = os.pipe()
    command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--site", "bergen", "--release", release]
    command += ["--release-id", "sha256:aa", "--version", "1", "--outbox", outbox]
    command += ["--fd", str(listener.fileno()), "--ready-fd", str(says_ready)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno(), says_ready], env=environment, stderr=lines
        )
    os.close(says_ready)
    try:
        assert select.select([ready], [], [], 60)[0] and os.read(ready, 10) == b"ready\n", log.read_text()
        yield Service(process.pid, listener.getsockname(), outbox)
        assert process.poll() is None, log.read_text()[-3000:]
        assert '"level": "error"' not in log.read_text(), log.read_text()[-3000:]
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ready)
        listener.close()


def connect(service: Service, number: int) -> socket.socket:
    """A connection from one of several loopback addresses."""
    client = socket.socket()
    client.bind((f"127.0.1.{1 + number % 4}", 0))
    client.connect(service.address)
    client.setblocking(False)
    return client


def opened(service: Service, number: int) -> list[socket.socket]:
    """So many connections, each used just now; some at a time, as one that says nothing is sent away."""
    clients: list[socket.socket] = []
    while len(clients) < number:
        some = [connect(service, each) for each in range(len(clients), min(len(clients) + 500, number))]
        use_once(some)
        clients += some
    use_once(clients)
    return clients


def use_once(clients: list[socket.socket]) -> None:
    for client in clients:
        client.setblocking(True)
        client.send(LIVE)
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


async def score(service: Service, until: float, ids: list[str], seconds: list[float]) -> None:
    """One client that scores, one request after the other, and never tries twice."""
    async with Client(service.address) as client:
        while time.monotonic() < until:
            began = time.perf_counter()
            reply = await client.ask(SCORE)
            seconds.append(time.perf_counter() - began)
            assert reply.status == 200, reply
            ids.append(reply.json["results"][0]["id"])


async def drip(service: Service, number: int, until: float) -> str:
    """A client that sends its head or its body a byte at a time, or reads no answer; how it ended."""
    loop = asyncio.get_running_loop()
    client = connect(service, number)
    head, _, body = SCORE.partition(b"\r\n\r\n")
    kind = number % 4
    try:
        if kind == 3:
            await loop.sock_sendall(client, request("GET", "/openapi.json") * 200)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            return "unread"
        data = iter(SCORE) if kind == 0 else iter(body)
        if kind == 1:
            await loop.sock_sendall(client, head + b"\r\n\r\n")
        if kind == 2:
            lines = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            await loop.sock_sendall(client, lines)
            data = itertools.cycle(b"1;a=b\r\n \r\n")
        patience = 15 if kind == 0 else 0  # it must be told, however busy the machine is
        for byte in data:
            if time.monotonic() > until + patience:
                break
            await loop.sock_sendall(client, bytes([byte]))
            await asyncio.sleep(0.3)
            with contextlib.suppress(BlockingIOError):
                return client.recv(1000)[:12].decode()
        return "waited for"
    except ConnectionError:
        return "cut off"
    finally:
        client.close()


def test_ten_thousand_idle_connections_and_slow_clients_do_not_stop_scoring(service: Service):
    async def use() -> tuple[list[str], list[float], list[str], int]:
        ids: list[str] = []
        seconds: list[float] = []
        until = time.monotonic() + SECONDS
        slow = [asyncio.create_task(drip(service, number, until)) for number in range(SLOW)]
        await asyncio.sleep(0.2)
        peak = 0
        scoring = [asyncio.create_task(score(service, until, ids, seconds)) for _ in range(CLIENTS)]
        while time.monotonic() < until:
            peak = max(peak, service.rss)
            await asyncio.sleep(0.1)
        await asyncio.gather(*scoring)
        return ids, seconds, list(await asyncio.gather(*slow)), peak

    async def warm() -> None:
        async with Client(service.address) as client:
            for _ in range(200):
                assert (await client.ask(SCORE)).status == 200

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(warm())
        before = service.rss
        idle = opened(service, IDLE)  # each was used: its parser stays
        each = (service.rss - before) / IDLE
        assert each <= PER_CONNECTION, f"an idle connection costs {each:.0f} bytes"
        ids, seconds, ended, peak = runner.run(use())
    assert service.connections >= IDLE  # they are still there
    with Outbox(service.outbox) as outbox:
        kept = outbox.counts().scored
    assert kept == len(ids) + 200 and len(set(ids)) == len(ids)
    assert len(ids) > CLIENTS * 10
    assert Counter(ended) == {"HTTP/1.1 408": SLOW // 4, "waited for": SLOW // 2, "unread": SLOW // 4}
    seconds.sort()
    print(
        f"{len(ids) / SECONDS:.0f} requests/s, p50 {seconds[len(seconds) // 2] * 1e3:.2f} ms, "
        f"p99 {seconds[len(seconds) * 99 // 100] * 1e3:.2f} ms, {each:.0f} bytes an idle connection, "
        f"{peak / 1e6:.0f} MB at most"
    )
    assert peak <= RSS, f"the service had {peak / 1e6:.0f} MB"
    for client in idle:
        client.close()


def test_more_connections_than_there_may_be_files_do_not_stop_those_that_are(service: Service):
    """Even at the limit of open files, which is lowered for the running service here."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def use() -> None:
            async with Client(service.address) as client:
                assert (await client.ask(SCORE)).status == 200
                used = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
                resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (used + 20, FILES))
                crowd = [connect(service, number) for number in range(100)]
                await asyncio.sleep(0.5)
                for _ in range(20):
                    assert (await client.ask(SCORE)).status == 200
                for other in crowd:
                    other.close()
                await asyncio.sleep(0.5)
            async with Client(service.address) as client:
                assert (await asyncio.wait_for(client.ask(SCORE), 60)).status == 200

        runner.run(use())
