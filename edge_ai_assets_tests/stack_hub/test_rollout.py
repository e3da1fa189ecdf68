"""Ring by ring: who is asked next, and why nobody is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets import usecase
from edge_ai_assets.stack_hub.rollout.evidence import Verdict, Word
from edge_ai_assets.stack_hub.rollout.rings import Kind, SiteState, decide
from edge_ai_assets.usecase import Ring

CASE = usecase.loads(
    """
name: rings
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites:
  - {name: c1, ring: canary}
  - {name: c2, ring: canary}
  - {name: e1, ring: early}
  - {name: b1, ring: broad}
  - {name: b2, ring: broad}
"""
)
NAMES = [site.name for site in CASE.sites]
DONE = SiteState(serving=2)
FINE = Verdict(Word.FINE, "its checks pass")


def states(**changed):
    return {name: changed.get(name, SiteState(serving=1)) for name in NAMES}


def going(found, judged=None, accepted=(), release=2):
    """The decision; `judged` says what sites say that are not fine."""
    return decide(CASE, release, found, lambda name: (judged or {}).get(name, FINE), accepted)


def asked(*arguments, **more):
    return list(going(*arguments, **more).sites)


def test_the_canaries_are_asked_first():
    assert asked(states()) == ["c1", "c2"]


def test_the_next_ring_waits_for_every_canary():
    assert asked(states(c1=DONE)) == ["c2"]


def test_then_the_early_ring():
    assert asked(states(c1=DONE, c2=DONE)) == ["e1"]


def test_then_the_rest():
    assert asked(states(c1=DONE, c2=DONE, e1=DONE)) == ["b1", "b2"]


def test_nobody_when_all_run_it_and_nothing_is_counted_for_it():
    def judge(name):
        raise AssertionError(f"{name} was looked at for nothing")

    found = decide(CASE, 1, states(), judge)
    assert found.kind is Kind.COMPLETE and not found.sites and "runs release 1" in found.reason


def test_a_failed_canary_stops_the_rollout_and_says_why():
    found = going(states(c1=SiteState(serving=1, failed="its model is broken"), c2=DONE))
    assert found.kind is Kind.HALTED and not found.sites
    assert "c1" in found.reason and "its model is broken" in found.reason


def test_a_failure_stops_the_ring_before_more_of_it_are_tried():
    assert asked(states(c1=SiteState(serving=1, failed="its model is broken"))) == []


@pytest.mark.parametrize(
    ("word", "kind", "verb"),
    [
        (Word.BAD, Kind.HALTED, "stopped"),
        (Word.WAITING, Kind.WAITING, "waits"),
        (Word.BAKING, Kind.BAKING, "bakes"),
    ],
)
def test_what_a_canary_says_holds_the_next_ring(word, kind, verb):
    found = going(states(c1=DONE, c2=DONE), {"c2": Verdict(word, "so it is")})
    assert (found.kind, found.ring, found.sites) == (kind, Ring.CANARY, ())
    assert found.reason == f"release 2 {verb} at ring canary: site c2: so it is"
    assert set(found.judged) == {"c1", "c2"}


def test_the_worst_site_speaks():
    verdicts = {"c1": Verdict(Word.BAKING, "9 min"), "c2": Verdict(Word.BAD, "all requests fail")}
    assert going(states(c1=DONE, c2=DONE), verdicts).kind is Kind.HALTED


def test_a_canary_that_turns_bad_stops_the_last_ring_too():
    found = states(c1=DONE, c2=DONE, e1=DONE, b1=DONE)
    assert going(found, {"c1": Verdict(Word.BAD, "all requests fail")}).kind is Kind.HALTED


def test_the_next_ring_is_told_what_it_rests_on():
    assert set(going(states(c1=DONE, c2=DONE, e1=DONE)).judged) == {"c1", "c2", "e1"}


def test_an_accepted_ring_holds_nobody():
    found = states(c1=SiteState(serving=1, failed="its model is broken"), c2=DONE)
    bad = {"c2": Verdict(Word.BAD, "all requests fail")}
    assert asked(found, bad, accepted={Ring.CANARY}) == ["e1"]
    assert asked(found, bad, accepted={Ring.EARLY}) == []


def test_a_site_without_a_link_does_not_hold_the_others():
    away = SiteState(serving=1, linked=False)
    assert asked(states(c1=DONE, c2=away)) == ["e1"]


def test_a_ring_that_cannot_be_reached_at_all_holds():
    away = SiteState(serving=1, linked=False)
    found = going(states(c1=away, c2=away))
    assert found.sites == () and "has a link" in found.reason


def test_a_site_that_comes_back_is_asked():
    back = states(c1=SiteState(serving=1), c2=DONE, e1=DONE, b1=DONE, b2=DONE)
    assert asked(back) == ["c1"]


def test_a_site_whose_service_died_is_asked():
    assert asked(states(c1=DONE, c2=SiteState(serving=None), e1=DONE)) == ["c2"]


def test_sites_that_are_not_registered_are_left_out():
    assert asked({"e1": SiteState(serving=1)}) == ["e1"]


def test_a_decision_has_one_key_whatever_its_sentence_counts():
    first, later = (
        going(states(c1=DONE, c2=DONE), {"c1": Verdict(Word.BAKING, f"for {minutes} min more")})
        for minutes in (9, 3)
    )
    assert first.key == later.key and first.reason != later.reason


some_state = st.builds(
    SiteState,
    serving=st.sampled_from([None, 1, 2]),
    failed=st.sampled_from([None, "broken"]),
    linked=st.booleans(),
)
some_states = st.fixed_dictionaries(dict.fromkeys(NAMES, some_state))
some_verdicts = st.fixed_dictionaries(
    dict.fromkeys(NAMES, st.builds(Verdict, st.sampled_from(Word), st.just("so it is")))
)
RINGS = {site.name: site.ring for site in CASE.sites}


@given(some_states, some_verdicts, st.sets(st.sampled_from(Ring)))
def test_only_sites_of_one_ring_that_can_and_need_to_are_asked(found, verdicts, accepted):
    names = asked(found, verdicts, accepted)
    assert len({RINGS[name] for name in names}) <= 1
    assert all(
        found[name].linked and found[name].serving != 2 and found[name].failed is None for name in names
    )


@given(some_states, some_verdicts)
def test_no_ring_starts_before_all_former_ones_proved_themselves(found, verdicts):
    order = list(Ring)
    for name in asked(found, verdicts):
        for former in order[: order.index(RINGS[name])]:
            there = [site for site in CASE.ring(former) if found[site].serving == 2]
            assert there and all(verdicts[site].word is Word.FINE for site in there)


@pytest.mark.parametrize("release", [1, 2, 17])
def test_the_reason_names_the_release(release):
    assert f"release {release}" in going(states(), release=release).reason
