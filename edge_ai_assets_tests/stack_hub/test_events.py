"""The site's own Dagster log as lineage lines: all of the site's, in the log's order, the same again after a
crash, and nothing that may not leave."""

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets import eventlog, interfaces, keys, usecase
from edge_ai_assets.azure.replay import replay
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.parts import EventMark
from edge_ai_assets.stack_hub.events import source
from edge_ai_assets_tests.recorded import life, merge

CANARY = "canary 12.345 bar"
START = EventMark(0, 0)


@dg.asset(**interfaces.body(interfaces.SITE_SCORES), backfill_policy=dg.BackfillPolicy.single_run())
def scores(context: dg.AssetExecutionContext):
    for site in context.partition_keys:
        context.add_asset_metadata(
            {
                "scored_rows": 12,
                "release": 3,
                "files": CANARY,
                "rejected_rows": float("nan"),
                "canary": CANARY,
                "path": dg.MetadataValue.path("/home/canary"),
                "anomalies": dg.MetadataValue.table([dg.TableRecord({"a": CANARY})]),
            },
            partition_key=site,
        )
    yield dg.MaterializeResult()


@dg.asset(
    **interfaces.body(interfaces.SITE_UPLOAD),
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec("conservation", asset=keys.SITE_UPLOAD),
        dg.AssetCheckSpec("of_no_concern", asset=keys.SITE_UPLOAD),
    ],
)
def upload():
    yield dg.MaterializeResult(
        metadata={"package_names": ["bergen-00000001.zip", "bergen-00000002.zip"]},
        check_results=[
            dg.AssetCheckResult(
                check_name="conservation",
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"does not hold at bergen: {CANARY}",
                metadata={"pending": 4, "canary": CANARY},
            ),
            dg.AssetCheckResult(check_name="of_no_concern", passed=False, description=CANARY),
        ],
    )


@dg.asset
def of_no_site() -> None: ...


CHAIN = [scores, upload]


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        made.add_dynamic_partitions(SITES.name, ["bergen", "narvik"])
        yield made


def run(instance, *assets, site="bergen"):
    partition = None if assets == (of_no_site,) else site
    return dg.materialize(list(assets), instance=instance, partition_key=partition).run_id


def decoded(lines):
    return [lineage.decode(line) for line in lines]


def test_what_a_run_did_is_told_in_its_order(instance):
    made = run(instance, scores), run(instance, upload)
    lines, mark = source(instance, "bergen")(START, 100)
    events = decoded(lines)
    assert [(one.n, one.kind, one.key, one.run) for one in events] == [
        (1, "materialization", "site/scores", made[0]),
        (2, "materialization", "site/upload", made[1]),
        (3, "check", "site/upload", made[1]),
    ]
    assert {one.partition for one in events} == {"bergen"}
    assert mark.number == 3
    assert events[1].metadata == {"package_names": ["bergen-00000001.zip", "bergen-00000002.zip"]}
    assert events[2].check == lineage.Check("conservation", False, "WARN", "")
    assert events[2].metadata == {"pending": 4}


def test_times_are_the_logs(instance):
    run(instance, scores)
    [line] = source(instance, "bergen")(START, 100)[0]
    [record] = instance.fetch_materializations(keys.SITE_SCORES, limit=1).records
    assert lineage.decode(line).at == round(record.timestamp * 1e6)


def test_what_may_not_leave_stays(instance):
    run(instance, *CHAIN)
    lines, _ = source(instance, "bergen")(START, 100)
    assert decoded(lines)[0].metadata == {"scored_rows": 12, "release": 3}
    assert not [line for line in lines if b"canary" in line or b"12.345" in line]


CASE = """
name: small
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
egress: {kinds: [%s], minimum_group_size: 20}
sites: [{name: bergen}]
"""


