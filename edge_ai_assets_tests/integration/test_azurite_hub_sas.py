"""A hand-signed signature on a real server, and what a hub's account hears of our clients."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta

import pytest

from edge_ai_assets.resources.ingestion.blob_landing import BlobLanding, LandingError
from edge_ai_assets.resources.mirror.blob_mirror import BlobMirror
from edge_ai_assets.resources.storage.account import HUB_API_VERSION
from edge_ai_assets.resources.storage.blob_notes import BlobNotes
from edge_ai_assets.resources.storage.hub_sas import container_sas
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.road.roads import UplinkError
from edge_ai_assets_tests.integration.azurite import Azurite, azurite
from edge_ai_assets_tests.integration.watched import watched

pytestmark = pytest.mark.integration
__all__ = ["azurite"]
HOUR = timedelta(hours=1)
NAME = "bergen-00000001.zip"


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.container(f"c{random.randrange(10**12)}", "hub")


@pytest.fixture
def signed(azurite, container):
    """The hub's account, by a signature of its key."""
    from azure.core.credentials import AzureSasCredential

    def signed(permissions: str, lasts: timedelta = HOUR, of: str = container, **options):
        until = datetime.now(UTC) + lasts
        own = azurite.account("hub").credential
        query = container_sas(own, of, permissions, until, https=False, **options)
        return watched(azurite.account("hub", credential=AzureSasCredential(query)))

    return signed


@pytest.fixture
def package(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(random.Random(1).randbytes(3 * 1024 * 1024))
    return path


def send(account, container, package):
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return BlobUplink(account, container, "bergen").send(package, NAME, digest, lambda first, last: None)


def test_a_package_travels_by_a_signature(signed, container, package):
    account = signed("rcw")
    assert send(account, container, package) == package.stat().st_size
    assert BlobUplink(account, container, "bergen").digest_of(NAME) is not None
    assert account.watch.versions() == {HUB_API_VERSION}


def test_what_it_does_not_allow_is_refused(signed, container, package, tmp_path):
    with pytest.raises(LandingError, match="refuses the credential"):
        BlobLanding(signed("rcw"), container, tmp_path / "landing").waiting()
    BlobLanding(signed("rl"), container, tmp_path / "landing").waiting()
    with pytest.raises(UplinkError, match="refuses the credential"):
        send(signed("rl"), container, package)


@pytest.mark.parametrize(
    "change",
    [{"lasts": -HOUR}, {"of": "other"}, {"start": datetime.now(UTC) + HOUR, "lasts": 2 * HOUR}],
    ids=["expired", "another container's", "not yet, or the clock is wrong"],
)
def test_one_that_does_not_count_is_refused(signed, container, package, change):
    with pytest.raises(UplinkError, match=r"refuses the credential.*expired.*clock here is right"):
        send(signed("rcw", **change), container, package)


def test_every_call_to_a_hub_is_of_a_version_that_it_knows(azurite, container, package, tmp_path):
    blobs, queues = watched(azurite.account("hub")), watched(azurite.account("hub", "queue"))
    send(blobs, container, package)
    uplink = BlobUplink(blobs, container, "bergen")
    uplink.probe(), uplink.acknowledgement(), uplink.digest_of(NAME)
    notes = BlobNotes(blobs, f"{container}-notes")
    notes.create(), notes.write("a", b"1", None), notes.read("a"), notes.read("b")
    queue = StorageQueue(queues, f"q{random.randrange(10**12)}")
    queue.create(), queue.send(b"x"), queue.peek(1), queue.count(), queue.receive(1, 1)
    lake = tmp_path / "lake"
    (lake / "raw_telemetry").mkdir(parents=True)
    (lake / "raw_telemetry/a").write_bytes(bytes(5 * 1024 * 1024))
    BlobMirror(blobs, container, lake, tmp_path / "notes").push(lake)
    BlobMirror(blobs, container, tmp_path / "back", tmp_path / "more").pull("raw_telemetry")
    assert BlobLanding(blobs, container, tmp_path / "landing").fetch().files
    assert len(blobs.watch.seen) > 20 and len(queues.watch.seen) >= 5
    assert blobs.watch.versions() | queues.watch.versions() == {HUB_API_VERSION}
