"""The sensor that brings releases: on evidence, bounded, each decision told once, and back when it is to."""

from datetime import UTC, datetime
from types import SimpleNamespace

import dagster as dg
import msgspec
import pytest

from edge_ai_assets import keys, usecase
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.errors import MismatchError
from edge_ai_assets.delivery.listing import Withdrawal
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets.runtimes.interface import Failure, Running
from edge_ai_assets.scoring.metrics import SECONDS
from edge_ai_assets.stack_hub import delivery, provision, rollout_sensor, withdrawn
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START
from edge_ai_assets.stack_hub.rollout import control, course, looking, telling
from edge_ai_assets.stack_hub.rollout.evidence import Evidence
from edge_ai_assets.stack_hub.rollout.rings import SiteState
from edge_ai_assets.usecase import Ring, Road, Rollout, Site

START = 1_000_000.0
HOUR = 3600.0


@dg.asset(partitions_def=SITES, backfill_policy=dg.BackfillPolicy.single_run())
def work(context: dg.AssetExecutionContext) -> None:
    pass


JOB = dg.define_asset_job("work_job", selection=[work])
RESTART = dg.define_asset_job("restart_job", selection=[work])
PUMPS = usecase.load(usecase.BUNDLED / "pump-station.yaml")


def case_of(sites, **bounds):
    """The pump station with other sites, by ring, and bounds of a rollout."""
    delivery = PUMPS.delivery.model_copy(update={"rollout": Rollout(**bounds)})
    made = tuple(Site(name=name, ring=ring) for ring, names in sites.items() for name in names)
    return PUMPS.model_copy(update={"sites": made, "delivery": delivery})


CASE = case_of({Ring.CANARY: ["c1", "c2"], Ring.EARLY: ["e1"], Ring.BROAD: ["b1", "b2"]})


class Fleet:
    """Sites that run release 1 while 2 is out, a clock that a test moves, and what the sensor told."""

    def __init__(self, home, instance, monkeypatch, case=CASE):
        self.home, self.instance, self.case = home, instance, case
        self.now, self.cursor, self.told = START, None, []
        self.states = {site.name: SiteState(serving=1, since="then") for site in case.sites}
        self.counted = []
        self.evidence = {}
        instance.add_dynamic_partitions(str(SITES.name), list(self.states))
        for module in (rollout_sensor, course):
            monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr(rollout_sensor, "turn", lambda: 0)
        release = SimpleNamespace(version=2, image="sha256:2")
        monkeypatch.setattr(pack, "newest", lambda registry, keys: release)
        monkeypatch.setattr(delivery, "state", self.state)
        running = SimpleNamespace(status=lambda: Running("sha256:2", 2, "http://x"))
        monkeypatch.setattr(course, "runtime", lambda root, name: running)
        monkeypatch.setattr(looking, "count", self.count)

    def state(self, site, target, road):
        return self.states[site.name]

    def count(self, site, serves):
        self.counted.append(site.name)
        found = self.evidence[site.name]
        if isinstance(found, Exception):
            raise found
        return msgspec.structs.replace(found, at=self.now, newest=self.now), None

    def serve(self, *names, **evidence):
        """Sites run release 2 from now on."""
        found = Evidence(
            version=2,
            since=self.now,
            at=self.now,
            rows=1_000,
            requests=1_000,
            seconds=tuple(1_000 if edge == 0.01 else 0 for edge in (*SECONDS, None)),
        )
        for name in names:
            self.states[name] = SiteState(serving=2, since="now")
            self.evidence[name] = msgspec.structs.replace(found, **evidence)

    def sensor(self):
        """A new one each time: nothing but the cursor outlives a restart."""
        return rollout_sensor.release_available(JOB, RESTART, self.home, self.case)

    def tick(self, seconds=5.0):
        """Who is asked in the next tick; what it tells is kept, and why nobody is asked."""
        self.now += seconds
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = self.sensor().evaluate_tick(context)
        self.cursor, self.why = result.cursor, result.skip_message
        self.told += [
            (event.metadata["rollout"].value, event.partition or event.metadata["ring"].value)
            for event in result.asset_events
        ]
        self.events = result.asset_events
        self.requests = result.run_requests
        assert all(each.tags[RANGE_START] == each.tags[RANGE_END] for each in result.run_requests)
        return [each.tags[RANGE_START] for each in result.run_requests]


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def fleet(home, instance, monkeypatch):
    return Fleet(home, instance, monkeypatch)


