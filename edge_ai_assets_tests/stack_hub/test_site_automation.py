"""Sensors over all sites: a bounded batch, in turn, through restarts and absences, nothing twice."""

from types import SimpleNamespace

import dagster as dg
import pytest

from edge_ai_assets import usecase
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets.stack_hub import automation, delivery
from edge_ai_assets.stack_hub.automation import BATCH, LOOK, next_in_turn, something_waits
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START
from edge_ai_assets.stack_hub.rollout import SiteState
from edge_ai_assets.usecase import Site


@dg.asset(partitions_def=SITES, backfill_policy=dg.BackfillPolicy.single_run())
def work(context: dg.AssetExecutionContext) -> None:
    pass


JOB = dg.define_asset_job("work_job", selection=[work])


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def register(instance, count):
    names = [f"site-{number:04}" for number in range(count)]
    instance.add_dynamic_partitions(str(SITES.name), names)
    return names


def tick(sensor, instance, cursor=None):
    """One evaluation: the sites asked for, the run keys, the cursor after it."""
    result = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
    names = instance.get_dynamic_partitions(str(SITES.name))
    asked = []
    for request in result.run_requests:
        first, last = names.index(request.tags[RANGE_START]), names.index(request.tags[RANGE_END])
        asked += names[first : last + 1]
    return asked, [request.run_key for request in result.run_requests], result.cursor


def test_every_site_is_asked_once_in_a_round_across_restarts(instance, home):
    names = register(instance, 3 * BATCH + 7)
    cursor, asked = None, []
    for _ in range(4):
        # Each tick has a sensor of its own: nothing but the cursor outlives a restart.
        sensor = something_waits("waits", JOB, home, lambda site: "something", "")
        found, _, cursor = tick(sensor, instance, cursor)
        assert len(found) <= BATCH
        asked += found
    assert sorted(asked[: 3 * BATCH]) == names[: 3 * BATCH]
    assert set(asked) == set(names)


def test_a_tick_looks_at_a_bounded_number_of_sites(instance, home):
    register(instance, 4 * LOOK)
    looked = []
    tick(something_waits("waits", JOB, home, lambda site: looked.append(site.name), ""), instance)
    assert len(looked) == LOOK


def test_a_thousand_idle_sites_are_all_looked_at_in_a_few_ticks(instance, home):
    names = register(instance, 1000)
    looked, cursor = [], None
    for _ in range(1000 // LOOK):
        sensor = something_waits("waits", JOB, home, lambda site: looked.append(site.name), "")
        _, _, cursor = tick(sensor, instance, cursor)
    assert sorted(looked) == names


def test_the_same_state_is_the_same_request(instance, home, monkeypatch):
    monkeypatch.setattr(automation.time, "time", lambda: 1_000_000.0)
    register(instance, 3)
    sensor = something_waits("waits", JOB, home, lambda site: "3 files", "")
    assert tick(sensor, instance)[1] == tick(sensor, instance)[1]


def test_a_new_state_is_a_new_request(instance, home, monkeypatch):
    monkeypatch.setattr(automation.time, "time", lambda: 1_000_000.0)
    register(instance, 3)
    before = something_waits("waits", JOB, home, lambda site: "3 files", "")
    after = something_waits("waits", JOB, home, lambda site: "4 files", "")
    assert tick(before, instance)[1] != tick(after, instance)[1]


def test_a_request_that_changed_nothing_is_made_again_later(instance, home, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(automation.time, "time", lambda: now[0])
    register(instance, 3)
    sensor = something_waits("waits", JOB, home, lambda site: "3 files", "")
    first = tick(sensor, instance)[1]
    now[0] += automation.RETRY_SECONDS
    assert tick(sensor, instance)[1] != first


def test_three_weeks_offline_and_a_restart_lose_nothing(instance, home):
    """A site's backlog grows while its link is down; the first tick after it returns asks for it."""
    register(instance, 3)
    cursor = None
    for day in range(21):
        grown = f"{day} packages"
        sensor = something_waits(
            "link_up", JOB, home, lambda site, grown=grown: None if site.name == "site-0001" else grown, ""
        )
        asked, _, cursor = tick(sensor, instance, cursor)
        assert "site-0001" not in asked
    sensor = something_waits("link_up", JOB, home, lambda site: "21 packages", "")
    assert "site-0001" in tick(sensor, instance, cursor)[0]


def test_nothing_is_asked_while_the_job_runs(instance, home):
    register(instance, 3)
    job = dg.Definitions(assets=[work], jobs=[JOB]).resolve_job_def("work_job")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert tick(something_waits("waits", JOB, home, lambda site: "x", ""), instance)[0] == []


def test_nothing_is_asked_while_a_job_runs_that_does_the_same(instance, home):
    register(instance, 3)
    other = dg.define_asset_job("other_job", selection=[work])
    job = dg.Definitions(assets=[work], jobs=[other]).resolve_job_def("other_job")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
    assert tick(something_waits("waits", JOB, home, lambda site: "x", "", unless=[other]), instance)[0] == []


def test_sites_are_registered_once(instance):
    case = usecase.load(usecase.BUNDLED / "pump-station.yaml")
    sensor = automation.sites_registered(case)
    result = sensor(dg.build_sensor_context(instance=instance))
    (request,) = result.dynamic_partitions_requests
    assert list(request.partition_keys) == [site.name for site in case.sites]
    instance.add_dynamic_partitions(str(SITES.name), request.partition_keys)
    assert isinstance(sensor(dg.build_sensor_context(instance=instance)), dg.SkipReason)


def test_a_site_added_later_is_registered_alone(instance):
    case = usecase.load(usecase.BUNDLED / "pump-station.yaml")
    instance.add_dynamic_partitions(str(SITES.name), [site.name for site in case.sites])
    more = case.model_copy(update={"sites": (*case.sites, Site(name="vardo"))})
    result = automation.sites_registered(more)(dg.build_sensor_context(instance=instance))
    assert list(result.dynamic_partitions_requests[0].partition_keys) == ["vardo"]


def test_without_a_release_no_site_is_asked(instance, home):
    register(instance, 3)
    case = usecase.load(usecase.BUNDLED / "pump-station.yaml")
    assert isinstance(
        automation.release_available(JOB, home, case)(dg.build_sensor_context(instance=instance)),
        dg.SkipReason,
    )


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, ["a", "b"]),
        ("a", ["b", "c"]),
        ("b", ["c", "a"]),
        ("c", ["a", "b"]),
        ("bb", ["c", "a"]),
        ("zz", ["a", "b"]),
    ],
)
def test_turns_go_round(last, expected):
    assert next_in_turn(["a", "b", "c"], last, 2) == expected


def test_a_site_whose_service_died_again_is_asked_again_at_once(instance, home, monkeypatch):
    """The demo stops its services; `make ui` right after it must start them, not wait for the next retry."""
    monkeypatch.setattr(automation.time, "time", lambda: 1_000_000.0)
    case = usecase.load(usecase.BUNDLED / "pump-station.yaml")
    instance.add_dynamic_partitions(str(SITES.name), [site.name for site in case.sites])
    since = ["2026-11-21T01:00:00"]
    release = SimpleNamespace(version=1, image="sha256:1")
    monkeypatch.setattr(pack, "newest", lambda registry, keys: release)
    monkeypatch.setattr(delivery, "state", lambda site, target: SiteState(serving=None, since=since[0]))
    sensor = automation.release_available(JOB, home, case)
    first = tick(sensor, instance)[1]
    assert tick(sensor, instance)[1] == first
    since[0] = "2026-11-21T01:05:00"
    assert tick(sensor, instance)[1] != first
