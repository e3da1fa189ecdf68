"""A site and Azure that share a storage account because their settings say so: packages there,
acknowledgements back, and a hub's queue between the site and its function.
"""

from __future__ import annotations

import random
from pathlib import Path

import dagster as dg
import pytest

from edge_ai_assets import keys
from edge_ai_assets.azure import definitions as azure_side
from edge_ai_assets.delivery import signing
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.metadata import plain
from edge_ai_assets.partitions import SITES
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.hub import handling, rulebook
from edge_ai_assets.returns.hub.forwarding import Forwarder
from edge_ai_assets.returns.hub.queue import EmbeddedQueue
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import connecting, forwarding, provision, returning
from edge_ai_assets.stack_hub.far_ends import FarEnds, SwitchedUplink
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy

pytestmark = pytest.mark.integration
__all__ = ["azurite"]
CASE = """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
egress: {kinds: [anomaly], fields: [{name: a, leaves: as_is}]}
sites: [{name: north, road: ROAD}]
"""


class World:
    """A home with both sides that know each other through the account alone."""

    def __init__(self, folder: Path, azurite: Azurite, road: str) -> None:
        self.home, self.azurite = Home(folder), azurite
        self.container = azurite.container(f"c{random.randrange(10**12)}")
        self.lake = azurite.container(f"l{random.randrange(10**12)}")
        signing.create(self.home.keys, "release")
        self.site: SiteHome = provision.provision(self.home, "north")
        (self.site.root / "release").mkdir()
        (self.site.root / "release" / "usecase.yaml").write_text(CASE.replace("ROAD", road))
        (self.site.root / "current").symlink_to("release")
        self.home.usecase.write_text(CASE.replace("ROAD", road))
        self.reached(azurite.blobs)

    def reached(self, port: int) -> None:
        """Both sides' settings, with the account at this port."""
        where = (
            f'endpoint = "http://127.0.0.1:{port}/cloud"\ncredential = {{ key = {{ env = "CLOUD_KEY" }} }}\n'
        )
        names = f'uplink = "{self.container}"\nlake = "{self.lake}"\n'
        (self.home.root / "azure.toml").write_text(f"[storage]\n{where}{names}")
        self.hub = f'[uplink]\n{where}container = "{self.container}"\n'
        (self.home.root / "stack_hub.toml").write_text(self.hub)

    @property
    def settings(self) -> Settings:
        return Settings.load(home=self.home.root)

    def scored(self, rows: int = 10) -> None:
        with Outbox(self.site.outbox) as outbox:
            record = {"inputs": {"a": 1.5}, "context": {}}
            block = blocks.block([(record, 0.5, row % 2 == 0, False) for row in range(rows)])
            outbox.append([Batch(None, "r1", 5, [block])])
            insights.derive(outbox)

    def names(self) -> list[str]:
        return sorted(self.azurite.account("cloud").container(self.container).list_blob_names())

    def bring_home(self, instance: dg.DagsterInstance) -> dict[str, object]:
        defs = azure_side.build_defs(settings=self.settings)
        sensor = defs.resolve_sensor_def("packages_arrived")
        with dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def()) as context:
            asked = sensor(context)
        if isinstance(asked, dg.SkipReason):
            return {"skipped": asked.skip_message}
        assert not list((self.home.uplink).glob("*/*.zip")), "the sensor downloads nothing"
        job = defs.get_repository_def().get_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[keys.INBOX]).success
        return plain(instance.get_latest_materialization_event(keys.INBOX)) or {}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(str(SITES.name), ["north"])
        yield made


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", KEYS["cloud"])
    monkeypatch.setenv("HUB_KEY", KEYS["hub"])


def test_a_link_leads_to_the_account_and_back(tmp_path, azurite, instance):
    world = World(tmp_path, azurite, "link")
    far, usecase = FarEnds(world.settings.stack_hub), world.settings.load_usecase()
    assert "every package that arrived was received" in world.bring_home(instance)["skipped"]
    world.scored()
    returning.pack_all(world.site)
    assert returning.let_leave(world.site, usecase, world.home.uplink, far).names == ["north-00000001.zip"]
    assert world.names() == ["north/north-00000001.zip"] and not world.home.uplink.exists()
    done = world.bring_home(instance)
    assert (done["packages"], done["fetched"], done["interrupted"]) == (1, 1, "no")
    assert tables.count(world.home.tables, "insights") == 5
    assert world.names() == ["north/.ack", "north/north-00000001.zip"]
    logged = [str(event) for run in instance.get_runs() for event in instance.all_logs(run.run_id)]
    assert logged and not [event for event in logged if KEYS["cloud"] in event]
    way = connecting.road(world.site, usecase, world.home.uplink, far)
    assert isinstance(way, SwitchedUplink)
    assert connecting.look(world.site, way, 10**15).acknowledged == 1
    assert "every package" in world.bring_home(instance)["skipped"]