def start(instance, name):
    """A run of one of the two jobs is under way."""
    job = dg.Definitions(assets=[work], jobs=[JOB, RESTART]).resolve_job_def(name)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)


def test_from_ring_to_ring_each_after_its_bake_time_and_each_decision_told_once(fleet):
    asked, rings = [], {ring: CASE.ring(ring) for ring in Ring}
    for _ in range(3 * 60 * 2):  # six hours of half minutes
        for name in (found := fleet.tick(30)):
            asked.append((name, fleet.now - START))
        fleet.serve(*found)
    assert [name for name, _ in asked] == ["c1", "c2", "e1", "b1", "b2"]
    hours = {name: at / HOUR for name, at in asked}
    assert 1 <= hours["e1"] - hours["c1"] < 1.1 and 1 <= hours["b1"] - hours["e1"] < 1.1
    of_release = [told for told in fleet.told if not told[0].startswith("evidence")]
    assert of_release == [
        ("asked", "canary"),
        ("baking", "canary"),
        ("asked", "early"),
        ("baking", "early"),
        ("asked", "broad"),
        ("complete", ""),
    ]
    # What each former ring said is told at its sites when the next one is asked.
    assert [told[1] for told in fleet.told if told[0] == "evidence_fine"] == ["c1", "c2", "c1", "c2", "e1"]
    assert rings[Ring.BROAD] and "every site that can be reached" in fleet.why


def test_a_site_with_a_home_of_its_own_is_not_asked_here(fleet):
    for name in ("c1", "c2"):
        public = provision.known_key(fleet.home, name)
        public.parent.mkdir(parents=True, exist_ok=True)
        public.write_text("a public key")
    private = provision.private_key(fleet.home.site("c2"))
    private.parent.mkdir(parents=True)
    private.write_text("its other half: c2 is here")
    assert fleet.tick(30) == ["c2"]


def test_a_run_says_why_its_site_is_asked(fleet):
    fleet.tick()
    assert {each.tags[rollout_sensor.BECAUSE] for each in fleet.requests} == {"release 2 goes to ring canary"}


def test_evidence_is_counted_once_a_minute_and_only_of_the_ring_in_question(fleet):
    fleet.serve("c1", "c2")
    for _ in range(60):
        assert fleet.tick(5) == []
    assert fleet.counted == ["c1", "c2"] * 5
    assert "bakes at ring canary: site c1: it bakes for" in fleet.why


def test_bad_evidence_halts_for_good_with_its_reason(fleet):
    fleet.serve("c1", "c2", failures=500)
    assert fleet.tick() == []
    assert fleet.told == [("halted", "canary"), ("evidence_bad", "c1"), ("evidence_bad", "c2")]
    assert "50.0% of 1000 requests fail" in fleet.why and control.read(fleet.home).halted.release == 2
    fleet.serve("c1", "c2", since=START - 9 * HOUR)  # and now it looks as if nothing had been
    for _ in range(30):
        assert fleet.tick(60) == []
    assert len(fleet.told) == 3 and fleet.counted == ["c1", "c2"]
    control.resume(fleet.home, "ann", "a broken client, not the release")
    assert fleet.tick(60) == ["e1"]


def test_an_operator_may_go_on_without_evidence(fleet):
    fleet.serve("c1", "c2", rows=0)
    assert fleet.tick() == []
    control.resume(fleet.home, "ann", "canaries are on holiday", accept=(2, Ring.CANARY))
    assert fleet.tick() == ["e1"]


