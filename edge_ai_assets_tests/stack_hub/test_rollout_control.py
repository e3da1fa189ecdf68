"""What operators decide: durable, obeyed, ended by `resume` or a newer release, told once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets import keys, usecase
from edge_ai_assets.delivery.errors import MalformedError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub.rollout import control, steps
from edge_ai_assets.stack_hub.rollout.control import Accepted, Back, Halt, RolloutError, Said, State
from edge_ai_assets.stack_hub.rollout.course import Course
from edge_ai_assets.stack_hub.rollout.evidence import Verdict, Word
from edge_ai_assets.stack_hub.rollout.rings import Kind, SiteState
from edge_ai_assets.stack_hub.rollout_job import rollout_control
from edge_ai_assets.usecase import Ring

PUMPS = usecase.load(usecase.BUNDLED / "pump-station.yaml")
SITES = [site.name for site in PUMPS.sites]


def out(monkeypatch, versions):
    """These releases are in the registry."""
    tags = {f"release-{version}": None for version in versions}
    monkeypatch.setattr(Layout, "tags", lambda layout: tags)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """One with releases 1 to 7."""
    out(monkeypatch, range(1, 8))
    return Home(tmp_path)


def test_before_the_first_decision_all_is_allowed(home):
    assert control.read(home) == State()
    assert control.read(home).stopped(7) is None and control.read(home).allows("bergen", 7)


def test_a_pause_stops_every_release_until_it_is_ended(home):
    control.pause(home, "ann", "the network is worked on")
    stopped = control.read(home).stopped(7)
    assert stopped.kind is Kind.PAUSED and "by ann" in stopped.reason and "is worked on" in stopped.reason
    assert control.read(home).stopped(8).kind is Kind.PAUSED
    control.resume(home, "bob", "done")
    assert control.read(home).stopped(7) is None


def test_a_halt_is_of_one_release(home):
    control.halt(home, 7, Ring.CANARY, "site c1: all requests fail")
    stopped = control.read(home).stopped(7)
    assert (stopped.kind, stopped.ring, stopped.reason) == (
        Kind.HALTED,
        Ring.CANARY,
        "site c1: all requests fail",
    )
    assert control.read(home).stopped(8) is None


def test_after_a_rollback_nobody_is_asked_to_run_the_bad_release_but_a_newer_one(home):
    state = control.roll_back(home, "ann", "false alarms", to=5, release=7, sites=None)
    assert [version for version in range(1, 10) if not state.allows("anywhere", version)] == [6, 7]
    assert state.stopped(7).kind is Kind.ROLLED_BACK and "everywhere by ann" in state.stopped(7).reason
    assert state.stopped(8) is None and state.stopped(5) is None
    assert state.back("x", 6).to == 5 and state.back("x", 5) is None and state.back("x", None) is None


def test_a_rollback_of_one_site_stops_the_others_from_getting_it_too(home):
    state = control.roll_back(home, "ann", "false alarms", to=6, release=7, sites=["bergen"])
    assert not state.allows("bergen", 7) and state.allows("narvik", 7)
    assert "was rolled back at bergen" in state.stopped(7).reason


def test_sites_are_resumed_one_by_one(home):
    control.roll_back(home, "ann", "x", to=6, release=7, sites=["bergen", "narvik"])
    assert control.resume(home, "ann", "y", sites=["bergen"]).allows("bergen", 7)
    assert not control.read(home).allows("narvik", 7)
    with pytest.raises(RolloutError, match="site bergen was not rolled back"):
        control.resume(home, "ann", "y", sites=["bergen"])
    assert control.resume(home, "ann", "y", sites=["narvik"]).stopped(7) is None


def test_one_of_all_is_not_resumed_alone(home):
    control.roll_back(home, "ann", "x", to=6, release=7, sites=None)
    with pytest.raises(RolloutError, match="with all others: resume without naming sites"):
        control.resume(home, "ann", "y", sites=["bergen"])


def test_a_rollback_is_not_forgotten_for_others_that_follow(home):
    names = [f"site-{number}" for number in range(200)]
    for name in names:
        control.roll_back(home, "ann", "x", to=6, release=7, sites=[name])
    assert not [name for name in names if control.read(home).allows(name, 7)]


def test_the_last_word_about_a_site_counts_and_nothing_piles_up(home):
    control.roll_back(home, "ann", "x", to=3, release=7, sites=None)
    control.roll_back(home, "ann", "bergen needs 5", to=5, release=7, sites=["bergen", "narvik"])
    state = control.roll_back(home, "ann", "and narvik 4", to=4, release=7, sites=["narvik"])
    runs = {
        name: max(version for version in range(1, 8) if state.allows(name, version))
        for name in ("bergen", "narvik", "oslo")
    }
    assert runs == {"bergen": 5, "narvik": 4, "oslo": 3}
    assert [state.back(name, 7).to for name in runs] == [5, 4, 3]
    assert [back.sites for back in state.backs] == [None, ("bergen",), ("narvik",)]
    assert len(control.roll_back(home, "ann", "x", to=6, release=7, sites=None).backs) == 1


def test_one_of_all_that_is_repeated_for_a_site_still_ends_with_all(home):
    control.roll_back(home, "ann", "x", to=3, release=7, sites=None)
    control.roll_back(home, "ann", "x", to=5, release=7, sites=["bergen"])
    with pytest.raises(RolloutError, match="with all others"):
        control.resume(home, "ann", "y", sites=["bergen"])


def test_a_halt_that_was_decided_before_an_operator_accepted_its_ring_is_none(home):
    control.resume(home, "ann", "seen, and fine", accept=(7, Ring.CANARY))
    assert control.halt(home, 7, Ring.CANARY, "site c1: a tick that began before").stopped(7) is None
    assert control.halt(home, 7, Ring.EARLY, "site e1: bad").stopped(7).ring is Ring.EARLY


def test_an_accepted_ring_is_of_one_release_and_outlives_a_pause(home):
    control.resume(home, "ann", "a holiday", accept=(7, Ring.CANARY))
    control.pause(home, "ann", "x")
    state = control.resume(home, "ann", "y")
    assert state.rings(7) == {Ring.CANARY} and not state.rings(8)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda home: control.pause(home, "ann", " "), "a reason is missing"),
        (lambda home: control.pause(home, "ann", "x" * 5_000_000), "5000000 characters, 2000 are allowed"),
        (lambda home: control.pause(home, "ann", "a\x00b"), "reason holds '.x00'"),
        (lambda home: control.pause(home, "\udcff", "x"), "name holds '.udcff'"),
        (lambda home: control.pause(home, "", "x"), "a name is missing"),
        (lambda home: steps.resume(home, PUMPS, "a", "x", sites=SITES[:1], accept=Ring.CANARY), "not both"),
        (lambda home: control.resume(home, "ann", "x"), "there is nothing to resume"),
        (lambda home: control.roll_back(home, "a", "x", to=7, release=7, sites=None), "is not older"),
        (lambda home: steps.roll_back(home, PUMPS, "a", "x", to=9), "there are 1, 2, 3, 4, 5, 6"),
        (lambda home: steps.roll_back(home, PUMPS, "a", "x", sites=["oslo"]), "site 'oslo' is not in"),
        (lambda home: steps.resume(home, PUMPS, "a", "x", sites=["oslo"]), "site 'oslo' is not in"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(home, call, said):
    with pytest.raises(RolloutError, match=said):
        call(home)
    assert control.read(home) == State()


@pytest.mark.parametrize("known", [[], [1]])
def test_without_an_older_release_there_is_no_way_back(home, monkeypatch, known):
    out(monkeypatch, known)
    with pytest.raises(RolloutError, match=r"no release yet|the only one"):
        steps.roll_back(home, PUMPS, "ann", "x")


def test_where_no_release_is_a_pause_is_refused_and_not_kept(home, monkeypatch):
    out(monkeypatch, [])
    with pytest.raises(RolloutError, match="no release yet"):
        steps.pause(home, "ann", "x")
    assert control.read(home) == State()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"paused": 1}', '{"more": 1}', "\x00"])
def test_a_damaged_file_is_refused_and_not_taken_for_consent(home, text):
    home.rollout.write_text(text)
    with pytest.raises(MalformedError, match=r"rollout\.json"):
        control.read(home)


words = st.sampled_from(["pause", "resume", "halt", "all", "some", "accept"])


@given(st.lists(words, max_size=8))
def test_whatever_was_decided_is_read_back(tmp_path_factory, decided):
    home = Home(tmp_path_factory.mktemp("home"))
    state = State()
    for word in decided:
        if word == "pause":
            state = control.pause(home, "ann", "x")
        elif word == "halt":
            state = control.halt(home, 7, Ring.EARLY, "x")
        elif word == "accept":
            state = control.resume(home, "ann", "x", accept=(7, Ring.EARLY))
        elif word == "resume" and (state.paused or state.halted or state.backs):
            state = control.resume(home, "ann", "x")
            assert state.stopped(7) is None
        elif word in ("all", "some"):
            sites = None if word == "all" else ["bergen"]
            state = control.roll_back(home, "ann", "x", to=6, release=7, sites=sites)
            assert not state.allows("bergen", 7)
    assert control.read(home) == state


class TestSteps:
    def test_a_rollback_is_told_of_the_release_and_of_each_site(self, home):
        events = steps.roll_back(home, PUMPS, "ann", "false alarms").events
        assert [(event.asset_key, event.partition) for event in events] == [
            (keys.IMAGE, None),
            *((keys.SITE_DEPLOYMENT, name) for name in SITES),
        ]
        assert all("rolled back from 7 to 6 by ann: false alarms" in event.description for event in events)

    def test_in_the_home_of_one_site_nothing_is_said_of_others(self, home, monkeypatch):
        monkeypatch.setattr(steps, "_known", lambda home: [1, 2])
        home.joined.write_text(SITES[0])
        events = steps.roll_back(home, PUMPS, "ann", "x").events
        assert [event.partition for event in events] == [None, SITES[0]]
        events = steps.resume(home, PUMPS, "ann", "x").events
        assert [event.partition for event in events] == [None, SITES[0]]
        with pytest.raises(RolloutError, match=rf"home of site '{SITES[0]}'"):
            steps.roll_back(home, PUMPS, "ann", "x", sites=SITES[1:2])

    def test_the_one_before_is_none_that_was_rolled_back_itself(self, home, monkeypatch):
        steps.roll_back(home, PUMPS, "ann", "x", to=5)
        out(monkeypatch, range(1, 9))
        done = steps.roll_back(home, PUMPS, "ann", "8 is bad too")
        assert "rolled back from 8 to 5" in done.events[0].description
        assert not [version for version in (6, 7, 8) if done.state.allows(SITES[0], version)]

    def test_one_that_was_rolled_back_for_one_of_the_sites_is_none_for_them_together(self, home):
        steps.roll_back(home, PUMPS, "ann", "x", to=4, sites=SITES[:1])
        assert "to 4" in steps.roll_back(home, PUMPS, "ann", "x").events[0].description

    def test_a_resume_is_told_where_something_ends(self, home):
        steps.roll_back(home, PUMPS, "ann", "x", sites=SITES[:2])
        events = steps.resume(home, PUMPS, "bob", "y", sites=SITES[:1]).events
        assert [(event.asset_key, event.partition) for event in events] == [(keys.SITE_DEPLOYMENT, SITES[0])]
        events = steps.resume(home, PUMPS, "bob", "y").events
        assert [event.partition for event in events] == [None, SITES[1]]


class TestJob:
    def run(self, home, instance, **config):
        done = rollout_control.execute_in_process(
            run_config={"ops": {"control_rollout": {"config": {"reason": "why not", **config}}}},
            resources={"home": home, "usecase": PUMPS},
            instance=instance,
            raise_on_error=False,
        )
        return done

    def test_it_pauses_rolls_back_and_resumes_and_each_is_in_the_log(self, home):
        with dg.DagsterInstance.ephemeral() as instance:
            assert self.run(home, instance, action="PAUSE", who="ann").success
            assert control.read(home).paused.who == "ann"
            assert self.run(home, instance, action="ROLL_BACK", release=5, sites=[SITES[1]]).success
            assert control.read(home).backs[0].to == 5
            assert self.run(home, instance, action="RESUME", accept="CANARY").success
            assert control.read(home).rings(7) == {Ring.CANARY}
            found = instance.fetch_observations(keys.IMAGE, limit=10).records
            said = [record.asset_observation.metadata["rollout"].value for record in found]
            assert said == ["resumed", "rolled_back", "paused"]
            assert instance.fetch_observations(keys.SITE_DEPLOYMENT, limit=10).records

    def test_what_cannot_be_done_fails_the_run(self, home):
        with dg.DagsterInstance.ephemeral() as instance:
            assert not self.run(home, instance, action="ROLL_BACK", release=9).success
            assert not instance.fetch_observations(keys.IMAGE, limit=10).records

    @pytest.mark.parametrize(
        "config",
        [
            {"action": "PAUSE", "sites": [SITES[0]]},
            {"action": "PAUSE", "release": 6},
            {"action": "RESUME", "release": 6},
            {"action": "ROLL_BACK", "accept": "CANARY"},
        ],
    )
    def test_a_field_that_means_nothing_there_is_refused_and_not_passed_over(self, home, config):
        control.roll_back(home, "ann", "x", to=6, release=7, sites=None)
        before = control.read(home)
        with dg.DagsterInstance.ephemeral() as instance:
            assert not self.run(home, instance, **config).success
        assert control.read(home) == before

    def test_every_field_says_what_it_is(self):
        fields = rollout_control.nodes[0].definition.config_schema.config_type.fields
        assert all(field.description for field in fields.values())
        assert not fields["release"].is_required and fields["reason"].is_required
        assert json.dumps(fields["sites"].default_value)


someone = st.builds(Said, st.just("ann"), st.just("x"), st.just(datetime(2026, 1, 1, tzinfo=UTC)))
some_state = st.builds(
    State,
    paused=st.none() | someone,
    halted=st.none() | st.builds(Halt, st.sampled_from([6, 7]), st.sampled_from(Ring), someone),
    backs=st.lists(
        st.builds(
            Back,
            st.just(5),
            st.sampled_from([6, 7]),
            st.none() | st.lists(st.sampled_from(SITES), min_size=1).map(tuple),
            someone,
        ),
        max_size=3,
    ).map(tuple),
    accepted=st.lists(st.builds(Accepted, st.just(7), st.sampled_from(Ring), someone), max_size=2).map(tuple),
)
some_sites = st.fixed_dictionaries(
    dict.fromkeys(SITES, st.builds(SiteState, serving=st.sampled_from([None, 5, 6, 7]), linked=st.booleans()))
)


@given(some_state, some_sites)
def test_nobody_is_asked_what_somebody_decided_against(state, sites):
    course = Course(Home(Path("/nowhere")), PUMPS, SimpleNamespace(version=7))
    asked = course.decide(sites, state, lambda name: Verdict(Word.FINE, "fine")).sites
    if asked:
        assert state.paused is None
        assert state.halted is None or state.halted.release != 7
        assert all(state.allows(name, 7) for name in SITES)
    assert len({PUMPS.at(name).ring for name in asked}) <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bake_minutes", -1),
        ("bake_minutes", 43_201),
        ("rows", 29),
        ("anomaly_rise", 0.001),
        ("anomaly_rise", 1.1),
        ("failure_rise", 0),
        ("slower", 0.9),
        ("stale_minutes", 0),
        ("patience", 1),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused_with_their_place(field, value):
    said = yaml.safe_load(usecase.dumps(PUMPS))
    said["delivery"]["rollout"][field] = value
    with pytest.raises(usecase.UseCaseError, match=rf"delivery\.rollout\.{field}"):
        usecase.loads(yaml.safe_dump(said))
