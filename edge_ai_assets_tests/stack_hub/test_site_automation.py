"""Sensors over all sites: a bounded batch, in turn, through restarts and absences, nothing twice."""

import dagster as dg
import pytest

from edge_ai_assets import keys, runs, usecase
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.stack_hub import automation, connecting, waiting
from edge_ai_assets.stack_hub.automation import BATCH, LOOK, something_waits
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START
from edge_ai_assets.stack_hub.looking import next_in_turn
from edge_ai_assets.usecase import Road, Site
from edge_ai_assets_tests.parcels import seal


@dg.asset(partitions_def=SITES, backfill_policy=dg.BackfillPolicy.single_run())
def work(context: dg.AssetExecutionContext) -> None:
    pass


JOB = dg.define_asset_job("work_job", selection=[work])
RESTART = dg.define_asset_job("restart_job", selection=[work])

PUMPS = usecase.load(usecase.BUNDLED / "pump-station.yaml")


def case_of(names):
    """The pump station with other sites."""
    return PUMPS.model_copy(update={"sites": tuple(Site(name=name) for name in names)})


CASE = case_of([f"site-{number:04}" for number in range(1000)])


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


def start(instance, name):
    """A run of one of the two jobs is under way."""
    job = dg.Definitions(assets=[work], jobs=[JOB, RESTART]).resolve_job_def(name)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)


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
        sensor = something_waits("waits", JOB, home, CASE, lambda site: "something", "")
        found, _, cursor = tick(sensor, instance, cursor)
        assert len(found) <= BATCH
        asked += found
    assert sorted(asked[: 3 * BATCH]) == names[: 3 * BATCH]
    assert set(asked) == set(names)


def test_a_tick_looks_at_a_bounded_number_of_sites(instance, home):
    register(instance, 4 * LOOK)
    looked = []
    tick(something_waits("waits", JOB, home, CASE, lambda site: looked.append(site.name), ""), instance)
    assert len(looked) == LOOK


def test_a_thousand_idle_sites_are_all_looked_at_in_a_few_ticks(instance, home):
    names = register(instance, 1000)
    looked, cursor = [], None
    for _ in range(1000 // LOOK):
        sensor = something_waits("waits", JOB, home, CASE, lambda site: looked.append(site.name), "")
        _, _, cursor = tick(sensor, instance, cursor)
    assert sorted(looked) == names


def test_the_same_state_is_the_same_request(instance, home, monkeypatch):
    monkeypatch.setattr(runs.time, "time", lambda: 1_000_000.0)
    register(instance, 3)
    sensor = something_waits("waits", JOB, home, CASE, lambda site: "3 files", "")
    assert tick(sensor, instance)[1] == tick(sensor, instance)[1]


def test_a_new_state_is_a_new_request(instance, home, monkeypatch):
    monkeypatch.setattr(runs.time, "time", lambda: 1_000_000.0)
    register(instance, 3)
    before = something_waits("waits", JOB, home, CASE, lambda site: "3 files", "")
    after = something_waits("waits", JOB, home, CASE, lambda site: "4 files", "")
    assert tick(before, instance)[1] != tick(after, instance)[1]


def test_a_request_that_changed_nothing_is_made_again_later(instance, home, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(runs.time, "time", lambda: now[0])
    register(instance, 3)
    sensor = something_waits("waits", JOB, home, CASE, lambda site: "3 files", "")
    first = tick(sensor, instance)[1]
    now[0] += runs.RETRY_SECONDS
    assert tick(sensor, instance)[1] != first


def test_three_weeks_offline_and_a_restart_lose_nothing(instance, home):
    """A site's backlog grows while its link is down; the first tick after it returns asks for it."""
    register(instance, 3)
    cursor = None
    for day in range(21):
        grown = f"{day} packages"
        sensor = something_waits(
            "link_up",
            JOB,
            home,
            CASE,
            lambda site, grown=grown: None if site.name == "site-0001" else grown,
            "",
        )
        asked, _, cursor = tick(sensor, instance, cursor)
        assert "site-0001" not in asked
    sensor = something_waits("link_up", JOB, home, CASE, lambda site: "21 packages", "")
    assert "site-0001" in tick(sensor, instance, cursor)[0]


def test_nothing_is_asked_while_the_job_runs(instance, home):
    register(instance, 3)
    start(instance, "work_job")
    assert tick(something_waits("waits", JOB, home, CASE, lambda site: "x", ""), instance)[0] == []


def test_nothing_is_asked_while_a_job_runs_that_does_the_same(instance, home):
    register(instance, 3)
    start(instance, "restart_job")
    sensor = something_waits("waits", JOB, home, CASE, lambda site: "x", "", unless=[RESTART])
    assert tick(sensor, instance)[0] == []


def test_what_is_done_apart_is_a_run_a_site(instance, home):
    """A torn bundle at one site must not keep its neighbours from theirs."""
    names = register(instance, BATCH + 5)
    sensor = something_waits("waits", JOB, home, CASE, lambda site: "x", "", apart=True)
    result = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert [request.tags[RANGE_START] for request in result.run_requests] == names[:BATCH]
    assert all(request.tags[RANGE_START] == request.tags[RANGE_END] for request in result.run_requests)


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


def test_a_site_that_was_taken_out_of_the_use_case_is_left_alone(instance, home):
    instance.add_dynamic_partitions(str(SITES.name), [site.name for site in PUMPS.sites])
    without = PUMPS.model_copy(update={"sites": PUMPS.sites[1:]})
    asked, _, _ = tick(something_waits("w", JOB, home, without, lambda site: "x", ""), instance)
    assert asked == [site.name for site in without.sites]


def result_of(sensor, instance, cursor=None):
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))


