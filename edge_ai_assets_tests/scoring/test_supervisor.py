"""The whole service as it runs on a site: real processes, killed in all ways, under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.scoring.client import Client
from edge_ai_assets.scoring.http import IDLE_SECONDS
from edge_ai_assets.scoring.supervisor import DeploymentFailed, Status
from edge_ai_assets_tests.scoring.processes import Asking, accepted
from edge_ai_assets_tests.tiny_model import tiny_release

COLUMNS = {"Pressure [bar]": [2.0], "Temperature": [10.0], "Pump type": ["screw"]}
BODY = json.dumps({"columns": COLUMNS}).encode()
SWITCHES = 10


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "site"
    yield folder
    supervisor.stop(folder)


@pytest.fixture
def releases(tmp_path: Path) -> list[Path]:
    return [tiny_release(tmp_path / f"release-{number}", bias=-float(number)) for number in range(2)]


def deploy(folder: Path, number: int, path: Path, **options: Any) -> Status:
    return supervisor.deploy(
        folder, site="bergen", release_id=f"sha256:{number}", version=number, path=path, **options
    )


def wait(true: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(AttributeError, FileNotFoundError):
            if result := true():
                return result
        time.sleep(0.01)
    raise AssertionError("it did not become true in time")


class Load:
    """Threads that post one row after the other on connections they keep, and never try twice."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self.answered: list[tuple[int, str]] = []
        self.failed: list[str] = []
        self._address = urlsplit(url).netloc
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._post) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _post(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._end.is_set():
            try:
                connection.request("POST", "/v1/score", BODY)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            if response.status == 200:
                self.answered.append((int(answer["first"].partition("/")[2]), answer["release"]))
            else:
                self.failed.append(f"{response.status} {answer}")
            time.sleep(0.002)
        connection.close()


def assert_all_kept_once(folder: Path, load: Load) -> None:
    """Each acknowledged id is in the outbox, under the release that was answered; none came twice."""
    with Outbox(folder / files.OUTBOX) as outbox:
        kept = {row.sequence: row.release for row in outbox.rows(1, 10**9)}
        assert outbox.counts().conserved and outbox.counts() == outbox.recount()
    ids = [sequence for sequence, _ in load.answered]
    assert len(set(ids)) == len(ids) > 0
    assert dict(load.answered).items() <= kept.items()
    assert sorted(kept) == list(range(1, len(kept) + 1))


def test_a_site_comes_up_scores_and_goes(folder: Path, releases: list[Path]):
    status = deploy(folder, 1, releases[0])
    assert supervisor.status(folder) == status
    assert (status.site, status.release_id, status.version) == ("bergen", "sha256:1", 1)
    with Client(status.url) as client:
        answer = client.score(COLUMNS, {"_row": [0]}, key="a")
        assert (answer.first, answer.release, answer.repeated) == ("bergen/1", "sha256:1", False)
        assert client.score(COLUMNS, {"_row": [0]}, key="a").repeated
        assert client.feedback([{"id": answer.first, "correct": False}]) == 1
        assert client.status()["pid"] == status.child_pid
        assert client.contract()["release"] == "sha256:1"
    supervisor.stop(folder)
    assert supervisor.status(folder) is None
    with pytest.raises(ProcessLookupError):
        os.kill(status.child_pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((urlsplit(status.url).hostname, urlsplit(status.url).port))


def test_switching_under_load_fails_no_request(folder: Path, releases: list[Path]):
    url = deploy(folder, 0, releases[0]).url
    with Load(url) as load:
        for number in range(1, SWITCHES + 1):
            status = deploy(folder, number, releases[number % 2])
            assert (status.url, status.release_id) == (url, f"sha256:{number}")
            wait(lambda: load.answered[-1][1] == status.release_id)  # noqa: B023 - called in this turn
    assert load.failed == []
    assert_all_kept_once(folder, load)


def test_connections_that_are_open_when_a_release_is_switched_are_still_answered(
    folder, releases: list[Path]
):
    url = urlsplit(deploy(folder, 0, releases[0]).url)
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    idle = socket.create_connection((url.hostname, url.port))
    slow = socket.create_connection((url.hostname, url.port))
    slow.sendall(head + BODY[:10])
    wait(lambda: accepted(idle) and accepted(slow))
    with Asking(url.geturl()) as third:
        third.ask("POST", "/v1/score", BODY)
        deploy(folder, 1, releases[1])
        wait(lambda: third.ask("POST", "/v1/score", BODY).headers.get("connection") == "close")  # it was told
    slow.sendall(BODY[10:])
    idle.sendall(head + BODY)
    for connection in (slow, idle):
        with connection, connection.makefile("rb") as file:
            answer = file.read()  # to the end: the connection is closed after it
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"sha256:0"' in answer
        assert b"connection: close" in answer


def test_a_connection_nobody_uses_does_not_hold_up_the_end(folder: Path, releases: list[Path]):
    url = urlsplit(deploy(folder, 0, releases[0]).url)
    with socket.create_connection((url.hostname, url.port)) as idle:
        wait(lambda: accepted(idle))
        deploy(folder, 1, releases[1])
        began = time.monotonic()
        supervisor.stop(folder)  # ends the former process too, which waits for its connection
        assert time.monotonic() < began + IDLE_SECONDS
        assert idle.recv(1) == b""


def test_a_broken_release_leaves_the_other_serving(folder: Path, releases: list[Path], tmp_path: Path):
    before = deploy(folder, 0, releases[0])
    broken = shutil.copytree(releases[1], tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no model")
    with Load(before.url) as load:
        with pytest.raises(
            DeploymentFailed, match=r"sha256:1 failed: .*model\.onnx cannot be loaded.*sha256:0 still serves"
        ):
            deploy(folder, 1, broken)
        wait(lambda: len(load.answered) > 20)
    assert load.failed == []
    after = supervisor.status(folder)
    assert (after.current, after.child_pid) == (before.current, before.child_pid)
    assert after.failed.release_id == "sha256:1"
    with pytest.raises(DeploymentFailed, match="sha256:1 failed"):  # again: a new answer, not the old one
        deploy(folder, 1, broken)
    assert deploy(folder, 2, releases[1]).failed is None


def test_a_first_release_that_is_broken_is_told_and_nothing_stays(
    folder: Path, tmp_path: Path, releases: list[Path]
):
    with pytest.raises(DeploymentFailed, match=r"there is no .*no release serves"):
        deploy(folder, 1, tmp_path / "nowhere")
    wait(lambda: not files.supervised(folder))
    assert supervisor.status(folder) is None
    assert deploy(folder, 2, releases[0]).release_id == "sha256:2"


def test_killed_under_load_every_acknowledged_score_is_kept_once(folder: Path, releases: list[Path]):
    status = deploy(folder, 0, releases[0])
    with Load(status.url, threads=8) as load:
        for _ in range(3):
            seen = len(load.answered)
            wait(lambda: len(load.answered) > seen + 30)  # noqa: B023 - called before the loop goes on
            pid = wait(lambda: supervisor.status(folder).child_pid)
            os.kill(pid, signal.SIGKILL)
            wait(lambda: supervisor.status(folder).child_pid not in (None, pid))  # noqa: B023
    assert supervisor.status(folder).restarts == 3
    assert_all_kept_once(folder, load)


def test_a_killed_supervisor_takes_its_process_along_and_is_started_again(folder: Path, releases: list[Path]):
    before = deploy(folder, 0, releases[0])
    with Client(before.url) as client:
        client.score(COLUMNS, key="a")
    os.kill(before.pid, signal.SIGKILL)
    wait(lambda: supervisor.status(folder) is None)
    wait(lambda: files.process_started(before.child_pid) is None)
    after = deploy(folder, 1, releases[1])
    assert (after.url, after.release_id, after.previous.release_id) == (before.url, "sha256:1", "sha256:0")
    with Client(after.url) as client:
        assert client.score(COLUMNS, key=None).first == "bergen/2"


def test_there_is_never_a_second_supervisor(folder: Path, releases: list[Path]):
    status = deploy(folder, 0, releases[0])
    command = [
        sys.executable,
        "-m",
        "edge_ai_assets.scoring.supervisor",
        "--folder",
        str(folder),
        "--site",
        "bergen",
    ]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert second.returncode == 1 and "held by another process" in second.stderr
    assert supervisor.status(folder) == status


def test_deployments_at_the_same_time_are_done_one_after_the_other(folder: Path, releases: list[Path]):
    deploy(folder, 0, releases[0])
    results: list[Status] = []
    threads = [
        threading.Thread(target=lambda number=number: results.append(deploy(folder, number, releases[1])))
        for number in range(1, 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(status.version for status in results) == [1, 2, 3]


def test_nothing_of_the_caller_is_held(folder: Path, releases: list[Path]):
    """make, pytest and Dagster wait until every copy of a pipe they gave is closed."""
    script = f"""
from pathlib import Path
from edge_ai_assets.scoring import supervisor
path = Path({str(releases[0])!r})
supervisor.deploy(Path({str(folder)!r}), site="bergen", release_id="a", version=1, path=path)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    status = supervisor.status(folder)
    assert os.getsid(status.pid) != os.getsid(0)
    assert Path(f"/proc/{status.pid}/stat").read_text().rpartition(")")[2].split()[1] != str(os.getpid())


def test_other_addresses_than_loopback_are_refused(tmp_path: Path, releases: list[Path]):
    command = [
        sys.executable,
        "-m",
        "edge_ai_assets.scoring.serve",
        "--site",
        "bergen",
        "--release",
        str(releases[0]),
    ]
    command += ["--release-id", "a", "--version", "1", "--outbox", str(tmp_path / "outbox.db"), "--port", "0"]
    done = subprocess.run(
        [*command, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 1
    assert "host '0.0.0.0' is refused" in json.loads(done.stderr.splitlines()[-1])["message"]
    with socket.create_server(("0.0.0.0", 0)) as listener:
        command = [*command[:-2], "--fd", str(listener.fileno())]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            pass_fds=[listener.fileno()],
        )
    assert done.returncode == 1 and "a socket on loopback only" in done.stderr


def test_a_server_of_its_own_is_ready_fast_drains_and_ends_with_0(tmp_path: Path, releases: list[Path]):
    ready, ready_fd = os.pipe()
    command = [
        sys.executable,
        "-m",
        "edge_ai_assets.scoring.serve",
        "--site",
        "bergen",
        "--release",
        str(releases[0]),
    ]
    command += ["--release-id", "a", "--version", "1", "--outbox", str(tmp_path / "outbox.db"), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(ready_fd)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        pass_fds=[ready_fd],
    )
    os.close(ready_fd)
    with os.fdopen(ready, "rb") as pipe, process:
        assert pipe.readline() == b"ready\n"
        line = json.loads(process.stderr.readline())
        (host, port) = line["addresses"][0]
        with Client(f"http://{host}:{port}") as client:
            assert client.score(COLUMNS, key=None).first == "bergen/1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert process.stderr.read() == ""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