def test_a_cut_by_an_operator_holds_for_the_account_too(tmp_path, azurite):
    world = World(tmp_path, azurite, "link")
    with Proxy(azurite.blobs) as proxy:
        world.reached(proxy.port)
        far, usecase = FarEnds(world.settings.stack_hub), world.settings.load_usecase()
        world.scored()
        returning.pack_all(world.site)
        Link(world.site.root).cut()
        left = returning.let_leave(world.site, usecase, world.home.uplink, far)
        assert left.interrupted and "edge-ai link up" in left.interrupted and left.names == []
        assert not connecting.look(
            world.site, connecting.road(world.site, usecase, tmp_path, far), 1
        ).upload_due
        assert not proxy.sent, "nothing connects outward"
        Link(world.site.root).restore()
        assert len(returning.let_leave(world.site, usecase, world.home.uplink, far).names) == 1


def test_an_account_out_of_reach_holds_nothing_else_up(tmp_path, azurite, instance):
    world = World(tmp_path, azurite, "link")
    world.reached(9)
    said = world.bring_home(instance)["skipped"]
    assert "looking for packages: 127.0.0.1:9 is out of reach" in said
    world.scored()
    returning.pack_all(world.site)
    sealed = next(world.site.spool.glob("*.zip"))
    (world.home.uplink / "north").mkdir(parents=True)
    (world.home.uplink / "north" / sealed.name).write_bytes(sealed.read_bytes())  # it was carried
    defs = azure_side.build_defs(settings=world.settings)
    job = defs.get_repository_def().get_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[keys.INBOX]).success
    done = plain(instance.get_latest_materialization_event(keys.INBOX))
    assert done["packages"] == 1 and "out of reach" in done["interrupted"]


def test_resources_of_a_test_override_those_of_the_settings(tmp_path, azurite, instance):
    world = World(tmp_path, azurite, "link")

    class Nothing:
        def waiting(self) -> list[str]:
            return ["north/north-00000007.zip"]

    defs = azure_side.build_defs(settings=world.settings, resources={"arriving": Nothing()})
    with dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def()) as context:
        assert isinstance(defs.resolve_sensor_def("packages_arrived")(context), dg.RunRequest)


def test_a_hub_s_queue_and_function(tmp_path, azurite, instance):
    world = World(tmp_path, azurite, "queue")
    notes = azurite.container(f"n{random.randrange(10**12)}", "hub")
    with Proxy(azurite.blobs) as blobs, Proxy(azurite.queues) as queues:
        section = (
            f'[queue]\nqueues = "http://127.0.0.1:{queues.port}/hub"\n'
            f'blobs = "http://127.0.0.1:{blobs.port}/hub"\nnotes = "{notes}"\n'
            'credential = { key = { env = "HUB_KEY" } }\n'
        )
        (world.home.root / "stack_hub.toml").write_text(world.hub + section)
        far = FarEnds(world.settings.stack_hub)
        hub = far.hub()
        assert hub is not None
        for one in (hub.letters, hub.receipts, hub.dead):
            one.create()
        world.scored()
        first = forwarding.forward(world.site, world.home.uplink, far)
        assert (first.sent.rows, first.worked.receipts, first.settled.packages) == (10, 0, [])
        assert world.names() == [] and not (world.site.root / "hub").exists(), "the function runs elsewhere"
        play_function(world, hub)
        second = forwarding.forward(world.site, world.home.uplink, far)
        assert second.settled.packages == ["north-00000001.zip"]
        assert world.bring_home(instance)["packages"] == 1
        assert forwarding.forward(world.site, world.home.uplink, far).acknowledged == 1
        versions = set(blobs.versions() + queues.versions())
        assert versions == {"2019-07-07"}
    with Outbox(world.site.outbox) as outbox:
        assert (outbox.counts().uploaded, outbox.counts().withheld) == (5, 5)


def play_function(world: World, hub: configured.Hub) -> None:
    """What `deploy/functions` does, with its own account."""
    key = signing.load_private(provision.private_key(world.site))
    secret = (world.site.keys / provision.PSEUDONYM_KEY).read_bytes()
    target = BlobUplink(world.azurite.account("cloud"), world.container, "north")

    def function(letter):
        rules = rulebook.read(hub.notes, "north", key)
        return Forwarder(target, hub.notes, rules, secret, key).forward(letter)

    assert handling.work(hub.letters, hub.receipts, hub.dead, function).receipts > 0
    assert not isinstance(hub.letters, EmbeddedQueue)
