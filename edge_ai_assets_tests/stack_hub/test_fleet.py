"""One run for many sites: ranges that cover them, and good sites that survive bad ones."""

from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.partitions import SITES
from edge_ai_assets.stack_hub.fleet import RANGE_END, RANGE_START, each_site, runs_for

NAMES = [f"site-{number:02}" for number in range(12)]


@given(st.sets(st.sampled_from(NAMES)))
def test_the_ranges_cover_exactly_the_sites(sites):
    covered = []
    for tags in runs_for(list(sites), NAMES):
        first, last = NAMES.index(tags[RANGE_START]), NAMES.index(tags[RANGE_END])
        covered += NAMES[first : last + 1]
    assert sorted(covered) == sorted(sites)


@given(st.sets(st.sampled_from(NAMES)))
def test_neighbours_share_a_run(sites):
    ranges = list(runs_for(list(sites), NAMES))
    for former, latter in pairwise(ranges):
        assert NAMES.index(latter[RANGE_START]) - NAMES.index(former[RANGE_END]) > 1


def test_sites_that_are_not_registered_ask_for_nothing():
    assert list(runs_for(["elsewhere"], NAMES)) == []


def test_order_is_that_of_registration():
    assert list(runs_for(["a", "b"], ["b", "a"])) == [{RANGE_START: "b", RANGE_END: "a"}]


def run(work, sites=("oslo", "bergen", "narvik")):
    @dg.asset(partitions_def=SITES, backfill_policy=dg.BackfillPolicy.single_run())
    def fleet(context: dg.AssetExecutionContext):
        yield from each_site(context, work)
        yield dg.MaterializeResult()

    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(str(SITES.name), list(sites))
    job = dg.Definitions(
        assets=[fleet], executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()
    tags = {RANGE_START: sites[0], RANGE_END: sites[-1]}
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    found = {
        event.partition: {
            name: value.value
            for name, value in event.step_materialization_data.materialization.metadata.items()
        }
        for event in result.all_events
        if event.is_step_materialization
    }
    errors = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return result.success, found, errors


def test_each_site_has_its_own_metadata():
    success, found, _ = run(lambda site: {"letters": len(site)})
    assert success
    assert found == {"oslo": {"letters": 4}, "bergen": {"letters": 6}, "narvik": {"letters": 6}}


def test_good_sites_are_kept_when_one_fails():
    def work(site):
        if site == "bergen":
            raise ValueError("the disk is full")
        return {"letters": len(site)}

    success, found, errors = run(work)
    assert not success
    assert found == {"oslo": {"letters": 4}, "narvik": {"letters": 6}}
    assert "site bergen: the disk is full" in str(errors[0].user_failure_data)


def test_all_failing_sites_are_named():
    def work(site):
        raise ValueError("no")

    success, found, errors = run(work)
    assert not success
    assert not found
    assert all(site in str(errors[0].user_failure_data) for site in ("oslo", "bergen", "narvik"))


@pytest.mark.parametrize("site", ["oslo", "narvik"])
def test_a_run_of_one_site(site):
    success, found, _ = run(lambda name: {"name": name}, sites=(site,))
    assert success
    assert found == {site: {"name": site}}
