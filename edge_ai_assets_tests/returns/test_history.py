"""What the lineage table tells without any Dagster: deployments, runs, failed checks, the newest of each."""

from datetime import UTC, datetime

import pytest

from edge_ai_assets.returns.inbox import history
from edge_ai_assets.returns.inbox.history import Span
from edge_ai_assets_tests.recorded import AT, MINUTE, event, life, merge, run_id


def when(n):
    return datetime.fromtimestamp((AT + n * MINUTE) / 1e6, UTC)


def test_without_a_table_there_is_nothing(tmp_path):
    assert history.heads(tmp_path) == {}
    assert history.events(tmp_path, [Span("bergen", 1, 9)]) == []
    assert history.newest(tmp_path) == []
    assert history.failed(tmp_path, 5) == []
    assert history.deployments(tmp_path, "bergen") == []
    assert history.made(tmp_path, "bergen", "site/egress") == []


def test_heads_are_the_newest_numbers(tmp_path):
    merge(tmp_path, life("bergen", 12))
    merge(tmp_path, life("narvik", 3))
    assert history.heads(tmp_path) == {"bergen": 12, "narvik": 3}


def test_spans_of_several_sites_come_in_order(tmp_path):
    merge(tmp_path, life("narvik", 20)[::-1])
    merge(tmp_path, life("bergen", 20))
    spans = [Span("narvik", 3, 5), Span("bergen", 19, 25), Span("oslo", 1, 9)]
    found = [(row["site"], row["n"]) for row in history.events(tmp_path, spans)]
    assert found == [("bergen", 19), ("bergen", 20), ("narvik", 3), ("narvik", 4), ("narvik", 5)]
    assert history.events(tmp_path, []) == []


def test_metadata_and_checks_are_decoded(tmp_path):
    merge(
        tmp_path,
        [
            event("bergen", 1, "site/scores", anomalies=2),
            event("bergen", 2, "site/upload", check="conservation", passed=False),
        ],
    )
    scores, check = history.events(tmp_path, [Span("bergen", 1, 2)])
    assert (scores["metadata"], scores["check"], scores["at"]) == ({"anomalies": 2}, None, when(1))
    assert (check["check"]["name"], check["check"]["passed"]) == ("conservation", False)


def test_the_deployment_history_of_a_site(tmp_path):
    merge(
        tmp_path,
        [
            event("bergen", 1, "site/deployment", release=1, former_release=0, image="sha256:a"),
            event("bergen", 2, "site/scores", release=1),
            event("bergen", 3, "site/deployment", check="serving"),
            event("bergen", 4, "site/deployment", release=2, former_release=1, image="sha256:b"),
        ],
    )
    merge(tmp_path, [event("narvik", 1, "site/deployment", release=9)])
    found = history.deployments(tmp_path, "bergen")
    assert [(row["n"], row["at"], row["release"], row["former_release"], row["image"]) for row in found] == [
        (1, when(1), 1, 0, "sha256:a"),
        (4, when(4), 2, 1, "sha256:b"),
    ]
    assert history.deployments(tmp_path, "narvik")[0]["image"] is None
    last = [(row["site"], row["n"]) for row in history.last_deployments(tmp_path, 2)]
    assert last == [("bergen", 4), ("bergen", 1)]


def test_the_materializations_of_an_asset_of_a_site(tmp_path):
    merge(
        tmp_path,
        [
            event("bergen", 1, "site/egress", package_names=["bergen-00000001.zip"]),
            event("bergen", 8, "site/egress", package_names=["bergen-00000002.zip", "bergen-00000003.zip"]),
            event("bergen", 9, "site/upload", package_names=["bergen-00000002.zip"]),
            event("bergen", 16, "site/egress"),
        ],
    )
    made = history.made(tmp_path, "bergen", "site/egress")
    assert [(row["n"], row["run"]) for row in made] == [(n, run_id("bergen", n // 8)) for n in (1, 8, 16)]
    assert made[1]["metadata"]["package_names"][1] == "bergen-00000003.zip"
    assert history.made(tmp_path, "narvik", "site/egress") == []


def test_the_newest_of_each_asset(tmp_path):
    merge(tmp_path, [event("bergen", n, "site/scores") for n in (1, 2)])
    merge(
        tmp_path, [event("bergen", 3, "site/upload"), event("bergen", 4, "site/upload", kind="observation")]
    )
    merge(tmp_path, [event("narvik", 1, "site/scores")])
    found = [(row["site"], row["asset"], row["at"]) for row in history.newest(tmp_path)]
    assert found == [
        ("bergen", "site/scores", when(2)),
        ("bergen", "site/upload", when(3)),
        ("narvik", "site/scores", when(1)),
    ]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_last_failed_checks(tmp_path, limit):
    for site in ("bergen", "narvik"):
        merge(
            tmp_path,
            [event(site, n, "site/upload", check="conservation", passed=n == 2) for n in range(1, 5)],
        )
    found = [(row["n"], row["site"]) for row in history.failed(tmp_path, limit)]
    assert found == [(4, "bergen"), (4, "narvik"), (3, "bergen"), (3, "narvik"), (1, "bergen")][:limit]


def test_a_name_with_a_quote_finds_nothing_and_breaks_nothing(tmp_path):
    merge(tmp_path, life("bergen", 3))
    assert history.deployments(tmp_path, "x' OR '1'='1") == []


def test_the_newest_evaluation_of_each_check(tmp_path):
    for site, last in (("bergen", True), ("narvik", False)):
        passed = [True, False, not last, last]
        merge(
            tmp_path,
            [event(site, n, "site/upload", check="conservation", passed=ok) for n, ok in enumerate(passed, 1)]
            + [event(site, 5, "site/deployment", check="serving")],
        )
    found = [
        (row["site"], row["check"]["name"], row["n"], row["check"]["passed"])
        for row in history.standing_checks(tmp_path)
    ]
    assert found == [
        ("bergen", "serving", 5, True),
        ("bergen", "conservation", 4, True),
        ("narvik", "serving", 5, True),
        ("narvik", "conservation", 4, False),
    ]
    assert history.standing_checks(tmp_path / "elsewhere") == []
