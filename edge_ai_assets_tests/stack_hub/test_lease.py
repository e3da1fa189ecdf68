"""The trust lease of a site: renewed over a link, said loudly when it is over, and what stops then."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import time_machine

from edge_ai_assets import status, usecase
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.errors import StaleError
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import folder
from edge_ai_assets.scoring import lease as scoring_lease
from edge_ai_assets.stack_hub import delivery, lease, lease_sensor, provision
from edge_ai_assets.stack_hub.lease import State
from edge_ai_assets_tests.tiny_model import tiny_release

START = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = """
name: tiny
runs: {{rows: 50}}
features: [{{name: a}}]
label: {{column: y, positive: [1]}}
delivery: {{lease_days: 100, when_stale: {when}}}
sites: [{{name: north}}, {{name: south, road: media}}]
"""


@pytest.fixture
def clock():
    with time_machine.travel(START, tick=False) as travelling:
        yield travelling


@pytest.fixture(params=["keep", "stop"])
def case(request):
    return usecase.loads(TEXT.format(when=request.param))


@pytest.fixture
def home(tmp_path, clock, case):
    made = Home(tmp_path)
    model = tiny_release(made.candidates / "run-1", usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run="run-1", training_set="set", usecase="digest").write(model)
    pack.release(model, made.registry, made.keys, "tiny", case.delivery.lease)
    return made


@pytest.fixture
def site(home, case):
    at = provision.provision(home, "north")
    delivery.fetch(at, home.registry, case.at("north").road)
    return at


def at_day(clock, days):
    clock.move_to(START + timedelta(days=days))


@pytest.mark.parametrize(
    ("days", "state"),
    [(0, State.FRESH), (99, State.FRESH), (100, State.STALE), (465, State.STALE), (-365, State.CLOCK)],
)
def test_how_it_stands_by_its_clock(clock, site, days, state):
    at_day(clock, days)
    found = lease.standing(site)
    assert found.state is state and "north" in found.sentence
    assert found.good is (state is State.FRESH)


def test_a_site_that_nothing_came_to_has_none(home):
    south = provision.provision(home, "south")
    assert lease.standing(south).state is State.NONE and lease.standing(home.site("nowhere")).good


def test_over_a_link_it_is_renewed_without_a_release(clock, home, site, case):
    at_day(clock, 50)
    pack.current(home.registry, home.keys, case.delivery.lease)
    (found,) = lease.looked_at(home, case)
    assert found.state is State.FRESH and found.until == START + timedelta(days=150)
    assert delivery.installed(site).version == 1


def test_with_the_link_down_it_runs_out_and_is_said_once(clock, home, site, case):
    Link(site.root).cut()
    sensor = lease_sensor.lease_watched(home, case)
    said, cursor = [], None
    for day in (0, 50, 99, 100, 101):
        at_day(clock, day)
        result = sensor(dg.build_sensor_context(cursor=cursor))
        cursor = result.cursor or cursor
        said += [(day, event.passed, event.severity, event.description) for event in result.asset_events]
    assert [(day, passed) for day, passed, *_ in said] == [(0, True), (100, False)]
    assert said[1][2] is dg.AssetCheckSeverity.WARN and "north is STALE" in said[1][3]


def test_scoring_goes_on_or_stops_by_choice(clock, home, site, case):
    lease.note(site, case)
    assert scoring_lease.Lease(site.root).ended() is None
    at_day(clock, 100)
    ended = scoring_lease.Lease(site.root).ended()
    assert (ended is None) is (case.delivery.when_stale == "keep")
    assert ended is None or "ended on 2026-04-11" in ended


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"until": "x", "when_stale": "stop"}'])
def test_a_note_that_cannot_be_read_stops_nothing(tmp_path, content):
    (tmp_path / scoring_lease.FILE).write_bytes(content)
    assert scoring_lease.Lease(tmp_path).ended() is None


def test_past_it_a_linked_site_takes_nothing_that_is_as_old(clock, home, site, case):
    folder.write_wish(site.root, folder.Wish(folder.Release("sha256:1", 1, "x")))  # it runs what it has
    at_day(clock, 101)
    with pytest.raises(StaleError):
        delivery.fetch(site, home.registry, case.at("north").road)
    (found,) = lease.looked_at(home, case)  # and this is no error, but what is said
    assert found.state is State.STALE
    assert delivery.installed(site).version == 1


def test_status_says_it(clock, home, site, case):
    at_day(clock, 200)
    found = status.status(home, case)["sites"]
    assert found["north"]["trust"] == {"state": "stale", "until": "2026-04-11T00:00:00+00:00"}
    assert found["south"]["trust"] is None  # its disk is elsewhere


def test_a_damaged_state_is_stale_and_no_crash(home, site, case):
    for blob in (site.root / "store" / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"bad sector")
    (found,) = lease.looked_at(home, case)
    assert found.state is State.STALE and not lease_sensor.judged([found]).passed


def test_a_site_whose_note_cannot_be_written_keeps_no_other_from_its_lease(home, site, case):
    other = provision.provision(home, "south")
    delivery.fetch(other, home.registry, case.at("north").road)
    (site.root / scoring_lease.FILE).mkdir()
    north, south = lease.looked_at(home, case)
    assert "lease.json" in north.sentence and north.state is State.FRESH
    assert south.state is State.FRESH and (other.root / scoring_lease.FILE).is_file()
