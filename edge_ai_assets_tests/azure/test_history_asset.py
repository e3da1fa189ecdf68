"""global/history shows, for a time when nobody could reach a site, what ran there and how its checks went."""

import dagster as dg
import pytest

from edge_ai_assets import keys
from edge_ai_assets.azure import arrivals
from edge_ai_assets.azure.assets.history import history
from edge_ai_assets.home import Home
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets_tests.recorded import STEPS, event, life, merge, shown

ROUND = len(STEPS)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "site_keys", lambda _: {"bergen": [], "narvik": []})
    return Home(tmp_path)


def materialized(home):
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [history], instance=instance, resources={"home": home, "mirror": HomeMirror(home)}
        )
        assert result.success
        made = instance.get_latest_materialization_event(keys.HISTORY).asset_materialization
        found = {n: v if isinstance(v, dg.TableMetadataValue) else v.value for n, v in made.metadata.items()}
        return found, shown(instance, "bergen")


def rows(table):
    return [record.data for record in table.records]


def test_before_anything_came_it_is_empty(home):
    found, log = materialized(home)
    assert (found["events"], found["sites"], log) == (0, 0, [])


def test_it_shows_what_happened(home):
    merge(home.tables, life("bergen", 3 * ROUND, failing={10}))
    found, log = materialized(home)
    assert (found["events"], found["sites"], found["dagster/row_count"]) == (24, 1, 24)
    assert found["shown"] == len(log)
    assert found["path"] == str(home.tables / "lineage")
    assert {row["asset"] for row in rows(found["newest"])} == {asset for asset, _ in STEPS}
    [failed] = rows(found["failed_checks"])
    assert (failed["site"], failed["asset"], failed["check"]) == ("bergen", "site/deployment", "serving")
    assert [row["release"] for row in rows(found["deployments"])] == [2, 1, 0], "the newest first"
    assert all(row["edge_time"].endswith(" UTC") for row in rows(found["newest"]))


def deployed(n, release, former):
    return event("bergen", n, "site/deployment", release=release, former_release=former, image="sha256:ab")


def test_a_restart_is_no_deployment(home):
    lived = [(1, 0), (1, 1), (1, 0), (2, 1), (2, 2), (1, 2), (1, 0), (2, 0)]
    merge(home.tables, [deployed(n, *each) for n, each in enumerate(lived, 1)])
    found, _ = materialized(home)
    assert [(row["release"], row["former_release"]) for row in rows(found["deployments"])] == [
        (2, "none"),
        (1, "2"),
        (2, "1"),
        (1, "none"),
    ]


def test_what_served_before_is_empty_when_it_did_not_leave_the_site(home):
    merge(home.tables, [event("bergen", 1, "site/deployment", release=1)])
    assert rows(materialized(home)[0]["deployments"])[0]["former_release"] is None


def test_the_checks_of_every_site_are_shown_as_they_stand(home):
    """They are on no asset of Azure's graph: Dagster has no check of an asset that another location makes."""
    merge(home.tables, life("bergen", 3 * ROUND))
    merge(home.tables, life("narvik", 3 * ROUND, failing={18}))
    shown = rows(materialized(home)[0]["checks_by_site"])
    assert [(row["site"], row["check"], row["passed"]) for row in shown] == [
        ("narvik", "serving", False),
        ("bergen", "serving", True),
        ("bergen", "conservation", True),
        ("narvik", "conservation", True),
    ]
    assert shown[1]["says"] == "all 1 sites serve" and shown[1]["edge_time"].endswith(" UTC")


def test_a_gap_is_told(home):
    merge(home.tables, life("narvik", 9)[5:])
    found, _ = materialized(home)
    assert rows(found["gaps"]) == [{"site": "narvik", "missing_event": 1}]


@pytest.mark.parametrize(("failing", "passes"), [({10}, True), ({18}, False), (set(), True)])
def test_its_check_says_how_the_sites_checks_stand(home, failing, passes):
    merge(home.tables, life("bergen", 20, failing))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [history], instance=instance, resources={"home": home, "mirror": HomeMirror(home)}
        )
    [check] = result.get_asset_check_evaluations()
    assert check.passed is passes
    assert len(rows(check.metadata["failing"])) == (not passes)
