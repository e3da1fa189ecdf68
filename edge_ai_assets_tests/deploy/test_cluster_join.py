"""What the Job that makes a site's home in a cluster runs, run here: with folders for the disks it mounts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_ai_assets.enrolment import enrol
from edge_ai_assets.home import Home
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests.test_enrolment import CASE, azure, invitation, medium

__all__ = ["azure", "invitation", "medium"]
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job():
    (found,) = yaml.safe_load_all(
        (CHECKOUT / "deploy" / "stack_hub" / "kubernetes" / "join.yaml").read_text()
    )
    return found["spec"]["template"]["spec"]["containers"][0]


def test_a_site_joins_and_its_outbox_is_on_the_scoring_services_disk(job, azure, invitation, tmp_path):
    mounted = {mount["mountPath"]: tmp_path / mount["name"] for mount in job["volumeMounts"]}
    for folder in mounted.values():
        folder.mkdir(exist_ok=True)
    (tmp_path / "join" / "invitation.json").write_bytes(invitation.read_bytes())
    (tmp_path / "join" / "runtime.toml").write_text('kind = "kubernetes"\nrepository = "r.lan/edge/pump"\n')
    (tmp_path / "home" / "lost+found").mkdir()
    program = tmp_path / "bin" / "edge-ai"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_ai_assets "$@"\n')
    program.chmod(0o755)
    (script,) = job["args"]
    script = re.sub(f"({'|'.join(mounted)})/", lambda found: f"{mounted[found[1]]}/", script)
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "EDGE_AI_HOME": str(tmp_path / "home"),
    }
    assert job["command"] == ["bash", "-euc"]
    for _ in range(2):  # a Job may run twice
        done = subprocess.run(
            [*job["command"], script], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    carried = tmp_path / "narvik.enrolment.json"
    carried.write_text(done.stdout[done.stdout.index("{") :])
    assert enrol(azure, CASE, carried).site == "narvik"

    site = Home(tmp_path / "home").site("narvik")
    assert (site.root / "runtime.toml").exists()
    assert (tmp_path / "home" / "logs").is_dir()
    assert not site.outbox.exists(), "until the scoring service makes it"
    with Outbox(tmp_path / "outbox" / "outbox.db") as scoring, Outbox(site.outbox, create=False) as dagster:
        assert scoring.counts() == dagster.counts()
    assert {path.name for path in (tmp_path / "outbox").iterdir()} <= {
        "outbox.db",
        "outbox.db-wal",
        "outbox.db-shm",
    }