def test_a_paused_rollout_asks_nobody_and_goes_on_where_it_was(fleet):
    control.pause(fleet.home, "ann", "the network is worked on")
    for _ in range(3):
        assert fleet.tick() == [] and "paused by ann" in fleet.why
    assert fleet.told == [("paused", "")]
    control.resume(fleet.home, "ann", "done")
    assert fleet.tick() == ["c1", "c2"]


def test_after_a_rollback_sites_are_asked_back_and_nobody_forward(fleet):
    fleet.serve("c1", "c2", "e1")
    control.roll_back(fleet.home, "ann", "false alarms", to=1, release=2, sites=None)
    assert fleet.tick() == ["c1", "c2", "e1"]
    assert "rolled back to 1 by ann" in fleet.requests[0].tags[rollout_sensor.BECAUSE]
    for name in ("c1", "c2", "e1"):
        fleet.states[name] = SiteState(serving=1, since="again")
    for _ in range(20):
        assert fleet.tick(60) == []
    assert "was rolled back everywhere by ann" in fleet.why and fleet.counted == []


def test_one_site_is_brought_back_link_or_no_link(fleet):
    fleet.serve("c1", "c2")
    fleet.states["c2"] = SiteState(serving=2, linked=False)
    control.roll_back(fleet.home, "ann", "false alarms", to=1, release=2, sites=["c2"])
    assert fleet.tick() == ["c2"]


def test_a_newer_release_than_the_one_rolled_back_from_is_brought(fleet, monkeypatch):
    control.roll_back(fleet.home, "ann", "false alarms", to=1, release=2, sites=None)
    assert fleet.tick() == []
    newer = SimpleNamespace(version=3, image="sha256:3")
    monkeypatch.setattr(pack, "newest", lambda registry, keys: newer)
    assert fleet.tick() == ["c1", "c2"]


def test_it_is_brought_ring_by_ring_to_sites_that_did_not_go_back_in_time_too(fleet, monkeypatch):
    fleet.serve("c1", "c2", "e1")
    control.roll_back(fleet.home, "ann", "false alarms", to=1, release=2, sites=None)
    newer = SimpleNamespace(version=3, image="sha256:3")
    monkeypatch.setattr(pack, "newest", lambda registry, keys: newer)
    assert fleet.tick() == ["c1", "c2"]


def test_a_fallback_is_told_once_at_its_site_and_stops_the_ring(fleet):
    failure = Failure("sha256:2", "it crashed 3 times within 30 s", "2026-01-01")
    fleet.states["c1"] = SiteState(serving=1, failed=failure.reason, fell=failure)
    for _ in range(5):
        assert fleet.tick(60) == []
    assert fleet.told == [("fell_back", "c1"), ("halted", "canary")]
    again = Failure("sha256:2", "it crashed 3 times within 30 s", "2026-01-02")
    fleet.states["c1"] = SiteState(serving=1, failed=failure.reason, fell=again)
    fleet.tick()
    assert fleet.told[2:] == [("fell_back", "c1")]


def test_what_is_told_is_where_people_look(fleet):
    fleet.serve("c1", "c2", failures=500)
    fleet.tick()
    release, *sites = fleet.events
    assert release.asset_key == keys.IMAGE and "stopped at ring canary" in release.description
    assert {event.asset_key for event in sites} == {keys.SITE_DEPLOYMENT}
    metadata = {name: value.value for name, value in sites[0].metadata.items()}
    assert metadata["challenger_failure_rate"] == 0.5 and metadata["challenger_p95_seconds"] == 0.01
    assert "requests fail" in metadata["reason"]


@pytest.mark.parametrize("cursor", ["", "x", "[]", '{"told": 1}', '{"other": "version"}'])
def test_another_cursor_only_repeats_what_was_told(fleet, cursor):
    fleet.tick()
    fleet.cursor = cursor
    assert fleet.tick() == ["c1", "c2"]


