"""The connected form in Dagster: sites in turn, events where they belong, one bad site stops no other."""

from __future__ import annotations

from types import SimpleNamespace

import dagster as dg
import pytest

from edge_ai_assets import keys
from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import signing
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.hub import enqueuing, handling, settling
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.roads import UplinkError
from edge_ai_assets.stack_hub import forwarding, forwarding_sensor, provision
from edge_ai_assets_tests import blocks

NAMES = [f"site-{number:03}" for number in range(50)]


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path)
    for name in NAMES:
        made.site(name).root.mkdir(parents=True)
        made.site(name).outbox.touch()
    return made


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(str(SITES.name), NAMES)
        yield made


def done(letters: int, dead: tuple[str, ...] = ()) -> forwarding.Forwarded:
    sent = enqueuing.Sent(letters, 10 * letters, 0, False)
    worked = handling.Worked(letters, list(dead), [])
    return forwarding.Forwarded(sent, worked, settling.Settled(letters, [], {}, 0))


def test_every_site_gets_its_turn_across_restarts(home, instance, monkeypatch):
    seen: list[str] = []

    def forward(site, root, far):
        seen.append(site.name)
        return done(1)

    monkeypatch.setattr(forwarding_sensor, "forwarding", SimpleNamespace(forward=forward))
    cursor = None
    for _ in range(5):
        sensor = forwarding_sensor.insights_queued(home, NAMES)
        # As the daemon does: it looks at more than what the function returns.
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
        assert len(tick.asset_events) == 2 * forwarding_sensor.LOOK
        cursor = tick.cursor
    assert seen == NAMES + NAMES


def test_events_stand_on_the_site_and_a_bad_one_stops_no_other(home, instance, monkeypatch):
    def forward(site, root, far):
        if site.name == NAMES[0]:
            raise RuntimeError("its disk is gone")
        return done(2, ("UplinkError: refused",)) if site.name == NAMES[1] else done(0)

    monkeypatch.setattr(forwarding_sensor, "forwarding", SimpleNamespace(forward=forward))
    result = forwarding_sensor.insights_queued(home, NAMES)(dg.build_sensor_context(instance=instance))
    assert [(each.asset_key, each.partition) for each in result.asset_events] == [
        (keys.SITE_EGRESS, NAMES[1]),
        (keys.SITE_UPLOAD, NAMES[1]),
    ]
    told = result.asset_events[0].metadata
    assert told["rows"].value == 20 and told["reasons"].value == "UplinkError: refused"
    with pytest.raises(dg.Failure, match="its disk is gone"):
        forwarding_sensor.insights_queued(home, NAMES[:1])(dg.build_sensor_context(instance=instance))


def test_sites_without_scores_or_partition_wait(home, instance):
    home.site(NAMES[0]).outbox.unlink()
    sensor = forwarding_sensor.insights_queued(home, [NAMES[0], "unregistered"])
    result = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)


SMALL = """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
egress: {kinds: [anomaly], fields: [{name: a, leaves: as_is}]}
sites: [{name: north}]
"""


@pytest.fixture
def provisioned(tmp_path):
    home = Home(tmp_path)
    signing.create(home.keys, "release")
    site = provision.provision(home, "north")
    (site.root / "release").mkdir()
    (site.root / "release" / "usecase.yaml").write_text(SMALL)
    (site.root / "current").symlink_to("release")
    return home, site


def test_what_azure_merged_is_acknowledged_and_pruned(provisioned):
    home, site = provisioned
    with Outbox(site.outbox) as outbox:
        block = blocks.block([({"inputs": {"a": 1.5}, "context": {}}, 0.5, True, False)] * 4)
        outbox.append([Batch(None, "r1", 5, [block])])
        insights.derive(outbox)
        assert forwarding.forward(site, home.uplink).acknowledged == 0
        assert outbox.prune(1 << 60).rows == 0
        arrivals.receive_all(home)
        assert arrivals.acknowledge(home) == ["north"]
        genuine = (home.uplink / "north/.ack").read_bytes()
        (home.uplink / "north/.ack").write_bytes(b"forged")
        assert forwarding.forward(site, home.uplink).acknowledged == 0
        (home.uplink / "north/.ack").write_bytes(genuine)
        Link(site.root).cut()
        assert forwarding.forward(site, home.uplink).acknowledged == 0
        Link(site.root).restore()
        assert forwarding.forward(site, home.uplink).acknowledged == 1
        assert forwarding.forward(site, home.uplink).acknowledged == 0
        assert outbox.prune(1 << 60).rows == 4


def test_a_refused_acknowledgement_hides_nothing_of_what_was_done(provisioned, monkeypatch, caplog):
    """What was settled is settled: its events are not lost because a signature for reading has expired."""

    def refused(_: object) -> None:
        raise UplinkError("acct refuses the credential")

    home, site = provisioned
    with Outbox(site.outbox) as outbox:
        block = blocks.block([({"inputs": {"a": 1.5}, "context": {}}, 0.5, True, False)] * 4)
        outbox.append([Batch(None, "r1", 5, [block])])
        insights.derive(outbox)
    monkeypatch.setattr(forwarding.FolderTarget, "acknowledgement", refused)
    done = forwarding.forward(site, home.uplink)
    assert len(done.settled.packages) == 1 and done.acknowledged == 0
    assert "site north: acct refuses the credential" in caplog.text


def test_a_provisioned_site_forwards_by_itself(provisioned):
    home, site = provisioned
    record = {"inputs": {"a": 1.5, "b": 2.5}, "context": {}}
    with Outbox(site.outbox) as outbox:
        block = blocks.block([(record, 0.5, row % 2 == 0, False) for row in range(10)])
        outbox.append([Batch(None, "r1", 5, [block])])
        insights.derive(outbox)
        done = forwarding.forward(site, home.uplink)
        assert (done.sent.rows, done.worked.receipts, done.settled.packages) == (
            10,
            2,
            ["north-00000001.zip"],
        )
        assert (outbox.counts().uploaded, outbox.counts().withheld) == (5, 5)
    package = packages.read(
        home.uplink / "north/north-00000001.zip",
        [signing.load_private(provision.private_key(site)).public_key()],
    )
    assert package.insights["sequence"].to_pylist() == [1, 3, 5, 7, 9]
    assert forwarding.forward(site, home.uplink).sent.letters == 0
    Link(site.root).cut()
    with Outbox(site.outbox) as outbox:
        outbox.append([Batch(None, "r1", 5, [block])])
        insights.derive(outbox)
        waits = forwarding.forward(site, home.uplink)
        assert waits.worked.failed and outbox.counts().pending == 10
