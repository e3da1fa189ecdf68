"""The disconnected story: two Dagster instances in two homes that share nothing but a medium."""

import json
import os
import subprocess
import sys

import pytest

from edge_ai_assets_tests.integration.test_end_to_end import CHECKOUT, demo, may_count

pytestmark = pytest.mark.integration


def edge_ai(home, *arguments):
    environment = {**os.environ, "EDGE_AI_HOME": str(home), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-W", "ignore", "-m", "edge_ai_assets.cli", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_ship_and_azure_share_a_medium_and_nothing_is_lost(tmp_path):
    counted = may_count()
    code, found, said = demo(tmp_path / "home", "--disconnected", counted=counted)
    assert code == 0, said
    assert found["kept"], found["promises"]
    assert found["after"]["f1"] > 0.8 > found["before"]["f1"]
    if counted:
        assert "packets out: 0" in said, said
    azure, ship = (tmp_path / "home" / "apart" / side for side in ("azure", "narvik"))
    explained = edge_ai(azure, "explain", found["insight"])
    assert explained["ledger"] is None and explained["score"] is None, "the ship's disk is not on Azure"
    assert set(explained["elsewhere"]) == {"ledger", "score"}
    assert {"scoring", "packing", "upload", "inbox"} <= explained["runs"].keys()
    aboard = edge_ai(ship, "explain", found["insight"])
    assert aboard["ledger"]["verified"] and aboard["package"]["name"] == explained["package"]["name"]
    assert aboard["ledger"]["covered"] == aboard["package"]["bytes"] > 0
    assert aboard["release"]["image"] == explained["release"]["image"]
    assert aboard["runs"].items() <= explained["runs"].items(), "the same runs, seen from both sides"
    assert set(aboard["elsewhere"]) == {"training_set"}
    assert explained["completeness"]["watermark"].startswith("complete through")
    assert len({run[:8] for run in explained["runs"].values()}) >= 3
    assert edge_ai(ship, "ledger", "verify")["narvik"]["holds"]
    listed = edge_ai(ship, "returns", "list", "--site", "narvik")
    assert {package["state"] for package in listed["packages"]} == {"acknowledged", "exported"}