def test_a_damaged_file_of_decisions_stops_everything(fleet):
    fleet.home.rollout.write_text("{")
    with pytest.raises(Exception, match=r"rollout\.json"):
        fleet.tick()


def test_without_a_release_no_site_is_asked(fleet, monkeypatch):
    monkeypatch.setattr(pack, "newest", lambda registry, keys: None)
    assert fleet.tick() == [] and fleet.why == "there is no release yet"


def test_a_registry_that_is_damaged_keeps_no_site_from_going_back(fleet, monkeypatch):
    def damaged(registry, keys):
        raise MismatchError("a blob has another digest")

    fleet.serve("c1", "c2")
    monkeypatch.setattr(pack, "newest", damaged)
    assert fleet.tick() == [] and "a blob has another digest" in fleet.why
    control.roll_back(fleet.home, "ann", "false alarms", to=1, release=2, sites=None)
    assert fleet.tick() == ["c1", "c2"]


def test_sites_that_need_it_are_asked_for_the_release_and_by_their_road(fleet, monkeypatch):
    roads = {}
    monkeypatch.setattr(
        delivery,
        "state",
        lambda site, target, road: roads.update({site.name: road}) or fleet.states[site.name],
    )
    sites = (
        site.model_copy(update={"road": "media" if site.name == "e1" else "link"}) for site in CASE.sites
    )
    fleet.case = CASE.model_copy(update={"sites": tuple(sites)})
    assert fleet.tick() == ["c1", "c2"]
    assert roads == {site.name: site.road for site in fleet.case.sites}


@pytest.mark.parametrize("under_way", ["work_job", "restart_job"])
def test_no_release_is_brought_while_a_deployment_is_under_way(fleet, instance, under_way):
    start(instance, under_way)
    assert fleet.tick() == []


def test_a_site_that_was_taken_out_of_the_use_case_is_left_alone(fleet):
    fleet.case = CASE.model_copy(update={"sites": CASE.sites[1:]})
    assert fleet.tick() == ["c2"]


def test_in_the_home_of_one_site_only_rollbacks_are_asked_for(fleet, home):
    home.joined.write_text("c1")
    fleet.case = CASE.alone("c1")
    assert fleet.tick() == [] and fleet.why == "there is no release yet"
    fleet.serve("c1")
    control.roll_back(home, "ann", "false alarms", to=1, release=2, sites=None)
    assert fleet.tick() == ["c1"]


def test_sites_that_do_not_get_there_keep_no_other_from_being_asked(home, instance, monkeypatch):
    names = [f"b{number:03}" for number in range(120)]
    fleet = Fleet(home, instance, monkeypatch, case_of({Ring.BROAD: names}))
    fleet.serve(*names)
    control.roll_back(home, "ann", "false alarms", to=1, release=2, sites=None)
    ticks = [fleet.tick() for _ in range(3)]  # of the first fifty none ever goes back
    assert [len(asked) for asked in ticks] == [50, 50, 50]
    assert {name for asked in ticks for name in asked} == {*names}


def test_a_carried_release_that_cannot_be_tried_keeps_no_linked_site_waiting(fleet, monkeypatch):
    sites = (
        site.model_copy(update={"road": Road.MEDIA if site.name == "e1" else site.road})
        for site in CASE.sites
    )
    fleet.case = CASE.model_copy(update={"sites": tuple(sites)})
    monkeypatch.setattr(delivery, "untried", lambda site: site.name == "e1")
    fleet.states["e1"] = SiteState(serving=1, linked=False)
    control.resume(fleet.home, "ann", "x", accept=(1, Ring.CANARY))  # something was decided once
    assert sorted(fleet.tick()) == ["c1", "c2", "e1"]
    assert fleet.requests[0].tags[rollout_sensor.BECAUSE].startswith("what is on its disk")


