"""Counting evidence at a site: from an outbox, from a service that answers, and from one that does not."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from edge_ai_assets.delivery.errors import MalformedError
from edge_ai_assets.home import Home
from edge_ai_assets.returns.outbox.insights import derive
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.metrics import SECONDS, Metrics
from edge_ai_assets.stack_hub.rollout import control, looking
from edge_ai_assets.usecase import Ring
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.tiny_model import INPUTS

OLD, NEW = Running("sha256:1", 1, None), Running("sha256:2", 2, None)


@pytest.fixture
def site(tmp_path):
    at = Home(tmp_path).site("bergen")
    at.root.mkdir(parents=True)
    return at


def scored(site, release, rows, anomalies, at=1_000_000):
    """Rows of a release, unfolded as the way home does."""
    with Outbox(site.outbox) as outbox:
        if anomalies:
            outbox.append([blocks.plain(anomalies, release=release, at=at)])
        if rows - anomalies:
            outbox.append([blocks.plain(rows - anomalies, predicted=False, release=release, at=at)])
        derive(outbox)


def exposition(image="sha256:2", codes=(("score", 200, 90), ("score", 503, 10)), seconds=0.02):
    metrics = Metrics(None, Contract("tiny", INPUTS, 0.5, "fault"))
    numbers = metrics.routes(["score", "inference", "status"])
    for route, code, times in codes:
        for _ in range(times):
            metrics.answered(numbers[route], code, seconds)
    metrics.scored(1, 0, 1, 1e-4)
    return metrics.render(
        site="bergen",
        release=image,
        version=2,
        outbox={"scored": 0},
        outbox_bytes=0,
        oldest_pending=None,
        disk_free=0,
        waiting=0,
    )


@contextmanager
def answering(body=b"", status=200):
    """The address of a service that answers everything with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestScores:
    def test_champion_and_challenger_are_told_apart(self, site):
        scored(site, "sha256:1", 50, 5)
        champion = looking.champion(site, OLD, 2)
        looking.begin(site, NEW, champion)
        scored(site, "sha256:2", 20, 8, at=2_000_000)
        scored(site, "sha256:1", 3, 3)  # the former release answered for a moment yet
        found, before = looking.count(site, NEW)
        assert (found.version, found.rows, found.anomalies, found.newest) == (2, 20, 8, 2.0)
        assert (before.version, before.rows, before.anomalies, before.newest) == (1, 50, 5, 1.0)
        assert found.conserved

    def test_only_the_newest_scores_are_looked_at(self, site, monkeypatch):
        monkeypatch.setattr(looking, "SAMPLE", 30)
        scored(site, "sha256:1", 100, 100)
        scored(site, "sha256:1", 30, 0)
        assert looking.champion(site, OLD, 2).anomalies == 0

    def test_scores_of_an_earlier_trial_of_the_same_release_do_not_count(self, site):
        looking.begin(site, NEW, None)
        scored(site, "sha256:2", 40, 40)
        looking.begin(site, OLD, looking.champion(site, NEW, 1))  # rolled back
        looking.begin(site, NEW, looking.champion(site, OLD, 2))  # and resumed
        assert looking.count(site, NEW)[0].rows == 0

    def test_what_is_not_unfolded_waits(self, site):
        with Outbox(site.outbox) as outbox:
            outbox.append([blocks.plain(10, release="sha256:2")])
        assert looking.count(site, NEW)[0].rows == 0
        with Outbox(site.outbox) as outbox:
            derive(outbox)
        # The trial began after them: they were scored before anybody noted that it serves.
        assert looking.champion(site, NEW, 3).rows == 10

    def test_a_site_without_an_outbox_has_scored_nothing(self, site):
        found, before = looking.count(site, NEW)
        assert (found.rows, found.newest, before) == (0, None, None)

    def test_a_release_that_replaces_itself_has_no_champion(self, site):
        assert looking.champion(site, NEW, 2) is None and looking.champion(site, None, 2) is None