def odd_at(*sites):
    def marker(site):
        if site.name in sites:
            raise PermissionError(13, "Permission denied", "x.bundle")
        return "something"

    return marker


class TestAnOddSite:
    """One that cannot be looked at keeps no other from anything, and is told."""

    def test_the_others_are_asked(self, instance, home, capfd):
        names = register(instance, 4)
        asked, _, cursor = tick(something_waits("w", JOB, home, CASE, odd_at(names[1]), ""), instance)
        assert asked == [names[0], *names[2:]] and cursor == names[-1]
        assert f"ERROR - site {names[1]} cannot be looked at: PermissionError" in capfd.readouterr().err

    def test_a_tick_with_nothing_to_ask_for_names_it(self, instance, home):
        names = register(instance, 9)
        said = result_of(something_waits("w", JOB, home, CASE, odd_at(*names), ""), instance).skip_message
        assert said.startswith("nothing waits at 9 sites; 9 sites cannot be looked at: site-0000: Permission")
        assert names[4] in said and names[5] not in said

    def test_it_is_looked_at_again(self, instance, home):
        names = register(instance, 2)
        _, _, cursor = tick(something_waits("w", JOB, home, CASE, odd_at(names[0]), ""), instance)
        assert names[0] in tick(something_waits("w", JOB, home, CASE, odd_at(), ""), instance, cursor)[0]

    @pytest.mark.parametrize("file", ["desired.json", "service.json"])
    @pytest.mark.parametrize("text", ["{", "[]", '{"release_id": 1}', "\x00"])
    def test_damaged_notes_of_a_service_are_its_own(self, instance, home, file, text):
        from edge_ai_assets.scoring import folder
        from edge_ai_assets.scoring.folder import Release, Wish

        names = register(instance, 3)
        for name in names:
            home.site(name).root.mkdir(parents=True)
            folder.write_wish(home.site(name).root, Wish(Release("sha256:1", 1, "x"), "first"))
        (home.site(names[1]).root / file).write_text(text)
        assert tick(something_waits("w", JOB, home, CASE, waiting.service, ""), instance)[0] == [
            names[0],
            names[2],
        ]

    def test_a_dangling_bundle_is_something_that_waits(self, instance, home):
        """It is looked at once, and refused with its name."""
        names = register(instance, 2)
        for name in names:
            home.site(name).media.mkdir(parents=True)
        (home.site(names[0]).media / "a.bundle").symlink_to("/nowhere")
        (home.site(names[1]).media / "a.bundle").write_bytes(b"x")
        assert tick(something_waits("w", JOB, home, CASE, waiting.bundles, ""), instance)[0] == names


def test_packages_of_before_the_queue_are_asked_for_and_others_are_the_function_s(instance, home):
    names = register(instance, 3)
    for name in names[:2]:
        home.site(name).root.mkdir(parents=True)
        with Outbox(home.site(name).outbox) as outbox:
            if name == names[1]:
                seal(outbox, home.site(name).spool, name, [10])
    case = PUMPS.model_copy(update={"sites": tuple(Site(name=name, road=Road.QUEUE) for name in names)})
    sensor = automation.packages_waiting(JOB, home, case, keys.SITE_UPLOAD)
    result_of(sensor, instance)  # it probes
    assert tick(sensor, instance)[0] == [names[1]]


class TestChangesOfALink:
    @pytest.fixture
    def watched(self, instance, home):
        """Two sites, of which bergen's link came up a moment ago."""
        case = case_of(["bergen", "oslo"])
        instance.add_dynamic_partitions(str(SITES.name), ["bergen", "oslo"])
        for name in ("bergen", "oslo"):
            home.site(name).root.mkdir(parents=True)
            connecting.report(home.site(name), clock.now(), None)
        return automation.packages_waiting(JOB, home, case, keys.SITE_UPLOAD)

    def told(self, watched, instance):
        return sorted(event.partition for event in result_of(watched, instance).asset_events)

    def test_each_is_told_until_it_is_in_the_log_and_then_no_more(self, watched, instance, home):
        assert self.told(watched, instance) == ["bergen", "oslo"]  # and this tick was lost
        result = result_of(watched, instance)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        assert self.told(watched, instance) == []
        connecting.report(home.site("oslo"), clock.now(), "cut")
        assert self.told(watched, instance) == ["oslo"]

    def test_what_the_log_has_is_not_kept_at_the_site(self, watched, instance, home):
        for event in result_of(watched, instance).asset_events:
            instance.report_runless_asset_event(event)
        result_of(watched, instance)
        text = (home.site("bergen").root / connecting.FILE).read_text()
        assert '"untold":[]' in text

    def test_a_site_that_cannot_be_looked_at_loses_no_other_s(self, watched, instance, home):
        note = home.site("oslo").root / connecting.FILE
        note.unlink()
        note.mkdir()
        result = result_of(watched, instance)
        assert [event.partition for event in result.asset_events] == ["bergen"]
        assert "1 sites cannot be looked at: oslo" in result.skip_message