def test_what_is_halted_again_after_it_was_resumed_is_told_again(fleet):
    fleet.serve("c1", "c2", failures=500)
    fleet.tick()
    control.resume(fleet.home, "ann", "look again")
    assert fleet.tick(61) == []
    assert [told for told in fleet.told if told[0] == "halted"] == [("halted", "canary")] * 2
    fleet.tick(61)
    assert len(fleet.told) == 6


@pytest.mark.parametrize("crashed", [False, True])
def test_what_an_operator_decided_is_told_once_though_the_command_died(fleet, instance, crashed):
    def told():
        found = instance.fetch_observations(keys.IMAGE, limit=10).records
        said = [record.asset_observation.metadata["rollout"].value for record in found]
        return [*said, *(word for word, _ in fleet.told)]

    for decide in (
        lambda: control.pause(fleet.home, "ann", "x"),
        lambda: control.roll_back(fleet.home, "ann", "x", to=1, release=2, sites=None),
    ):
        state = decide()
        word = "rolled_back" if state.backs else "paused"
        if not crashed:
            instance.report_runless_asset_event(telling.of_release(word, 2, "x"))
        for _ in range(3):
            fleet.tick()
        assert told().count(word) == 1
        control.resume(fleet.home, "ann", "y")
        fleet.tick()


def test_an_operator_who_is_about_to_tell_it_is_given_the_time(fleet):
    fleet.now = control.pause(fleet.home, "ann", "x").paused.at.timestamp()
    for _ in range(5):
        fleet.tick(10)
    assert fleet.told == []
    fleet.tick(10)
    assert fleet.told == [("paused", "")]


class TestAnOddSite:
    """One that cannot be looked at keeps no other from anything, and is told."""

    def test_it_is_not_asked_and_the_others_are(self, fleet, monkeypatch):
        broken = {"c1"}

        def state(site, target, road):
            if site.name in broken:
                raise ValueError("service.json is torn")
            return fleet.states[site.name]

        monkeypatch.setattr(delivery, "state", state)
        assert fleet.tick() == ["c2"]
        broken |= set(fleet.states)
        assert fleet.tick() == [] and "5 sites cannot be looked at" in fleet.why

    def test_one_whose_evidence_cannot_be_counted_stops_the_next_ring(self, fleet):
        fleet.serve("c1", "c2", since=START - 9 * HOUR)
        fleet.evidence["c2"] = ValueError("no database")
        assert fleet.tick() == [] and "site c2: it cannot be looked at: ValueError: no database" in fleet.why

    def test_many_that_do_not_answer_are_not_all_waited_for(self, home, instance, monkeypatch):
        names = [f"c{number}" for number in range(40)]
        fleet = Fleet(home, instance, monkeypatch, case_of({Ring.CANARY: names, Ring.BROAD: ["b1"]}))
        fleet.serve(*names, silent="it is deaf", since=START - 9 * HOUR)
        assert fleet.tick() == [] and len(fleet.counted) == course.SILENT


def test_without_a_bake_time_rings_follow_each_other_at_once(home, instance, monkeypatch):
    sites = {ring: CASE.ring(ring) for ring in Ring}
    fleet = Fleet(home, instance, monkeypatch, case_of(sites, bake_minutes=0))
    asked = []
    for _ in range(6):
        asked += (found := fleet.tick(3))
        fleet.serve(*found, rows=0)
    assert asked == ["c1", "c2", "e1", "b1", "b2"]


