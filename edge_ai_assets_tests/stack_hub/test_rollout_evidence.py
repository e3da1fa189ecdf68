"""What evidence says: fine only when it baked, is enough, is new and is of the right release."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring.metrics import SECONDS
from edge_ai_assets.stack_hub.rollout.evidence import Evidence, Word, judge
from edge_ai_assets.usecase import Rollout

NOW = 1_000_000.0
BOUNDS = Rollout(bake_minutes=60, rows=200, stale_minutes=30)


def within(bound, requests):
    """All requests in the bucket that ends there."""
    return tuple(requests if edge == bound else 0 for edge in (*SECONDS, None))


FOUND = Evidence(
    version=2,
    since=NOW - 2 * 3600,
    at=NOW,
    rows=5_000,
    anomalies=100,
    newest=NOW - 60,
    requests=1_000,
    failures=1,
    seconds=within(0.01, 1_000),
)
FORMER = msgspec.structs.replace(
    FOUND, version=1, since=NOW - 1e6, at=NOW - 7200, newest=NOW - 7260, anomalies=90
)


def said(found=None, former=None, bounds=BOUNDS, champion=FORMER, release=2, now=NOW):
    """The verdict on evidence that differs from the good one in what is given."""
    champion = champion and msgspec.structs.replace(champion, **(former or {}))
    return judge(msgspec.structs.replace(FOUND, **(found or {})), champion, bounds, release, now)


def test_good_evidence_is_fine():
    verdict = said()
    assert verdict == (Word.FINE, "2.0% of 5000 scores are anomalies, 1.8% of 5000 before")


@pytest.mark.parametrize(
    ("found", "word", "part"),
    [
        ({"version": 1}, Word.WAITING, "is of release 1, not of 2"),
        ({"conserved": False}, Word.WAITING, "do not add up"),
        ({"at": NOW - 31 * 60}, Word.WAITING, "is stale: counted 31 min ago"),
        ({"at": NOW + 31 * 60}, Word.WAITING, "is stale"),
        ({"since": NOW - 600}, Word.BAKING, "bakes for 50 min more"),
        ({"rows": 199, "anomalies": 0}, Word.WAITING, "too little evidence: 199 of 200"),
        ({"rows": 0, "anomalies": 0, "newest": None}, Word.WAITING, "too little evidence: 0 of 200"),
        ({"newest": NOW - 31 * 60}, Word.WAITING, "the newest score is 31 min old"),
        ({"silent": "it is deaf"}, Word.WAITING, "it is deaf"),
        ({"rows": 300, "anomalies": 15}, Word.WAITING, "more scores will tell"),
        ({"anomalies": 1_000}, Word.BAD, "20.0% of 5000 scores are anomalies, 1.8% of 5000 before"),
        ({"failures": 60}, Word.BAD, "6.0% of 1000 requests fail against 0.1% before"),
        ({"seconds": within(0.25, 1_000)}, Word.BAD, "take more than 0.05 s"),
        ({"since": NOW - 600, "failures": 60}, Word.BAD, "fail"),  # not only when it has baked
    ],
)
def test_what_holds_a_ring(found, word, part):
    verdict = said(found)
    assert verdict.word is word and part in verdict.reason


@pytest.mark.parametrize(
    "found",
    [
        {"anomalies": 0},  # a release that was retrained after drift is meant to raise fewer
        {"requests": 49, "failures": 49},  # of a few, one that fails is many
        {"requests": 0, "failures": 0, "seconds": ()},
        {"seconds": within(0.05, 1_000)},  # five times as slow, and nobody feels it
        {"seconds": tuple(980 if edge == 0.01 else 20 if edge == 2.5 else 0 for edge in (*SECONDS, None))},
    ],
)
def test_what_does_not(found):
    assert said(found).word is Word.FINE


def test_the_slow_are_held_against_the_former_release():
    slow = {"seconds": within(0.25, 1_000)}
    assert said(slow, former=slow).word is Word.FINE
    assert said({"seconds": within(1.0, 1_000)}, former=slow).word is Word.BAD


def test_the_first_release_is_held_against_bounds_alone():
    assert said(champion=None).word is Word.FINE
    assert said({"anomalies": 4_000}, champion=None).word is Word.FINE
    assert said({"failures": 100}, champion=None).word is Word.BAD
    assert said({"rows": 10, "anomalies": 0}, champion=None).word is Word.WAITING


def test_a_site_where_nothing_is_scored_holds_nobody_unless_something_was():
    nothing = {"rows": 0, "anomalies": 0, "newest": None}
    assert said(nothing, champion=None).word is Word.FINE
    assert said(nothing, former={"newest": FORMER.at - 1801}).word is Word.FINE
    assert said(nothing, former={"newest": FORMER.at - 1799}).word is Word.WAITING


def test_without_a_bake_time_only_conservation_counts():
    bounds = Rollout(bake_minutes=0)
    assert said({"failures": 1_000, "rows": 0, "anomalies": 0}, bounds=bounds).word is Word.FINE
    assert said({"conserved": False}, bounds=bounds).word is Word.WAITING
    assert said({"version": 1}, bounds=bounds).word is Word.WAITING


some_evidence = st.builds(
    lambda since, at, rows, anomalies, newest, requests, failures, version: Evidence(
        version=version,
        since=NOW - since,
        at=NOW - at,
        rows=rows,
        anomalies=min(anomalies, rows),
        newest=NOW - newest if rows else None,
        requests=requests,
        failures=min(failures, requests),
        seconds=within(0.01, requests),
    ),
    st.floats(-1e5, 1e5),
    st.floats(-1e4, 1e4),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.floats(-1e4, 1e5),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from([1, 2]),
)


@given(some_evidence, st.none() | some_evidence)
def test_never_on_stale_evidence_of_another_release_or_before_it_baked(found, champion):
    if judge(found, champion, BOUNDS, 2, NOW).word is Word.FINE:
        assert found.version == 2
        assert abs(NOW - found.at) <= 1800
        assert NOW - found.since >= 3600
        assert not found.rows or (found.rows >= 200 and NOW - found.newest <= 1800)


@given(some_evidence, some_evidence)
def test_a_rise_beyond_the_bound_never_goes_on_however_few_the_rows(found, champion):
    if judge(found, champion, BOUNDS, 2, NOW).word is Word.FINE and champion.rows >= 200 and found.rows:
        assert found.anomalies / found.rows - champion.anomalies / champion.rows <= BOUNDS.anomaly_rise


@given(st.integers(0, 30), st.integers(0, 30))
def test_thirty_rows_stop_nobody(anomalies, before):
    found = {"rows": 30, "anomalies": anomalies}
    assert said(found, former={"rows": 30, "anomalies": before}).word is Word.WAITING


def test_p95_is_the_end_of_a_bucket():
    assert FOUND.p95 == 0.01
    assert msgspec.structs.replace(FOUND, seconds=()).p95 is None
    assert msgspec.structs.replace(FOUND, seconds=(0,) * len(SECONDS) + (5,)).p95 is None
