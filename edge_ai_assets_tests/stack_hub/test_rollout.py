"""Ring by ring: who is asked next, and why nobody is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets import usecase
from edge_ai_assets.stack_hub.rollout import SiteState, next_sites

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


def states(**changed: SiteState) -> dict[str, SiteState]:
    return {name: changed.get(name, SiteState(serving=1)) for name in NAMES}


def test_the_canaries_are_asked_first():
    assert next_sites(CASE, 2, states())[0] == ["c1", "c2"]


def test_the_next_ring_waits_for_every_canary():
    assert next_sites(CASE, 2, states(c1=SiteState(serving=2)))[0] == ["c2"]


def test_then_the_early_ring():
    done = SiteState(serving=2)
    assert next_sites(CASE, 2, states(c1=done, c2=done))[0] == ["e1"]


def test_then_the_rest():
    done = SiteState(serving=2)
    assert next_sites(CASE, 2, states(c1=done, c2=done, e1=done))[0] == ["b1", "b2"]


def test_nobody_when_all_run_it():
    asked, why = next_sites(CASE, 1, states())
    assert asked == []
    assert "runs release 1" in why


def test_a_failed_canary_stops_the_rollout_and_says_why():
    asked, why = next_sites(
        CASE, 2, states(c1=SiteState(serving=1, failed="its model is broken"), c2=SiteState(serving=2))
    )
    assert asked == []
    assert "c1" in why and "its model is broken" in why


def test_a_failure_stops_the_ring_before_more_of_it_are_tried():
    found = states(c1=SiteState(serving=1, failed="its model is broken"), c2=SiteState(serving=1))
    assert next_sites(CASE, 2, found)[0] == []


def test_a_canary_whose_checks_fail_holds_the_next_ring():
    asked, why = next_sites(CASE, 2, states(c1=SiteState(serving=2, healthy=False), c2=SiteState(serving=2)))
    assert asked == []
    assert "checks of site c1" in why


def test_a_site_without_a_link_does_not_hold_the_others():
    away = SiteState(serving=1, linked=False)
    assert next_sites(CASE, 2, states(c1=SiteState(serving=2), c2=away))[0] == ["e1"]


def test_a_ring_that_cannot_be_reached_at_all_holds():
    away = SiteState(serving=1, linked=False)
    asked, why = next_sites(CASE, 2, states(c1=away, c2=away))
    assert asked == []
    assert "has a link" in why


def test_a_site_that_comes_back_is_asked():
    done = SiteState(serving=2)
    back = states(c1=SiteState(serving=1), c2=done, e1=done, b1=done, b2=done)
    assert next_sites(CASE, 2, back)[0] == ["c1"]


def test_a_site_whose_service_died_is_asked():
    done = SiteState(serving=2)
    assert next_sites(CASE, 2, states(c1=done, c2=SiteState(serving=None), e1=done))[0] == ["c2"]


def test_sites_that_are_not_registered_are_left_out():
    assert next_sites(CASE, 2, {"e1": SiteState(serving=1)})[0] == ["e1"]


some_state = st.builds(
    SiteState,
    serving=st.sampled_from([None, 1, 2]),
    failed=st.sampled_from([None, "broken"]),
    linked=st.booleans(),
    healthy=st.booleans(),
)


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, some_state)))
def test_only_sites_of_one_ring_that_can_and_need_to_are_asked(found):
    asked, _ = next_sites(CASE, 2, found)
    rings = {site.ring for site in CASE.sites if site.name in asked}
    assert len(rings) <= 1
    assert all(
        found[name].linked and found[name].serving != 2 and found[name].failed is None for name in asked
    )


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, some_state)))
def test_no_ring_starts_before_the_former_serves_the_release_somewhere(found):
    asked, _ = next_sites(CASE, 2, found)
    order = list(usecase.Ring)
    for name in asked:
        ring = next(site.ring for site in CASE.sites if site.name == name)
        for former in order[: order.index(ring)]:
            assert any(found[site].serving == 2 for site in CASE.ring(former))


@pytest.mark.parametrize("release", [1, 2, 17])
def test_the_reason_names_the_release(release):
    assert f"release {release}" in next_sites(CASE, release, states())[1]
