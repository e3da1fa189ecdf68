"""Several serving processes: all serve and count as one, a killed one is replaced, none is left over."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import decode
from edge_ai_assets.scoring import workers as module
from edge_ai_assets.scoring.server import HANDING_OVER
from edge_ai_assets.scoring.workers import ORPHAN_SECONDS, Workers
from edge_ai_assets_tests.scoring.processes import (
    SERVE,
    Asking,
    Service,
    accepted,
    alive,
    ask,
    children,
    environment_of,
    wait,
)
from edge_ai_assets_tests.tiny_model import tiny_release

RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
BODY = json.dumps({"records": [RECORD]}).encode()
WORKERS = 3


@pytest.fixture
def start(release: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services; whatever a test does, nothing of them is left."""
    started: list[Service] = []
    begun: set[int] = set()

    def begin(*options: str, workers: int = WORKERS, release: Path = release, **more: bool) -> Service:
        started.append(Service(tmp_path / "site", release, *options, workers=workers, **more))  # type: ignore[arg-type]
        begun.update(started[-1].workers)
        return started[-1]

    yield begin
    for service in started:
        begun.update(service.workers)
        service.__exit__()
    for pid in filter(alive, begun):
        os.kill(pid, signal.SIGKILL)


def answering(url: str) -> int:
    """The process that takes a new connection."""
    return int(ask(url, "/v1/status").json["pid"])


def counted(text: bytes, name: str) -> float:
    """The sum over a metric's series."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text.decode(), re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def answered(connection: socket.socket) -> http.client.HTTPResponse:
    """The next answer on it, which is that of a score."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200 and answer.read()
    return answer


def pids_from(url: str, number: int) -> set[int]:
    """Processes that serve; many connections at once, since an idle worker takes what comes first."""
    seen: set[int] = set()

    def several(_: int) -> None:
        with Asking(url) as asking:
            pid = asking.ask("GET", "/v1/status").json["pid"]
            seen.add(pid)
            for _ in range(20):
                assert asking.ask("POST", "/v1/score", BODY).status == 200

    def all_seen() -> bool:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(several, range(16)))
        return len(seen) >= number

    wait(all_seen)
    return seen


def test_all_answer_as_one_service(start):
    service = start()
    assert pids_from(service.url, WORKERS) == set(service.workers)
    assert len(service.workers) == WORKERS
    kept = [ask(service.url, "/v1/score", BODY).json["results"][0]["id"] for _ in range(20)]
    numbers = [int(each.removeprefix("bergen/")) for each in kept]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    requests = [ask(service.url, "/health/live").headers["x-request-id"] for _ in range(60)]
    assert len(set(requests)) == 60


@pytest.mark.integration
def test_each_worker_speaks_for_all_and_a_death_takes_nothing_back(start):
    service = start()
    posted = 0
    for turn in range(3):
        pids_from(service.url, WORKERS)
        before = ask(service.url, "/metrics").body
        posted = int(counted(before, "edge_ai_rows_total"))
        assert posted == ask(service.url, "/v1/status").json["outbox"]["scored"]
        seen = {counted(ask(service.url, "/metrics").body, "edge_ai_rows_total") for _ in range(10)}
        assert seen == {posted}
        killed = service.workers[turn % WORKERS]
        os.kill(killed, signal.SIGKILL)
        for _ in range(20):  # also while it is being replaced
            after = ask(service.url, "/metrics").body
            assert counted(after, "edge_ai_rows_total") >= posted
            assert counted(after, "edge_ai_requests_total") >= counted(before, "edge_ai_requests_total")
            assert counted(after, "edge_ai_request_seconds_count") >= counted(
                before, "edge_ai_request_seconds_count"
            )
        wait(lambda: len(set(service.workers) - {killed}) == WORKERS)  # noqa: B023 - called in this turn
    assert ask(service.url, "/v1/score", BODY).status == 200
    assert counted(ask(service.url, "/metrics").body, "edge_ai_rows_total") == posted + 1


def test_a_killed_worker_is_replaced_and_said_to_be(start):
    service = start()
    before = set(service.workers)
    for killed in before:
        os.kill(killed, signal.SIGKILL)
        assert ask(service.url, "/v1/score", BODY).status == 200  # the others serve meanwhile
        wait(lambda: killed not in service.workers and len(service.workers) == WORKERS)  # noqa: B023
    assert pids_from(service.url, WORKERS).isdisjoint(before)
    said = [line["message"] for line in service.said if line["level"] == "error"]
    assert [f"worker {pid} ended with -9; another one takes its place" in said for pid in before] == [
        True
    ] * 3
    assert service.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_is_under_way_and_ends_with_0(start, number):
    service = start()
    workers = service.workers
    where = urlsplit(service.url)
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    under_way = [socket.create_connection((where.hostname, where.port), timeout=60) for _ in range(9)]
    for connection in under_way:
        connection.sendall(head + BODY[:5])
    wait(lambda: all(map(accepted, under_way)))
    service.process.send_signal(number)
    time.sleep(0.1)
    for connection in under_way:
        with connection:
            connection.sendall(BODY[5:])
            while answered(connection).headers["connection"] != "close":
                connection.sendall(head + BODY)  # its worker had not been told yet
            assert connection.recv(1) == b""
    assert service.process.wait(60) == 0
    assert not any(map(alive, workers))
    assert "ended with" not in service.log.read_text()
    assert not list(service.log.parent.glob("edge-ai-counters-*"))


