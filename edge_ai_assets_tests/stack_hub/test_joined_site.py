"""A site in a home of its own: from the medium that was carried aboard to scores, nothing of Azure's."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import pytest

from edge_ai_assets import keys, local, usecase
from edge_ai_assets.delivery import pack
from edge_ai_assets.enrolment import invite, join
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.partitions import SITES
from edge_ai_assets.scoring import folder, supervisor
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import definitions
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START
from edge_ai_assets.stack_hub.rollout import steps
from edge_ai_assets_tests.tiny_model import INPUTS, tiny_release

AZURE_S = ["landing", "lake", "models", "registry", "media", "uplink", "refused", "keys"]
USECASE = """
name: tiny
time: {columns: [time]}
runs: {column: run}
features:
  - {name: "Pressure [bar]", unit: bar, range: [0, 25]}
  - {name: Temperature, range: [-40, 150]}
  - {name: Pump type, kind: category, categories: [centrifugal, screw]}
label: {column: fault, positive: [1]}
egress:
  kinds: [anomaly, lineage]
  fields: [{name: _score, leaves: rounded, digits: 3}]
sites:
  - {name: bergen}
  - {name: narvik, road: media}
"""
CASE = usecase.loads(USECASE)


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A medium with an invitation and two bundles; Azure's home is gone."""
    root = tmp_path_factory.mktemp("carried")
    azure, medium = Home(root / "azure"), root / "medium"
    for number in (1, 2):
        model = tiny_release(azure.candidates / f"run-{number}", inputs=INPUTS[:3], bias=0.1 * number)
        (model / "usecase.yaml").write_text(USECASE, "utf-8")
        (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
        (model / "model_card.md").write_text("A tiny model.")
        Lineage(training_run=f"run-{number}", training_set="set", usecase=CASE.digest).write(model)
        pack.release(model, azure.registry, azure.keys, "tiny")
        pack.bundle(azure.registry, azure.keys, medium)
    steps.withdraw(azure, CASE, "ann", "the licence forbids it", release=2)
    pack.bundle(azure.registry, azure.keys, medium / "later")
    invite(azure, CASE, "narvik", medium)
    shutil.rmtree(azure.root)
    return medium


@pytest.fixture
def ship(carried, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    home = Home(tmp_path / "ship")
    join(home, carried / "narvik.invitation.json", tmp_path)
    return home


@pytest.fixture
def repository(ship):
    return definitions.build_defs(settings=Settings(home=ship.root)).get_repository_def()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(repository, name, instance):
    (sensor,) = [sensor for sensor in repository.sensor_defs if sensor.name == name]
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))


def work_off(repository, instance):
    """What the daemon does: register sites, run what sensors ask for until none asks. The jobs that ran."""
    ran = []
    for request in tick(repository, "sites_registered", instance).dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(str(SITES.name), request.partition_keys)
    sensors = [sensor for sensor in repository.sensor_defs if sensor.name != "sites_registered"]
    for _ in range(10):
        asked = [
            (sensor.job_name, request)
            for sensor in sensors
            for request in tick(repository, sensor.name, instance).run_requests or ()
        ]
        if not asked:
            return ran
        name, request = asked[0]
        done = repository.get_job(name).execute_in_process(
            instance=instance, tags=request.tags, raise_on_error=False
        )
        assert done.success, [event.message for event in done.all_events if event.is_failure]
        ran.append(name)
    raise AssertionError(f"the sensors do not come to rest: {ran}")


def test_its_location_knows_one_site(ship, repository, instance):
    asked = tick(repository, "sites_registered", instance).dynamic_partitions_requests
    assert [list(request.partition_keys) for request in asked] == [["narvik"]]
    defs = definitions.build_defs(settings=Settings(home=ship.root))
    assert defs.resources["usecase"] == CASE.alone("narvik")


def test_no_sensor_looks_at_a_registry(ship, repository, instance, monkeypatch):
    """There is none; a folder of that name, with whatever in it, must not matter either."""
    names = {sensor.name for sensor in repository.sensor_defs}
    assert (
        "release_available" not in names and {"bundle_arrived", "service_down", "readings_waiting"} <= names
    )
    instance.add_dynamic_partitions(str(SITES.name), ["narvik"])
    for what in AZURE_S:
        (ship.root / what).write_text("whoever opens this as a folder fails")
    for name in names:
        assert not tick(repository, name, instance).run_requests


def test_a_home_with_both_sides_has_that_sensor(tmp_path):
    both = definitions.build_defs(settings=Settings(home=tmp_path)).get_repository_def()
    assert "release_available" in {sensor.name for sensor in both.sensor_defs}


def test_its_dagster_loads_the_site_s_side_only(ship):
    assert local.workspace(ship) == local.SITE


