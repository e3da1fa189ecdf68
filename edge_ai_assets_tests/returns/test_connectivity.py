"""The state of a link: what follows what, and that probing is bounded and always finds the way back."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.road.connectivity import (
    SECOND,
    Connectivity,
    State,
    Timing,
    due,
    failed,
    seconds_in,
    succeeded,
)

TIMING = Timing(idle=60, quick=1, first=5, most=300)
NOW = 1_760_000_000 * SECOND
YEAR = 365 * 86_400 * SECOND


def after(*outcomes, link=None, at=NOW, chance=lambda: 0.0):
    """The link after operations that worked (True) or failed, a second apart."""
    link, change = link or Connectivity(), None
    for number, worked in enumerate(outcomes):
        moment = at + number * SECOND
        link, change = (
            succeeded(link, moment, TIMING) if worked else failed(link, moment, "down", chance, TIMING)
        )
    return link, change


@pytest.mark.parametrize(
    ("outcomes", "state", "flaps"),
    [
        ([], State.UNKNOWN, 0),
        ([True], State.CONNECTED, 0),
        ([True, True], State.CONNECTED, 0),
        ([False], State.TRYING, 0),
        ([True, False], State.TRYING, 0),
        ([True, False, True], State.CONNECTED, 0),
        ([False, False], State.DISCONNECTED, 1),
        ([True, False, False], State.DISCONNECTED, 1),
        ([True, False, False, False], State.DISCONNECTED, 1),
        ([True, False, False, True], State.CONNECTED, 1),
        ([True, False, False, True, False, False], State.DISCONNECTED, 2),
    ],
)
def test_one_failure_is_followed_by_one_retry_and_two_are_a_disconnection(outcomes, state, flaps):
    link, _ = after(*outcomes)
    assert (link.state, link.flaps) == (state, flaps)


def test_a_change_tells_how_long_the_former_state_lasted():
    link, change = after(True)
    assert (change.before, change.after, change.seconds) == (State.UNKNOWN, State.CONNECTED, 0)
    link, change = after(False, link=link, at=NOW + 90 * SECOND)
    assert (change.before, change.after, change.seconds) == (State.CONNECTED, State.TRYING, 90)
    link, change = after(False, link=link, at=NOW + 91 * SECOND)
    assert (change.before, change.after, change.seconds, change.flaps) == (
        State.TRYING,
        State.DISCONNECTED,
        1,
        1,
    )
    assert link.reason == "down"
    link, change = after(True, link=link, at=NOW + 14 * 86_400 * SECOND)
    assert change.seconds == 14 * 86_400 - 91
    assert (link.reason, link.failures, link.since) == ("", 0, NOW + 14 * 86_400 * SECOND)


def test_a_state_that_stays_is_no_change():
    assert after(True, True)[1] is None
    assert after(False, False, False)[1] is None


def test_nothing_is_probed_while_operations_work_and_a_probe_is_due_when_idle():
    link, _ = after(True)
    assert due(link, NOW) == due(link, NOW + 59 * SECOND) == "operate"
    assert due(link, NOW + 60 * SECOND) == "probe"


def test_before_anything_was_tried_it_is_probed():
    assert due(Connectivity(), NOW) == "probe"
    assert seconds_in(Connectivity(), NOW) == 0


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 5), (3, 10), (4, 20), (8, 300), (5000, 300)])
def test_retries_get_rarer_up_to_a_bound(failures, seconds):
    link, _ = after(True, *[False] * failures)
    at = NOW + failures * SECOND
    assert due(link, at + (seconds - 1) * SECOND) == "wait"
    assert due(link, at + seconds * SECOND) == "probe"
    early, _ = after(True, *[False] * failures, chance=lambda: 0.999999)
    assert due(early, at + round(seconds * 0.51 * SECOND)) == ("wait" if failures == 1 else "probe")


@pytest.mark.parametrize("jump", [-YEAR, YEAR, -SECOND, -10 * YEAR, 100 * YEAR])
@pytest.mark.parametrize("outcomes", [[True], [False], [True, False, False], [False] * 30])
def test_a_clock_that_jumps_makes_it_try_at_once_and_no_duration_negative(outcomes, jump):
    link, _ = after(*outcomes)
    moment = NOW + (len(outcomes) - 1) * SECOND + jump
    assert due(link, moment) == "probe"
    assert seconds_in(link, moment) >= 0
    for worked in (True, False):
        again, change = after(worked, link=link, at=moment)
        assert change is None or change.seconds >= 0
        assert due(again, moment) in ("operate", "wait")


def test_it_survives_a_restart():
    link, _ = after(True, False, False, True, False)
    assert msgspec.json.decode(msgspec.json.encode(link), type=Connectivity) == link


moments = st.one_of(
    st.floats(0.1, 30),  # a look of a sensor
    st.floats(30, 4000),
    st.just(0.0),  # a restart
    st.sampled_from([-float(YEAR // SECOND), float(YEAR // SECOND), -3600.0, 3600.0]),  # a clock is set
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(moments, st.booleans()), max_size=150), st.integers())
def test_whatever_the_clock_and_the_link_do_probes_are_bounded_and_the_way_back_is_found(steps, seed):
    chance = random.Random(seed).random
    link, clock, real = Connectivity(), NOW, 0.0
    probes, jumps, sets = 0, 0, 0
    flips, was = 0, None
    for step, works in steps:
        jump = abs(step) == 3600 or abs(step) > 4000
        clock += round(step * SECOND)
        jumps += jump
        real += 0 if jump else step
        flips += works is not was
        was = works
        link = msgspec.json.decode(msgspec.json.encode(link), type=Connectivity)
        assert link.wait <= TIMING.most * SECOND
        if due(link, clock) == "probe":
            probes += 1
            before = link
            link, change = (
                succeeded(link, clock, TIMING) if works else failed(link, clock, "x", chance, TIMING)
            )
            sets += 1
            assert (change is None) == (before.state is link.state)
            assert link.flaps - before.flaps in (0, 1)
            assert due(link, clock) != "probe"
    # Only the first wait after the link changed its behaviour is as short as `quick`; a jump of the clock
    # costs one probe too early.
    assert probes <= 1 + 2 * flips + jumps + real / (TIMING.first / 2)
    for _ in range(3):  # the target works from now on: within one longest wait it is connected
        clock += round(TIMING.most * SECOND)
        if due(link, clock) == "probe":
            link, _ = succeeded(link, clock, TIMING)
    assert link.state is State.CONNECTED


def test_a_thousand_flaps_are_each_noticed_once():
    link, clock, told = Connectivity(), NOW, []
    chance = random.Random(5)
    for flap in range(1_000):
        for works in (True, False):
            span = chance.randint(400, 4_000)
            for _ in range(span):
                clock += SECOND + (chance.choice([-YEAR, YEAR]) if chance.random() < 0.0005 else 0)
                if due(link, clock) == "probe":
                    link, change = (
                        succeeded(link, clock, TIMING)
                        if works
                        else failed(link, clock, "x", chance.random, TIMING)
                    )
                    told += [change] if change else []
        assert link.flaps == flap + 1
    settled = [change.after for change in told if change.after is not State.TRYING]
    assert settled == [State.CONNECTED, State.DISCONNECTED] * 1_000


def test_a_thousand_sites_do_not_knock_together():
    waits = set()
    for site in range(1_000):
        link, _ = after(*[False] * 12, chance=random.Random(site).random)
        waits.add(link.wait)
        assert TIMING.most / 2 * SECOND <= link.wait <= TIMING.most * SECOND
    assert len(waits) > 990


def test_the_page_on_roads_gives_these_waits():
    page = (Path(__file__).parents[2] / "docs/roads.md").read_text("utf-8")
    assert f"after {TIMING.idle:g} s without an operation" in page
    assert f"one retry after {TIMING.quick:g} s" in page
    assert f"after {TIMING.first:g} s, {2 * TIMING.first:g} s, {4 * TIMING.first:g} s" in page
    assert f"up to {TIMING.most:g} s" in page
    assert Timing() == TIMING