def test_when_it_ends_nobody_is_let_in_to_wait_for_nothing(start):
    """The process that keeps the workers has the listener, too, and accepts nothing."""
    service = start(workers=2)
    where = urlsplit(service.url)
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    with socket.create_connection((where.hostname, where.port), timeout=60) as under_way:
        under_way.sendall(head + BODY[:5])
        wait(lambda: accepted(under_way))
        service.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                ask(service.url, "/health/live")
            except ConnectionRefusedError:
                return True
            return False

        wait(refused)
        assert service.process.poll() is None
        under_way.sendall(BODY[5:])
        assert answered(under_way).headers["connection"] == "close"
    assert service.process.wait(60) == 0


def test_a_signal_to_all_of_them_at_once_ends_it_as_well(start):
    """As systemd sends it, and a terminal."""
    service = start()
    for pid in [service.pid, *service.workers, service.pid]:
        with contextlib.suppress(ProcessLookupError):  # it was that quick
            os.kill(pid, signal.SIGTERM)
    assert service.process.wait(60) == 0


def test_it_hands_over_when_another_one_serves(start):
    """On SIGUSR1 an idle connection is not closed before it was told so with its next answer."""
    service = start()
    with Asking(service.url) as asking:
        assert asking.ask("POST", "/v1/score", BODY).headers.get("connection") is None
        service.process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)  # longer than it waits for idle ones when nobody follows
        # It may not have been told yet.
        wait(lambda: asking.ask("POST", "/v1/score", BODY).headers.get("connection") == "close")
    assert service.process.wait(60) == 0


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_one_that_cannot_start_ends_the_service_and_says_why(start, release, tmp_path, workers):
    broken = shutil.copytree(release, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no model")
    service = start(workers=workers, release=broken, wait=False)
    assert service.process.wait(60) == 1
    errors = [line["message"] for line in service.said if line["level"] == "error"]
    assert len(errors) == 1 and "model.onnx cannot be loaded" in errors[0]
    assert not list(service.log.parent.glob("edge-ai-counters-*"))


def test_one_that_cannot_be_replaced_ends_the_service_and_leaves_none(start, release, tmp_path):
    spoiled = shutil.copytree(release, tmp_path / "spoiled")
    service = start(release=spoiled)
    (spoiled / "model.onnx").write_bytes(b"no model")
    workers = service.workers
    os.kill(workers[0], signal.SIGKILL)
    assert service.process.wait(60) == 1
    assert not any(map(alive, workers))
    assert "model.onnx cannot be loaded" in service.log.read_text()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped workers"])
def test_no_worker_outlives_the_one_that_keeps_them(start, stopped):
    """Killed, it can tell them nothing: they see that its end of a pipe is closed."""
    service = start()
    workers = service.workers
    idle = [
        socket.create_connection((urlsplit(service.url).hostname, urlsplit(service.url).port))
        for _ in range(6)
    ]
    if stopped:
        os.kill(workers[0], signal.SIGSTOP)
    os.kill(service.pid, signal.SIGKILL)
    service.process.wait(60)
    if stopped:
        time.sleep(0.3)
        os.kill(workers[0], signal.SIGCONT)
    wait(lambda: not any(map(alive, workers)), ORPHAN_SECONDS + 30)
    for connection in idle:
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(service.url, "/health/live")
    assert not list(service.log.parent.glob("edge-ai-counters-*"))


def test_the_service_ends_with_the_one_that_started_it(release, tmp_path):
    """As a supervisor's: the end of its pipe is closed, whatever it died of."""
    ours_read, ours = os.pipe()
    ready, tell = os.pipe()
    command = [*SERVE, "--release", str(release), "--outbox", str(tmp_path / "outbox.db"), "--port", "0"]
    command += ["--workers", "2", "--alive-fd", str(ours_read), "--ready-fd", str(tell)]
    process = subprocess.Popen(
        command,
        env=environment_of(TMPDIR=str(tmp_path)),
        pass_fds=[ours_read, tell],
        stderr=subprocess.DEVNULL,
    )
    os.close(ours_read)
    os.close(tell)
    with os.fdopen(ready, "rb") as line:
        assert line.readline() == b"ready\n"
    workers = children(process.pid)
    assert len(workers) == 2
    os.close(ours)
    assert process.wait(60) == 0
    assert not any(map(alive, workers))


@pytest.mark.integration
def test_the_sequence_of_several_workers_has_no_gap_under_load(start):
    """Each client gets ids that are its own, whichever worker serves it, and a worker's death costs none."""
    service = start()
    answered: dict[int, str] = {}
    wrong: list[str] = []
    end = threading.Event()

    def post(client: int) -> None:
        number = 0
        while not end.is_set():
            try:
                with Asking(service.url) as asking:
                    for _ in range(50):
                        number += 1
                        run = f"{client}/{number}"
                        rows = 1 + number % 5
                        body = {"records": [RECORD | {"_run": run, "_row": row} for row in range(rows)]}
                        answer = asking.ask("POST", "/v1/score", json.dumps(body).encode())
                        if answer.status != 200:
                            wrong.append(f"{answer.status} {answer.body!r}")
                            continue
                        for each in answer.json["results"]:
                            answered[int(each["id"].removeprefix("bergen/"))] = run
            except OSError:
                continue  # its worker was killed
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=post, args=(client,)) for client in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.4)
        os.kill(service.workers[0], signal.SIGKILL)
    time.sleep(0.6)
    end.set()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and service.end() == 0
    with Outbox(service.log.parent / "outbox.db", create=False) as outbox:
        kept = {row.sequence: decode(row).context.run for row in outbox.rows(1, 10**9)}
        assert outbox.counts() == outbox.recount()
    assert list(kept) == list(range(1, len(kept) + 1))
    assert answered.items() <= kept.items() and len(answered) > 100
    assert max(Counter(kept.values()).values()) <= 5