class TestWithdrawn:
    """Release 3 was, so that 2 is the newest."""

    @pytest.fixture
    def ways_out(self, fleet, monkeypatch):
        """Sites that have another release on their disk. All run release 3."""
        said = Withdrawal("ann", "false alarms", datetime(2026, 1, 1, tzinfo=UTC))
        monkeypatch.setattr(pack, "withdrawn", lambda registry, keys: {3: said})
        found = {}
        monkeypatch.setattr(withdrawn, "way_out", lambda site: found.get(site.name))
        fleet.states = dict.fromkeys(fleet.states, SiteState(serving=3, since="then"))
        return found

    def test_all_go_back_at_once_and_each_is_told_once(self, fleet, ways_out):
        assert sorted(fleet.tick()) == ["b1", "b2", "c1", "c2", "e1"]
        because = {each.tags[rollout_sensor.BECAUSE] for each in fleet.requests}
        assert because == {"release 3 was withdrawn by ann on 2026-01-01 00:00: false alarms"}
        fleet.tick()
        assert sorted(site for word, site in fleet.told if word == "withdrawn") == sorted(fleet.states)

    def test_one_that_cannot_be_looked_at_for_a_while_is_not_told_again(self, fleet, ways_out):
        fleet.tick()
        fleet.states["b1"] = rollout_sensor.UNSEEN
        fleet.tick()
        fleet.states["b1"] = SiteState(serving=3, since="then")
        fleet.tick()
        assert fleet.told.count(("withdrawn", "b1")) == 1

    def test_a_pause_does_not_keep_them(self, fleet, ways_out):
        control.pause(fleet.home, "bob", "holidays")
        assert len(fleet.tick()) == 5

    def test_nobody_is_asked_for_what_cannot_be_had_or_failed_or_lies_on_its_disk(self, fleet, ways_out):
        fleet.serve("c1", "c2", "e1")
        control.pause(fleet.home, "bob", "holidays")
        fleet.states["b1"] = SiteState(serving=3, since="then", linked=False)
        assert fleet.tick() == ["b2"]
        fleet.states["b2"] = SiteState(serving=3, since="then", failed="it was not ready")
        assert fleet.tick() == []
        fleet.states["b2"] = SiteState(serving=3, since="then")
        ways_out["b2"] = "sha256:2"
        assert fleet.tick() == []

    def test_a_newer_one_comes_ring_by_ring(self, fleet, ways_out, monkeypatch):
        monkeypatch.setattr(pack, "newest", lambda *_: SimpleNamespace(version=4, image="sha256:4"))
        assert fleet.tick() == ["c1", "c2"]

    @pytest.mark.parametrize(("to", "release"), [(3, 4), (1, 2)])
    def test_what_a_rollback_leaves_is_gone_back_to(self, fleet, ways_out, monkeypatch, to, release):
        """Release 3 serves and was withdrawn; it was rolled back to, or came after what was rolled back."""
        monkeypatch.setattr(pack, "newest", lambda *_: SimpleNamespace(version=release, image="sha256:n"))
        control.roll_back(fleet.home, "bob", "false alarms", to=to, release=release, sites=None)
        assert sorted(fleet.tick()) == ["b1", "b2", "c1", "c2", "e1"]
        fell = Failure("sha256:1", "it was not ready", "then")
        fleet.states = dict.fromkeys(fleet.states, SiteState(serving=3, since="then", fell=fell))
        assert fleet.tick() == []

    def test_where_a_rollback_leaves_none_nobody_is_asked(self, fleet, ways_out, monkeypatch):
        said = pack.withdrawn(None, None)[3]
        monkeypatch.setattr(pack, "withdrawn", lambda *_: dict.fromkeys((1, 2, 3), said))
        monkeypatch.setattr(pack, "newest", lambda *_: SimpleNamespace(version=4, image="sha256:4"))
        control.roll_back(fleet.home, "bob", "false alarms", to=3, release=4, sites=None)
        assert fleet.tick() == []

    def test_one_that_an_operator_rolled_back_goes_where_he_says(self, fleet, ways_out):
        control.roll_back(fleet.home, "bob", "false alarms", to=1, release=3, sites=["b1"])
        fleet.tick()
        because = {each.tags[RANGE_START]: each.tags[rollout_sensor.BECAUSE] for each in fleet.requests}
        assert because["b1"].startswith("rolled back to 1 by bob") and len(because) == 5
