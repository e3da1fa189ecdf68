"""The workspace files name what is there: both sides together, and each alone."""

import importlib
from pathlib import Path

import dagster as dg
import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
AZURE, SITES = "edge_ai_assets.azure", "edge_ai_assets.stack_hub"


@pytest.mark.parametrize(
    ("file", "locations"),
    [
        ("workspace.yaml", [AZURE, SITES]),
        ("deploy/azure/workspace.yaml", [AZURE]),
        ("deploy/stack_hub/workspace.yaml", [SITES]),
    ],
)
def test_each_names_its_locations(file, locations, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path))
    modules = [entry["python_module"] for entry in yaml.safe_load((CHECKOUT / file).read_text())["load_from"]]
    assert [module["location_name"] for module in modules] == locations
    for module in modules:
        assert isinstance(importlib.import_module(module["module_name"]).defs, dg.Definitions)


def test_the_instance_connects_nowhere_and_queues_its_runs(tmp_path):
    declared = yaml.safe_load((CHECKOUT / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
    assert declared["concurrency"]["pools"]["default_limit"] == 1