class TestTrial:
    def test_again_it_goes_on_where_it_was(self, site):
        first = looking.begin(site, NEW, None)
        assert looking.begin(site, NEW, looking.champion(site, OLD, 2)) == first
        assert looking.begin(site, OLD, None).version == 1

    def test_one_that_came_back_by_itself_begins_anew(self, site):
        looking.begin(site, NEW, None)
        found, champion = looking.count(site, OLD)
        assert (found.version, champion, looking.trial(site).version) == (1, None, 1)

    def test_a_damaged_note_is_told(self, site):
        site.trial.write_text("{")
        with pytest.raises(MalformedError, match=r"trial\.json cannot be read"):
            looking.count(site, NEW)


class TestRequests:
    def ask(self, url):
        return looking.ask(Running("sha256:2", 2, url))

    def test_requests_for_scores_by_code_and_seconds(self):
        codes = (
            ("score", 200, 90),
            ("score", 503, 6),
            ("inference", 422, 4),
            ("status", 500, 9),
            ("score", 400, 5),
        )
        with answering(exposition(codes=codes)) as url:
            found = self.ask(url)
        assert (found.requests, found.failures, found.silent) == (105, 10, None)
        assert len(found.seconds) == len(SECONDS) + 1
        assert {bound: times for bound, times in zip(SECONDS, found.seconds, strict=False) if times} == {
            0.025: 105
        }

    def test_before_the_first_request_nothing_is_known(self):
        with answering(exposition(codes=())) as url:
            assert self.ask(url) == (0, 0, (), None)

    def test_another_release_that_answers_is_no_evidence(self):
        with answering(exposition(image="sha256:1")) as url:
            found = self.ask(url)
        assert found.requests == 0 and "release sha256:1 that answers, not sha256:2" in found.silent

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [(b"", 500, "answered 500"), (b"{", 200, "/metrics:"), (b"", 200, "release None that answers")],
    )
    def test_one_that_does_not_tell_is_silent(self, body, status, said):
        with answering(body, status) as url:
            assert said in self.ask(url).silent

    @pytest.mark.parametrize("status", [401, 403])
    def test_one_that_wants_a_token_is_left_in_peace(self, status):
        with answering(b"", status) as url:
            assert self.ask(url).silent is None

    def test_one_that_is_gone_is_silent(self):
        with answering() as url:
            pass
        assert url in self.ask(url).silent
        assert looking.ask(NEW).silent is None  # a cluster may give it no address at all


def test_what_follows_a_halted_release_is_held_against_the_one_before_that(site):
    """Or a release as bad as the halted one would pass where that one serves."""
    scored(site, OLD.release_id, 1_000, 20)
    looking.begin(site, NEW, looking.champion(site, OLD, 2))
    scored(site, NEW.release_id, 1_000, 500)
    assert looking.champion(site, NEW, 3).anomaly_rate == 0.5
    control.halt(site.home, 2, Ring.CANARY, "half of its scores are anomalies")
    assert looking.champion(site, NEW, 3).anomaly_rate == 0.02
    control.resume(site.home, "ann", "the plant was at fault")
    assert looking.champion(site, NEW, 3).anomaly_rate == 0.5


class TestWhatIsDamagedKeepsNoReleaseFromTakingOver:
    def test_the_note_of_the_trial(self, site):
        site.trial.write_text("{")
        assert looking.champion(site, OLD, 2).rows == 0
        assert looking.begin(site, NEW, None).version == 2 and looking.trial(site).version == 2

    def test_the_outbox(self, site):
        site.outbox.write_bytes(b"no database" * 1000)
        assert looking.champion(site, OLD, 2) is None


def test_a_trial_that_begins_in_the_future_begins_anew(site, monkeypatch):
    """The clock was a year ahead when it began, and was set."""
    monkeypatch.setattr(looking, "time", SimpleNamespace(time=lambda: 4e9))
    looking.begin(site, NEW, None)
    monkeypatch.setattr(looking, "time", SimpleNamespace(time=lambda: 3e9))
    found, _ = looking.count(site, NEW)
    assert found.since == 3e9