@pytest.mark.parametrize(
    ("kinds", "rows", "told"),
    [
        ("lineage", 1, False),
        ("lineage", 50, False),
        ("lineage, anomaly", 50, False),
        ("lineage, aggregate", 50, False),
        ("lineage, aggregate, anomaly", 19, False),
        ("lineage, aggregate, anomaly", 20, True),
    ],
)
def test_what_scores_mean_is_told_if_other_kinds_tell_it(kinds, rows, told):
    with dg.DagsterInstance.ephemeral() as instance:
        scored = {"scored_rows": rows, "anomalies": 1, "outside_trained_range": 1, "files": 1}
        meant = {"rows": rows, "anomaly": 1, "normal": rows - 1, "anomaly_rate": 1 / rows}
        for key, metadata in ((keys.SITE_SCORES, scored), (keys.SITE_INSIGHTS, meant)):
            made = dg.AssetMaterialization(key, partition="bergen", metadata=metadata)
            eventlog.report(instance, made, 1.7e9)
        policy = Policy(usecase.loads(CASE % kinds), b"k" * 32)
        one, other = decoded(source(instance, "bergen", policy)(START, 10)[0])
    assert set(one.metadata) == {"scored_rows", "files"} | ({"anomalies"} if told else set())
    assert set(other.metadata) == {"rows"} | ({"anomaly", "normal", "anomaly_rate"} if told else set())


def test_other_sites_and_assets_of_no_site_are_left_out(instance):
    run(instance, of_no_site)
    run(instance, scores, site="narvik")
    own = run(instance, scores)
    events = decoded(source(instance, "bergen")(START, 100)[0])
    assert [(one.n, one.run) for one in events] == [(1, own)]


def test_it_goes_on_where_the_last_package_ended(instance):
    run(instance, *CHAIN)
    after = source(instance, "bergen")
    first, mark = after(START, 100)
    assert after(mark, 100) == ([], mark)
    run(instance, scores)
    more, later = after(mark, 100)
    assert [one.n for one in decoded(more)] == [len(first) + 1]
    assert later.number == len(first) + 1


def test_a_package_that_was_torn_is_made_again_alike(instance):
    run(instance, *CHAIN)
    after = source(instance, "bergen")
    first = after(START, 2)
    run(instance, *CHAIN)
    assert source(instance, "bergen")(START, 2) == first
    assert after(START, 100)[0][:2] == first[0]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 4))
def test_any_sizes_of_packages_give_every_event_once(limits, page):
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        patch.setattr(eventlog, "PAGE", page)
        for n in range(12):
            site = ("bergen", "narvik")[n % 3 == 1]
            eventlog.report(instance, dg.AssetMaterialization(keys.SITE_SCORES, partition=site), 1.7e9 - n)
            eventlog.report(instance, dg.AssetObservation(keys.SITE_UPLOAD, partition=site), 1.7e9 + n)
            eventlog.report(instance, dg.AssetCheckEvaluation(keys.SITE_UPLOAD, "conservation", True), 1.7e9)
        after = source(instance, "bergen")
        whole, end = after(START, 1000)
        found, mark = [], START
        for limit in [*limits, 1000]:
            lines, mark = after(mark, limit)
            assert len(lines) <= limit
            found += lines
        assert found == whole
        assert mark == end
        assert [one.n for one in decoded(whole)] == list(range(1, 8 * 2 + 12 + 1))


def test_what_was_replayed_here_is_never_sent_on(instance, tmp_path):
    merge(tmp_path / "tables", life("bergen", 16))
    assert replay(instance, tmp_path / "tables", ["bergen"]).reported
    own = run(instance, scores)
    events = decoded(source(instance, "bergen")(START, 100)[0])
    assert [(one.n, one.run) for one in events] == [(1, own)]


@pytest.mark.parametrize("at", [-5.0, 0.5e-6])
def test_an_impossible_clock_stops_no_package(at):
    with dg.DagsterInstance.ephemeral() as instance:
        eventlog.report(instance, dg.AssetMaterialization(keys.SITE_SCORES, partition="bergen"), at)
        [line] = source(instance, "bergen")(START, 10)[0]
        assert 0 < lineage.decode(line).at < lineage.MAX_TIME


def test_a_run_with_an_id_of_ones_own_is_told_without_it(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions(SITES.name, ["bergen"])
        dg.materialize([scores], instance=instance, partition_key="bergen")
        entry = instance.fetch_materializations(keys.SITE_SCORES, limit=1).records[0].event_log_entry
        instance.report_dagster_event(entry.dagster_event, run_id="my_own")
        assert [one.run == "" for one in decoded(source(instance, "bergen")(START, 10)[0])] == [False, True]
