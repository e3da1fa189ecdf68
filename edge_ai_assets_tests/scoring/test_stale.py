"""A service whose site is past its trust lease: it goes on, or says why it does not, as the note says."""

from __future__ import annotations

import json

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
    assert refused.status == 503 and "trust lease" in refused.json["error"]
    feedback = {"score_id": "bergen/1", "verdict": "wrong"}
    assert site.call("GET", "/v1/status").status == 200
    assert site.call("GET", "/health/ready").status == 200
    assert site.call("POST", "/v1/feedback", feedback, {"content-type": "application/json"}).status != 503
    note(site, AHEAD, "stop")
    site.app._lease._next = 0.0
    assert site.score({"records": [RECORD]}).status == 200


def test_the_note_is_looked_at_every_few_seconds_and_not_for_each_request(tmp_path, monkeypatch):
    looked, at = [], [100.0]
    monkeypatch.setattr(lease, "read", lambda path: looked.append(path))
    monkeypatch.setattr(lease.time, "monotonic", lambda: at[0])
    asked = lease.Lease(tmp_path)
    for seconds in (0, 1, 4.9, 5, 5.1, 10):
        at[0] = 100.0 + seconds
        assert asked.ended() is None
    assert len(looked) == 3
