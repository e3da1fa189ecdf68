"""Nothing connects outward while a bundle is verified, imported and deployed: packets are counted at the only
way out of a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ai_assets import usecase
from edge_ai_assets.delivery import pack
from edge_ai_assets.enrolment import invite, join
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets_tests.integration.test_end_to_end import CHECKOUT, counted_command, may_count
from edge_ai_assets_tests.tiny_model import INPUTS, tiny_release

pytestmark = pytest.mark.integration

USECASE = """
name: tiny
time: {columns: [time]}
runs: {column: run}
features:
  - {name: "Pressure [bar]", unit: bar, range: [0, 25]}
  - {name: Temperature, range: [-40, 150]}
  - {name: Pump type, kind: category, categories: [centrifugal, screw]}
label: {column: fault, positive: [1]}
egress: {kinds: [anomaly], fields: [{name: _score, leaves: rounded, digits: 3}]}
sites: [{name: narvik, road: media}]
"""
WAY = """
set -e
edge_ai() { "$0" -W ignore -m edge_ai_assets "$@"; }
edge_ai bundle verify "$1" --site narvik --json
edge_ai bundle import "$1" --site narvik --json
"$0" -W ignore "$2"
"""
DEPLOY = """
import json, sys, urllib.request
import dagster as dg
from edge_ai_assets import keys
from edge_ai_assets.partitions import SITES
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub.definitions import build_defs

settings = Settings.load()
site = settings.folders().site("narvik")
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions(str(SITES.name), ["narvik"])
    job = build_defs(settings=settings).resolve_job_def("deploy_sites")
    done = job.execute_in_process(instance=instance, partition_key="narvik")
ours = runtime(site.root, "narvik")
try:
    record = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
    request = urllib.request.Request(
        ours.status().url + "/v1/score", json.dumps({"records": [record]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(json.dumps({"deployed": done.success, "scored": len(json.load(answer)["results"])}))
finally:
    ours.stop()
"""


@pytest.fixture
def carried(tmp_path: Path) -> tuple[Home, Path]:
    """A site's home, and a bundle that somebody carried to it."""
    azure, ship, medium = Home(tmp_path / "azure"), Home(tmp_path / "ship"), tmp_path / "medium"
    case = usecase.loads(USECASE)
    model = tiny_release(azure.candidates / "run-1", inputs=INPUTS[:3])
    (model / "usecase.yaml").write_text(USECASE, "utf-8")
    (model / "metrics.json").write_text("{}")
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run="run-1", training_set="set", usecase=case.digest).write(model)
    pack.release(model, azure.registry, azure.keys, "tiny")
    join(ship, invite(azure, case, "narvik", medium), medium)
    return ship, pack.bundle(azure.registry, azure.keys, medium)


def test_from_a_medium_to_a_score_without_a_packet_out(carried, tmp_path):
    counted = may_count()
    if not counted and os.environ.get("CI"):
        pytest.fail("CI counts outgoing packets: it needs root, unshare and ip (Debian's iproute2)")
    home, bundle = carried
    (tmp_path / "deploy.py").write_text(DEPLOY)
    command = ["sh", "-c", WAY, sys.executable, str(bundle), str(tmp_path / "deploy.py")]
    environment = {**os.environ, "EDGE_AI_HOME": str(home.root), "PYTHONPATH": str(CHECKOUT)}
    environment.pop("EDGE_AI_USECASE", None)
    done = subprocess.run(
        counted_command(*command) if counted else command,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"deployed": True, "scored": 1}
    if counted:
        assert "packets out: 0" in done.stderr, done.stderr[-3000:]
