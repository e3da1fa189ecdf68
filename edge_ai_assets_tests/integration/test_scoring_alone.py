"""The service with its own few packages and no network: what a small box on a site has."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets_tests.scoring.processes import CHECKOUT, Asking, Service
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
COLUMNS = {"Pressure [bar]": [2.0] * 1000, "Temperature": [10.0] * 1000, "Pump type": ["screw"] * 1000}
BODY = json.dumps({"records": [RECORD]}).encode()
RSS = 150 * 1024 * 1024
ABSENT = [
    "azure",
    "cryptography",
    "dagster",
    "duckdb",
    "httpx",
    "onnx",
    "pandas",
    "pyarrow",
    "sklearn",
]
"""What is not installed with the service alone."""
UNUSED = [
    *ABSENT,
    "pydantic",
    "typer",
    "rich",
    "click",
    "prometheus_client",
    "yaml",
    "http.client",
    "urllib.request",
    "unittest",
]
"""What serving does not load, installed or not: it would be paid for with each start."""
UNSHARE = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]
"""A network of its own; all that is started in it ends with it."""
TRACED = "socket,connect,sendto,sendmsg,sendmmsg"


@pytest.fixture(scope="module")
def alone(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of programs of an environment with `edge_ai_assets[scoring]` only, as of now."""
    cache = getattr(pytestconfig, "cache", None)
    folder = cache.mkdir("scoring-alone") if cache else tmp_path_factory.mktemp("scoring-alone")
    home = folder / f"py{sys.version_info.major}.{sys.version_info.minor}"
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ours = [*pip, "--no-deps", "--force-reinstall", str(CHECKOUT)]
    wanted = [*pip, "--constraint", str(CHECKOUT / "constraints.txt"), f"{CHECKOUT}[scoring]"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of pytest may be at it
        for command in ([sys.executable, "-m", "venv", "--clear", home], wanted, ours):
            made = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if made.returncode:
                missing = f"edge_ai_assets[scoring] cannot be installed: {made.stderr.strip()[-500:]}"
                pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        yield home / "bin"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return tiny_release(tmp_path / "release")


def plain(home: Path, **more: str) -> dict[str, str]:
    """An environment with nothing of ours: no checkout, no home of the user."""
    home.mkdir(exist_ok=True)
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", **more}


def rss(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def use(service: Service) -> None:
    """What a site does with it in a day: the page, scores of all kinds, feedback, metrics."""
    with Asking(service.url) as asking:
        for path in (
            "/",
            "/docs",
            "/openapi.json",
            "/v1/contract",
            "/v1/status",
            "/metrics",
            "/health/ready",
        ):
            assert asking.ask("GET", path).status == 200, path
        for _ in range(200):
            assert asking.ask("POST", "/v1/score", BODY).status == 200
        columns = json.dumps({"columns": COLUMNS}).encode()
        for _ in range(20):
            assert asking.ask("POST", "/v1/score", columns).status == 200
        table = "Pressure [bar],Temperature,Pump type\n" + "2.0,10.0,screw\n" * 20_000
        assert asking.ask("POST", "/v1/score", table.encode(), {"Content-Type": "text/csv"}).status == 200
        said = json.dumps({"items": [{"id": "bergen/1", "correct": False}]}).encode()
        assert asking.ask("POST", "/v1/feedback", said).status == 200
        assert asking.ask("GET", "/v1/recent").json["scores"]


def test_it_is_installed_without_what_only_training_needs(alone: Path):
    listed = subprocess.run(
        [alone / "python", "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    names = {each["name"].lower() for each in json.loads(listed.stdout)}
    assert "onnxruntime" in names
    heavy = {"pandas", "scikit-learn", "pyarrow", "duckdb", "onnx", "cryptography", "httpx"}
    assert not names & heavy
    assert not [name for name in names if name.startswith(("azure", "dagster"))]
    for name in ABSENT:
        done = subprocess.run(
            [alone / "python", "-I", "-c", f"import {name}"], capture_output=True, text=True
        )
        assert f"No module named '{name}'" in done.stderr


def test_the_command_serves_within_its_memory_and_loads_nothing_else(
    alone: Path, release: Path, tmp_path: Path
):
    environment = plain(tmp_path / "home", PYTHONPROFILEIMPORTTIME="1")
    command = [str(alone / "edge-ai"), "serve"]
    began = time.monotonic()
    with Service(tmp_path / "traced", release, command=command, environment=environment) as service:
        loaded = set(re.findall(r"^import time:.*\|\s+(\S+)$", service.log.read_text(), re.MULTILINE))
        assert service.end() == 0
    assert {"onnxruntime", "numpy", "uvloop", "edge_ai_assets.scoring.serve"} <= loaded
    assert not [name for name in loaded if any(f"{name}.".startswith(f"{other}.") for other in UNUSED)]
    began = time.monotonic()
    with Service(tmp_path / "run", release, command=command, environment=plain(tmp_path / "home")) as service:
        seconds = time.monotonic() - began
        idle = rss(service.pid)
        use(service)
        most = rss(service.pid)
        variables = Path(f"/proc/{service.pid}/environ").read_bytes().split(b"\0")
        assert not [each for each in variables if each.startswith(b"ORT_")]  # it needs nobody's help for it
        assert service.end() == 0
    print(f"ready after {seconds:.2f} s, {idle / 1e6:.0f} MB then, {most / 1e6:.0f} MB at most")
    assert most <= RSS
    assert not list((tmp_path / "home").rglob("*"))  # no cache, no telemetry's identity, nothing left behind


def test_each_of_several_workers_keeps_within_its_memory(alone: Path, release: Path, tmp_path: Path):
    command, environment = [str(alone / "edge-ai"), "serve"], plain(tmp_path / "home")
    with Service(tmp_path / "run", release, command=command, environment=environment, workers=2) as service:
        pids = [service.pid, *service.workers]
        use(service)
        most = [rss(pid) for pid in pids]
        assert service.end() == 0
    print("MB at most:", [round(each / 1e6) for each in most])
    assert max(most) <= RSS


def test_onnxruntime_is_told_to_send_nothing_before_it_is_loaded(alone: Path, release: Path, tmp_path: Path):
    script = """
import os, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))

sys.meta_path.insert(0, Watch())
from edge_ai_assets.scoring.model import Model
Model(Path(sys.argv[1]))
"""
    command = [alone / "python", "-I", "-c", script, release]
    done = subprocess.run(command, capture_output=True, text=True, env=plain(tmp_path / "home"), timeout=60)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_it_makes_no_connection(alone: Path, release: Path, tmp_path: Path):
    """It, and all its threads and workers, from the first instruction to the last, as the kernel sees it."""
    strace = shutil.which("strace")
    if strace is None:
        missing = "strace is not installed: apt-get install strace"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    trace = tmp_path / "trace"
    command = [
        strace,
        "-f",
        "-qq",
        "-e",
        f"trace={TRACED}",
        "-o",
        str(trace),
        str(alone / "edge-ai"),
        "serve",
    ]
    environment = plain(tmp_path / "home")
    with Service(tmp_path / "run", release, command=command, environment=environment, workers=2) as service:
        use(service)
        (served,) = service.workers  # strace's child
        os.kill(served, 15)
        assert service.process.wait(60) == 0
    calls = trace.read_text().splitlines()
    assert any("socket(AF_INET, SOCK_STREAM" in call for call in calls)  # it was watched: this one listens
    assert not [call for call in calls if "connect(" in call or "SOCK_DGRAM" in call or "sendto(" in call]
    assert not [call for call in calls if "AF_NETLINK" in call or "SOCK_RAW" in call]


@pytest.fixture
def no_network() -> None:
    """That a network can be made with nothing in it but loopback."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        missing = "a network namespace needs `unshare` and `ip` (util-linux, iproute2)"
    else:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
        missing = f"no network namespace can be made: {tried.stderr.strip()}" if tried.returncode else ""
    if missing:
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def test_it_needs_no_network(alone: Path, release: Path, tmp_path: Path, no_network: None):
    """Ready as fast, and it scores, where no name resolves and no packet goes anywhere."""
    client = f"""
import json, os, subprocess, sys, urllib.request
ready, tell = os.pipe()
served = subprocess.Popen([*sys.argv[1:], "--ready-fd", str(tell)], pass_fds=[tell])
os.close(tell)
assert os.read(ready, 10) == b"ready\\n"
kind = {{"Content-Type": "application/json"}}
request = urllib.request.Request("http://127.0.0.1:8080/v1/score", {BODY!r}, kind)
print(json.load(urllib.request.urlopen(request))["results"][0]["id"])
served.terminate()
sys.exit(served.wait(60))
"""
    serve = [
        alone / "edge-ai",
        "serve",
        "--release",
        release,
        "--outbox",
        tmp_path / "outbox.db",
        "--port",
        "8080",
    ]
    inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", alone / "python", "-c", client, *serve]
    done = subprocess.run(
        [*UNSHARE, *inside],
        capture_output=True,
        text=True,
        timeout=60,
        env=plain(tmp_path / "home", PATH=os.environ["PATH"]),
    )
    assert (done.returncode, done.stdout) == (0, "local/1\n"), done.stderr


def test_the_commands_it_can_do_say_what_they_are_for(alone: Path, tmp_path: Path):
    environment = plain(tmp_path / "home")
    for arguments in (["serve", "--help"], ["tokens", "--help"]):
        done = subprocess.run(
            [alone / "edge-ai", *arguments], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0 and "usage" in done.stdout.lower()
    made = tmp_path / "tokens.json"
    add = [alone / "edge-ai", "tokens", "add", "panel", "--file", made, "--role", "score"]
    done = subprocess.run(add, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("eai_") and made.stat().st_mode & 0o777 == 0o600