def test_from_a_carried_bundle_to_scores_and_through_a_blackout(ship, repository, instance, carried):
    site = ship.site("narvik")
    assert work_off(repository, instance) == []
    try:
        shutil.copy(carried / "tiny-1.bundle", site.media)
        assert work_off(repository, instance) == ["deploy_sites"]
        assert supervisor.status(site.root).version == 1

        (site.readings / "a.csv").write_text(
            "run,time,Pressure [bar],Temperature,Pump type,fault\n"
            + "".join(f"r1,2026-01-01T00:{row:02}:00,{row % 20},20,screw,0\n" for row in range(60))
        )
        assert work_off(repository, instance)[0] == "score_sites"
        made = instance.get_latest_materialization_event(keys.SITE_SCORES).asset_materialization
        assert made.partition == "narvik" and made.metadata["scored_rows"].value == 60
        assert made.metadata["anomalies"].value > 0
        assert list(site.outgoing.glob("*.zip"))

        supervisor.stop(site.root)
        assert work_off(repository, instance) == ["restart_sites"]
        assert supervisor.status(site.root).version == 1

        shutil.copy(carried / "tiny-2.bundle", site.media)
        assert work_off(repository, instance)[0] == "deploy_sites"
        assert supervisor.status(site.root).version == 2
        made = instance.get_latest_materialization_event(keys.SITE_DEPLOYMENT).asset_materialization
        told = {name: value.value for name, value in made.metadata.items()}
        assert (told["champion_release"], told["champion_rows"]) == (1, 60)
        assert told["champion_anomaly_rate"] > 0
        assert told["champion_requests"] == 0  # since the blackout
    finally:
        supervisor.stop(site.root)
    assert not [what for what in AZURE_S if (ship.root / what).exists()]
    assert [path.name for path in (ship.root / "sites").iterdir()] == ["narvik"]


def test_aboard_a_release_is_rolled_back_and_resumed_without_azure(ship, repository, instance, carried):
    site = ship.site("narvik")
    work_off(repository, instance)
    try:
        for number in (1, 2):
            shutil.copy(carried / f"tiny-{number}.bundle", site.media)
            work_off(repository, instance)
        assert supervisor.status(site.root).version == 2
        made = instance.get_latest_materialization_event(keys.SITE_DEPLOYMENT).asset_materialization
        assert made.metadata["champion_release"].value == 1

        steps.roll_back(ship, CASE, "the chief", "false alarms")
        assert work_off(repository, instance) == ["deploy_sites"]
        assert supervisor.status(site.root).version == 1
        for path in site.media.iterdir():
            path.unlink()
        supervisor.stop(site.root)
        assert work_off(repository, instance) == ["restart_sites"]
        assert supervisor.status(site.root).version == 1
        shutil.copy(carried / "tiny-2.bundle", site.media)  # carried once more, by somebody who does not know
        work_off(repository, instance)
        assert supervisor.status(site.root).version == 1 and work_off(repository, instance) == []

        for path in site.media.iterdir():
            path.unlink()
        steps.resume(ship, CASE, "the chief", "it was a broken sensor")
        assert work_off(repository, instance) == ["deploy_sites"]
        assert supervisor.status(site.root).version == 2
    finally:
        supervisor.stop(site.root)
    assert not [what for what in AZURE_S if (ship.root / what).exists()]


def test_aboard_a_release_that_was_withdrawn_gives_way_to_the_one_before(ship, repository, instance, carried):
    site = ship.site("narvik")
    work_off(repository, instance)
    try:
        shutil.copy(carried / "tiny-2.bundle", site.media)
        work_off(repository, instance)
        assert supervisor.status(site.root).version == 2
        shutil.copy(carried / "later" / "tiny-1.bundle", site.media)
        assert work_off(repository, instance) == ["deploy_sites"]
        assert supervisor.status(site.root).version == 1
        shutil.copy(carried / "tiny-2.bundle", site.media)  # once more, by somebody who did not hear
        work_off(repository, instance)
        assert supervisor.status(site.root).version == 1 and work_off(repository, instance) == []
        assert folder.withdrawn(site.root) == {supervisor.status(site.root).previous.release_id}
    finally:
        supervisor.stop(site.root)


def test_another_site_s_partition_in_its_log_is_left_alone(ship, repository, instance, carried):
    instance.add_dynamic_partitions(str(SITES.name), ["bergen", "narvik"])
    shutil.copy(carried / "tiny-1.bundle", ship.site("narvik").media)
    (request,) = tick(repository, "bundle_arrived", instance).run_requests
    assert request.tags[RANGE_START] == request.tags[RANGE_END] == "narvik"


@pytest.mark.parametrize(
    ("sensor", "job"), [("bundle_arrived", "deploy_sites"), ("service_down", "restart_sites")]
)
def test_each_deployment_is_a_run_of_its_own(tmp_path, monkeypatch, instance, sensor, job):
    """Of neighbours too: a torn bundle or a full disk at one does not keep the others back."""
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    home = Home(tmp_path)
    usecase.dump(CASE, home.usecase)
    repository = definitions.build_defs(settings=Settings(home=tmp_path)).get_repository_def()
    instance.add_dynamic_partitions(str(SITES.name), ["bergen", "narvik"])
    for name in ("bergen", "narvik"):
        site = home.site(name)
        site.media.mkdir(parents=True)
        if sensor == "bundle_arrived":
            (site.media / "some.bundle").write_bytes(b"x")
        else:
            folder.write_wish(site.root, folder.Wish(folder.Release("sha256:1", 1, "x"), "asked"))
    requests = tick(repository, sensor, instance).run_requests
    assert [request.tags[RANGE_START] for request in requests] == ["bergen", "narvik"]
    assert all(request.tags[RANGE_START] == request.tags[RANGE_END] for request in requests)
    other = {"deploy_sites": "restart_sites", "restart_sites": "deploy_sites"}[job]
    instance.create_run_for_job(repository.get_job(other), status=dg.DagsterRunStatus.STARTED)
    assert not tick(repository, sensor, instance).run_requests
