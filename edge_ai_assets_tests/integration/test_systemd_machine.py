"""A machine that boots systemd, from joining to scores: the units do what they say, within their bounds."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets import enrolment
from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests.integration import containers
from edge_ai_assets_tests.integration.containers import CHECKOUT, Engine, run
from edge_ai_assets_tests.scoring.processes import wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

SUITE, DEBIANS_PYTHON = "bookworm", (3, 11)
CACHE = Path.home() / ".cache" / "edge_ai_assets" / f"machine-{SUITE}"
PACKAGES = "systemd,systemd-sysv,dbus,libstdc++6,procps,python3"
OURS = ("edge_ai_assets", "deploy", "dagster.yaml")
PYTHON = "/opt/edge-ai/.venv/bin/python"
SITE = "/var/lib/edge-ai/sites/bergen"
INSTALL = "from edge_ai_assets.commands.runtime import vm; vm()"
SCORE = f"""
import json, sys, urllib.request
url = json.load(open("{SITE}/service.json"))["url"]
records = [{{"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}}]
head = {{"Content-Type": "application/json"}}
asked = urllib.request.Request(url + "/v1/score", json.dumps({{"records": records}}).encode(), head)
sys.stdout.write(urllib.request.urlopen(asked, timeout=60).read().decode())
"""


def root_of(folder: Path) -> Path:
    """The root file system of a machine on which this project is installed in /opt/edge-ai."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.exists():
            partial = CACHE.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            wanted = ["--quiet", "--variant=minbase", f"--include={PACKAGES}"]
            run("mmdebstrap", *wanted, SUITE, partial, seconds=400)
            partial.rename(CACHE)
    root = folder / "root"
    run("cp", "--archive", "--reflink=auto", CACHE, root)
    ours = root / "opt" / "edge-ai"
    packages = ours / ".venv" / "lib" / f"python{DEBIANS_PYTHON[0]}.{DEBIANS_PYTHON[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text("/opt/packages\n/opt/edge-ai\n")
    (ours / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (ours / ".venv" / "bin").mkdir()
    (ours / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    for name in OURS:
        run("cp", "--recursive", CHECKOUT / name, ours / name)
    (root / "opt" / "packages").mkdir()
    (root / "opt" / "carried").mkdir()
    return root


def carried(folder: Path, into: Path) -> None:
    """What Azure's side gives to a ship: an invitation and a bundle."""
    home = Home(folder / "azure")
    model = tiny_release(folder / "model", usecase=True)
    text = (
        (model / "usecase.yaml").read_text().replace('"name": "bergen"', '"name": "bergen", "road": "media"')
    )
    (model / "usecase.yaml").write_text(text)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9, "rows": 10}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run="r", training_set="v", usecase="digest").write(model)
    pack.release(model, home.registry, home.keys, "tiny")
    enrolment.invite(home, usecases.load(model / "usecase.yaml"), "bergen", into)
    pack.bundle(home.registry, home.keys, into)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    if sys.version_info[:2] != DEBIANS_PYTHON:
        pytest.skip(f"the packages of this Python are mounted into a Debian with {DEBIANS_PYTHON}")
    folder = tmp_path_factory.mktemp("machine")
    with containers.engine() as engine:
        root = root_of(folder)
        carried(folder, root / "opt" / "carried")
        engine.podman(
            "run", "--detach", "--name=machine", "--systemd=always", "--privileged", "--network=none",
            f"--volume={sysconfig.get_path('purelib')}:/opt/packages:ro", "--rootfs", root, "/sbin/init",
        )  # fmt: skip
        asked = ("exec", "machine", "systemctl", "is-system-running")
        wait(lambda: engine.podman(*asked, check=False) == "running")
        yield engine, root
        engine.podman("rm", "--force", "--time=5", "machine")
        shutil.rmtree(root)


def test_from_joining_to_scores_and_through_crashes_and_restarts(machine):
    engine, root = machine
    there = root / SITE.lstrip("/")

    def on(*command: str, check: bool = True) -> str:
        within = ["--env=EDGE_AI_HOME=/var/lib/edge-ai", "--workdir=/opt/edge-ai", "machine"]
        return engine.podman("exec", *within, *command, check=check)

    def scores() -> int:
        """The number of a new score; 0 if it was not answered."""
        said = on(PYTHON, "-c", SCORE, check=False)
        return int(json.loads(said)["results"][0]["id"].removeprefix("bergen/")) if said else 0

    def shown(service: str, name: str) -> str:
        return on("systemctl", "show", "--value", f"--property={name}", service)

    invitation = "/opt/carried/bergen.invitation.json"
    on(PYTHON, "-m", "edge_ai_assets", "site", "join", invitation, "--to", "/opt/carried")
    assert not on(PYTHON, "-c", INSTALL, "--site", "oslo", check=False)
    assert not (root / "etc/systemd/system/edge-ai.target").exists()
    on(PYTHON, "-c", INSTALL, "--site", "bergen")
    services = [f"edge-ai-{name}.service" for name in ("scoring", "dagster", "web")]
    for service in services:
        wait(lambda service=service: shown(service, "ActiveState") == "active", 180)
    supervisor = shown("edge-ai-scoring.service", "MainPID")

    shutil.copy(root / "opt/carried/tiny-1.bundle", there / "media")
    first = wait(scores, 300)
    state = json.loads((there / "service.json").read_text())
    assert str(state["pid"]) == supervisor  # Dagster started none of its own
    assert (there / "outbox.db").stat().st_uid == (root / "var/lib/edge-ai").stat().st_uid != 0

    on("systemctl", "kill", "--signal=KILL", "--kill-who=main", "edge-ai-scoring.service")
    second = wait(scores)
    assert second > first
    assert shown("edge-ai-scoring.service", "NRestarts") == "1"
    on("systemctl", "restart", "edge-ai-scoring.service")
    third = wait(scores)
    assert third > second

    on("systemctl", "stop", "edge-ai.target")
    wait(lambda: all(shown(service, "ActiveState") in ("inactive", "failed") for service in services), 240)
    assert shown("edge-ai-scoring.service", "Result") == "success"
    assert not on("ps", "-u", "edge-ai", "-o", "args=", check=False)
    with Outbox(there / "outbox.db", create=False) as outbox:
        assert outbox.counts().scored == third
