"""A service whose site is past its trust lease: it goes on, or says why it does not, as the note says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from edge_ai_assets.scoring import lease
from edge_ai_assets_tests.scoring.serving import RECORD

PAST, AHEAD = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"


def note(site, until, when_stale):
    path = site.path.parent / lease.FILE
    path.write_text(json.dumps({"until": until, "when_stale": when_stale}))


@pytest.mark.parametrize(("until", "when_stale"), [(PAST, "keep"), (AHEAD, "stop"), (AHEAD, "keep")])
def test_it_scores(site, until, when_stale):
    note(site, until, when_stale)
    assert site.score({"records": [RECORD]}).status == 200


def test_it_stops_and_says_why_and_all_else_goes_on(site):
    assert site.score({"records": [RECORD]}).status == 200
    note(site, PAST, "stop")
    site.app._lease._next = 0.0  # as if the seconds had passed after which it looks again
    refused = site.score({"records": [RECORD]})
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    assert "trust lease" in refused.json["error"]
    feedback = {"score_id": "bergen/1", "verdict": "wrong"}
    assert site.call("GET", "/v1/status").status == 200
    assert site.call("GET", "/health/ready").status == 200
    assert site.call("POST", "/v1/feedback", feedback, {"content-type": "application/json"}).status != 503
    note(site, AHEAD, "stop")
    site.app._lease._next = 0.0
    assert site.score({"records": [RECORD]}).status == 200


@pytest.mark.parametrize(
    ("days", "issued", "state"),
    [(100, -1, "current"), (25, -75, "due"), (26, -74, "current"), (-1, -100, "stale"), (5, None, "current")],
)
def test_the_status_says_how_it_stands(site, days, issued, state):
    now = datetime.now(UTC)
    until, began = now + timedelta(days=days), issued and now + timedelta(days=issued)
    (site.path.parent / lease.FILE).write_bytes(
        msgspec.json.encode(lease.Note(until - timedelta(minutes=1), "stop", began))
    )
    said = site.call("GET", "/v1/status").json["trust"]
    assert (said["state"], said["scoring"]) == (state, "stops")
    assert datetime.fromisoformat(said["until"]) < until


def test_without_a_note_nothing_is_known_of_it(site):
    said = site.call("GET", "/v1/status").json["trust"]
    assert said == {"state": "none", "until": None, "scoring": None}


def test_one_whose_release_was_withdrawn_says_so_and_scores_on(site):
    path = site.path.parent / lease.FILE
    release = site.call("GET", "/v1/status").json["release"]
    for named, said in (({}, None), ({"sha256:other": "by ann"}, None), ({release: "by ann"}, "by ann")):
        path.write_text(json.dumps({"until": AHEAD, "when_stale": "stop", "withdrawn": named}))
        site.app._lease._next = 0.0
        assert site.call("GET", "/v1/status").json["withdrawn"] == said
        assert site.score({"records": [RECORD]}).status == 200


def test_a_note_that_a_cluster_mounts_is_obeyed_where_none_lies_beside_the_outbox(tmp_path):
    beside, mounted = tmp_path / "outbox", tmp_path / "mounted"
    for folder in (beside, mounted):
        folder.mkdir()
    (mounted / lease.FILE).write_text(json.dumps({"until": PAST, "when_stale": "stop"}))
    assert lease.Lease(beside).ended() is None
    assert "ended on 2020-01-01" in lease.Lease(beside, mounted).ended()
    (beside / lease.FILE).write_text(json.dumps({"until": AHEAD, "when_stale": "stop"}))
    assert lease.Lease(beside, mounted).ended() is None


def test_a_note_of_a_later_version_is_read(tmp_path):
    (tmp_path / lease.FILE).write_text(json.dumps({"until": PAST, "when_stale": "stop", "more": 1}))
    assert lease.Lease(tmp_path).ended()


def test_the_note_is_looked_at_every_few_seconds_and_not_for_each_request(tmp_path, monkeypatch):
    looked, at = [], [100.0]
    monkeypatch.setattr(lease, "read", lambda path: looked.append(path))
    monkeypatch.setattr(lease.time, "monotonic", lambda: at[0])
    asked = lease.Lease(tmp_path)
    for seconds in (0, 1, 4.9, 5, 5.1, 10):
        at[0] = 100.0 + seconds
        assert asked.ended() is None
    assert len(looked) == 3