# What `Workers` does about the signals that a test of processes hits once in thousands of times.


def serving(ready_fd: int) -> int:
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    signal.pause()
    return 0


def in_process(play: Callable[[], int]) -> int:
    """The exit code of a process of its own, whose signals and children are not pytest's."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(play())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_signal_while_one_is_replaced_is_no_failure(tmp_path):
    """The new one ends before it is ready, since it was told to: that is how it should be."""

    def play() -> int:
        keeper = Workers(serving, [], tmp_path)
        start = keeper._start
        starts = []

        def begin() -> bool:
            starts.append(1)
            if len(starts) == 3:  # the one that takes another's place: all are told to end just now
                keeper._end(signal.SIGTERM)
                return False
            if len(starts) == 2:
                made = start()
                os.kill(next(iter(keeper._ready)), signal.SIGKILL)
                return made
            return start()

        keeper._start = begin  # type: ignore[method-assign]
        return keeper.run(2, None)

    assert in_process(play) == 0


def test_told_to_end_right_after_a_handover_it_waits_for_no_idle_connection(tmp_path):
    """Both signals are pending then, and the kernel lets the later one be seen first."""
    with (
        Service(tmp_path / "site", tiny_release(tmp_path / "release")) as service,
        Asking(service.url) as idle,
    ):
        idle.ask("GET", "/health/live")
        for number in (signal.SIGSTOP, signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT):
            os.kill(service.pid, number)
        began = time.monotonic()
        assert service.process.wait(60) == 0
        assert time.monotonic() - began < HANDING_OVER.seconds


def test_a_child_that_is_none_of_them_is_not_replaced(monkeypatch, tmp_path):
    """The first process of a container is given the orphans of all others."""

    def play() -> int:
        keeper = Workers(serving, [], tmp_path)
        start, wait = keeper._start, os.wait
        starts, ended = [], []

        def begin() -> bool:
            starts.append(1)
            return start()

        def next_one() -> tuple[int, int]:
            if not ended and os.fork() == 0:
                os._exit(0)
            if ended:
                keeper._end(signal.SIGTERM)
            ended.append(wait())
            return ended[-1]

        keeper._start = begin  # type: ignore[method-assign]
        monkeypatch.setattr(os, "wait", next_one)
        return len(starts) if keeper.run(2, None) == 0 else 99

    assert in_process(play) == 2


def test_a_signal_when_one_has_just_ended_reaches_the_others(tmp_path):
    def play() -> int:
        keeper = Workers(serving, [], tmp_path)
        keeper._ready = {2**22 + 1}  # no process has such a number
        keeper._end(signal.SIGTERM)
        return 0

    assert in_process(play) == 0


def test_an_orphan_that_does_not_end_is_ended(monkeypatch):
    """By itself, after a while: whatever keeps it from it."""

    def play() -> int:
        reader, writer = os.pipe()
        os.close(writer)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        monkeypatch.setattr(module, "ORPHAN_SECONDS", 0.1)
        module.end_with_parent(reader)
        return 0

    assert in_process(play) == 1
