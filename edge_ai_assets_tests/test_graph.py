"""Both code locations together: one graph, no key made twice, and a snapshot that shows in review what
changed."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from edge_ai_assets import interfaces, keys
from edge_ai_assets.azure import definitions as azure
from edge_ai_assets.partitions import SITES
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import definitions as stack_hub

SNAPSHOT = Path(__file__).with_name("graph.txt")


@pytest.fixture(scope="module")
def locations(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    return {
        "azure": azure.build_defs(settings=settings),
        "stack_hub": stack_hub.build_defs(settings=settings),
    }


def graph(defs):
    return defs.resolve_asset_graph()


def described(locations) -> str:
    lines = []
    for name, defs in locations.items():
        found = graph(defs)
        for key in sorted(found.get_all_asset_keys()):
            node = found.get(key)
            made = "made" if node.is_materializable else "known"
            follows = " follows" if node.automation_condition else ""
            partitions = f" by {node.partitions_def.name}" if node.partitions_def else ""
            lines.append(f"{name}: {key.to_user_string()} [{node.group_name}] {made}{partitions}{follows}")
            lines += [f"    <- {parent.to_user_string()}" for parent in sorted(node.parent_keys)]
            lines += [
                f"    check {check.name}" for check in sorted(node.check_keys, key=lambda check: check.name)
            ]
        repository = defs.get_repository_def()
        lines += [
            f"{name}: job {job.name}" for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)
        ]
        for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
            lines.append(
                f"{name}: sensor {sensor.name} every {sensor.minimum_interval_seconds} s "
                f"{sensor.default_status.value}"
            )
        for schedule in repository.schedule_defs:
            lines.append(
                f"{name}: schedule {schedule.name} {schedule.cron_schedule} {schedule.default_status.value}"
            )
    return "\n".join(lines) + "\n"


def test_the_graph_is_as_in_the_snapshot(locations):
    """After a change that is meant: python -m edge_ai_assets_tests.test_graph >
    edge_ai_assets_tests/graph.txt"""
    assert described(locations) == SNAPSHOT.read_text("utf-8")


def test_no_key_is_made_in_both_locations(locations):
    made = [
        {key for key in graph(defs).get_all_asset_keys() if graph(defs).get(key).is_materializable}
        for defs in locations.values()
    ]
    assert not made[0] & made[1]


@pytest.mark.parametrize("spec", interfaces.SITE_CHAIN, ids=lambda spec: spec.key.to_user_string())
def test_what_azure_knows_of_a_site_is_what_the_site_makes(locations, spec):
    known, made = graph(locations["azure"]).get(spec.key), graph(locations["stack_hub"]).get(spec.key)
    assert not known.is_materializable and made.is_materializable
    assert known.parent_keys == made.parent_keys
    assert known.partitions_def == made.partitions_def == SITES
    assert (known.group_name, known.description) == (made.group_name, made.description)


def test_every_asset_has_a_description_an_owner_a_group_and_a_kind(locations):
    for defs in locations.values():
        found = graph(defs)
        for key in found.get_all_asset_keys():
            node = found.get(key)
            if node.is_materializable:
                assert node.description and node.owners and node.group_name and node.kinds, key


def test_azure_sees_the_way_from_readings_to_the_report(locations):
    found, seen, front = graph(locations["azure"]), set(), {keys.RAW_TELEMETRY}
    while front:
        seen |= front
        front = {child for key in front for child in found.get(key).child_keys} - seen
    assert {keys.REPORT, keys.SITE_UPLOAD, keys.DRIFT, keys.BUNDLE} <= seen


def test_all_that_turns_by_itself_is_on(locations):
    for defs in locations.values():
        repository = defs.get_repository_def()
        assert all(
            sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in repository.sensor_defs
        )
        assert all(
            schedule.default_status == dg.DefaultScheduleStatus.RUNNING
            for schedule in repository.schedule_defs
        )


LOAD = """
import sys, time
start = time.monotonic()
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r} or name.startswith("azure."):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from {module} import defs
import dagster as dg
dg.Definitions.validate_loadable(defs)
"""


def test_a_site_loads_without_what_only_training_needs(tmp_path):
    """Without scikit-learn, the ONNX exporter, Delta tables and all of Azure's libraries."""
    absent = ["sklearn", "skl2onnx", "onnx", "deltalake", "matplotlib", "azure"]
    script = LOAD.format(absent=absent, module="edge_ai_assets.stack_hub.definitions")
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_azure_loads_without_the_server(tmp_path):
    script = LOAD.format(
        absent=["uvicorn", "uvloop", "httptools", "kubernetes"], module="edge_ai_assets.azure.definitions"
    )
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr


def run(script, home):
    environment = {"EDGE_AI_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


if __name__ == "__main__":
    home = Settings(home=Path(".edge-ai"))
    sys.stdout.write(
        described(
            {"azure": azure.build_defs(settings=home), "stack_hub": stack_hub.build_defs(settings=home)}
        )
    )
