"""What a site put aside is counted with its reasons, tried again, and comes home once."""

from __future__ import annotations

from functools import partial

import pytest

from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns.hub import handling
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.stack_hub import dead, forwarding, provision
from edge_ai_assets_tests import blocks

USECASE = """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
egress: {kinds: [anomaly], fields: [{name: a, leaves: as_is}]}
sites: [{name: north}]
"""


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path)
    signing.create(made.keys, "release")
    return made


@pytest.fixture
def site(home):
    made = provision.provision(home, "north")
    (made.root / "release").mkdir()
    (made.root / "release" / "usecase.yaml").write_text(USECASE)
    (made.root / "current").symlink_to("release")
    return made


def score(outbox, rows=10):
    block = blocks.block([({"inputs": {"a": 1.5}, "context": {}}, 0.5, True, False)] * rows)
    outbox.append([Batch(None, "r1", 5, [block])])
    insights.derive(outbox)


def at_home(home):
    arrivals.receive_all(home)
    return sorted(row["sequence"] for row in tables.rows(home.tables, "insights", ["sequence"]))


def test_nothing_was_put_aside(site):
    with Outbox(site.outbox) as outbox:
        score(outbox)
    for queued in (False, True):
        assert dead.look(site, queued) == dead.Dead({}, 0, [])
        assert dead.retry(site, queued) == dead.Again(0, 0, [])


def test_scores_below_what_was_sent_are_sent_again_and_count_once(home, site):
    with Outbox(site.outbox) as outbox:
        score(outbox)
        outbox.dispose("quarantined", {"it could not be read": [3, 4]})
        forwarding.forward(site, home.uplink)
        assert at_home(home) == [1, 2, *range(5, 11)]
        assert dead.look(site, True).scores == {"it could not be read": 2}
        assert dead.retry(site, True) == dead.Again(2, 0, [])
        insights.derive(outbox)
        score(outbox, 3)
        forwarding.forward(site, home.uplink)
        assert at_home(home) == list(range(1, 14))
        assert dead.look(site, True) == dead.Dead({}, 0, [])
        assert outbox.counts() == outbox.recount() and outbox.counts().pending == 0


def test_a_try_that_is_killed_leaves_nothing_behind(home, site, monkeypatch):
    class Killed(BaseException):
        pass

    requeue = Outbox.requeue

    def killed(*given):
        requeue(*given)
        raise Killed

    with Outbox(site.outbox) as outbox:
        score(outbox)
        outbox.dispose("quarantined", {"it could not be read": [3, 4]})
        forwarding.forward(site, home.uplink)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Outbox, "requeue", killed)
            dead.retry(site, True)
        dead.retry(site, True)
        insights.derive(outbox)
        forwarding.forward(site, home.uplink)
        assert at_home(home) == list(range(1, 11)) and outbox.counts().pending == 0


def test_scores_that_this_version_cannot_read_stay_with_the_reason(site):
    with Outbox(site.outbox) as outbox:
        score(outbox)
        outbox.dispose("quarantined", {"record schema 99 is not known": [5]})
        outbox._db.execute("UPDATE scores SET schema = 99 WHERE sequence = 5")
    again = dead.retry(site, False)
    assert again.scores == 0 and "record schema 99 is not known" in again.left[0]
    assert dead.look(site, False).scores == {"record schema 99 is not known": 1}


def test_letters_that_the_function_gave_up_are_told_and_put_back(home, site, monkeypatch):
    def refuse(*_):
        raise ValueError("the policy is malformed")

    with Outbox(site.outbox) as outbox:
        score(outbox)
        with monkeypatch.context() as patched:
            patched.setattr(forwarding, "_function", lambda *_: refuse)
            patched.setattr(handling, "work", partial(handling.work, hidden_seconds=0))
            for _ in range(handling.TRIES + 1):
                forwarding.forward(site, home.uplink)
        found = dead.look(site, True)
        assert found.letters == 1 and "the policy is malformed" in found.reasons[0]
        assert outbox.counts().pending == 10
        assert dead.retry(site, True).letters == 1
        forwarding.forward(site, home.uplink)
        assert at_home(home) == list(range(1, 11)) and dead.look(site, True).letters == 0
