"""What settings make of a site's roads, before anything is asked of a service."""

from __future__ import annotations

import dagster as dg
import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.home import Home
from edge_ai_assets.profiles import StackHubProfile
from edge_ai_assets.resources.identity.secret import SecretError
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.uplink import DiodeUplink, FolderUplink
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import connecting, definitions, forwarding_sensor
from edge_ai_assets.stack_hub.far_ends import FarEnds, SwitchedUplink

pytest.importorskip("azure.storage.queue", reason="the extra with Azure's storage clients")
CASE = """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites:
- {name: link}
- {name: diode, road: diode}
- {name: media, road: media}
- {name: queue, road: queue}
"""
KEY = {"key": {"env": "A_KEY"}}
UPLINK = {"uplink": {"endpoint": "https://acct.blob.core.windows.net", "credential": KEY}}
QUEUE = {"queue": {"queues": "https://a.queue.hub.example", "blobs": "https://a.blob.hub.example"}}
QUEUE["queue"]["credential"] = KEY


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "a2V5")
    return Home(tmp_path)


def far(*sections: dict[str, object]) -> FarEnds:
    return FarEnds(
        StackHubProfile.model_validate({name: each for one in sections for name, each in one.items()})
    )


@pytest.mark.parametrize(
    ("site", "sections", "kind"),
    [
        ("link", [], FolderUplink),
        ("link", [UPLINK], SwitchedUplink),
        ("link", [QUEUE], FolderUplink),
        ("diode", [], DiodeUplink),
        ("diode", [UPLINK], DiodeUplink),
        ("media", [UPLINK, QUEUE], type(None)),
        ("queue", [UPLINK, QUEUE], type(None)),
    ],
)
def test_the_road_of_a_site(home, site, sections, kind):
    way = connecting.road(home.site(site), usecases.loads(CASE), home.uplink, far(*sections))
    assert type(way) is kind
    if kind is SwitchedUplink:
        assert way.destination == "https://acct.blob.core.windows.net/uplink/link" and way.answers


def test_a_link_that_was_cut_asks_nobody(home, tmp_path):
    way = connecting.road(home.site("link"), usecases.loads(CASE), home.uplink, far(UPLINK))
    way._road = None  # whatever is asked of it fails
    connecting.Link(home.site("link").root).cut()
    for ask in (way.probe, way.acknowledgement, lambda: way.digest_of("x")):
        with pytest.raises(LinkDown, match="edge-ai link up"):
            ask()
    with pytest.raises(LinkDown):
        way.send(tmp_path, "x", "0", lambda first, last: None)


def test_no_secret_is_fetched_before_it_is_used(home, monkeypatch):
    monkeypatch.delenv("A_KEY")
    settings = Settings(home=home.root, stack_hub=StackHubProfile.model_validate({**UPLINK, **QUEUE}))
    definitions.build_defs(settings=settings)
    with pytest.raises(SecretError, match="A_KEY"):
        far(QUEUE).hub()


def test_a_hub_s_queue_is_one_site_s(home):
    sensor = forwarding_sensor.insights_queued(home, ["north", "south"], far(QUEUE))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(dg.Failure, match=r"serves one site, 2 have the road queue \(north, south\)"),
    ):
        sensor(dg.build_sensor_context(instance=instance))


def test_resources_that_are_given_come_before_settings(home):
    mine = far(UPLINK)
    defs = definitions.build_defs(settings=Settings(home=home.root), resources={"far_ends": mine})
    assert defs.resources["far_ends"] is mine
    assert definitions.build_defs(settings=Settings(home=home.root)).resources["far_ends"] == FarEnds()
