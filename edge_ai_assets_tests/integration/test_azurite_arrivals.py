"""Packages from a real container to the inbox's folder: whole, once, resumed; acknowledgements back."""

from __future__ import annotations

import hashlib
import random

import pytest

from edge_ai_assets.resources.storage.blob_content import BLOCK as PART
from edge_ai_assets.resources.uplink.blob_arrivals import sync
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.azurite import azurite
from edge_ai_assets_tests.integration.faults import Proxy

pytestmark = pytest.mark.integration
__all__ = ["azurite"]


@pytest.fixture
def container(azurite):
    return azurite.container(f"c{random.randrange(10**12)}")


def put(azurite, container, name, data, **options):
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    client = azurite.account("cloud").container(container).get_blob_client(name)
    client.upload_blob(data, metadata=digest, **options)


def test_new_packages_come_once_and_nothing_else(azurite, container, tmp_path):
    for name in ("bergen/bergen-00000001.zip", "oslo/oslo-00000002.zip"):
        put(azurite, container, name, name.encode())
    for name in ("bergen/.ack", "bergen/oslo-00000001.zip", "bergen/deep/bergen-00000003.zip", "x.zip"):
        put(azurite, container, name, b"no package")
    account = azurite.account("cloud")
    assert sync(account, container, tmp_path).fetched == [
        "bergen/bergen-00000001.zip",
        "oslo/oslo-00000002.zip",
    ]
    assert (tmp_path / "oslo/oslo-00000002.zip").read_bytes() == b"oslo/oslo-00000002.zip"
    visible = [
        p for p in tmp_path.rglob("*") if p.is_file() and "/." not in str(p.relative_to(tmp_path.parent))
    ]
    assert len(visible) == 2
    (tmp_path / "oslo/oslo-00000002.zip").unlink()  # the inbox refused it
    assert sync(account, container, tmp_path).fetched == []


def test_what_is_too_large_or_damaged_stays(azurite, container, tmp_path):
    put(azurite, container, "bergen/bergen-00000001.zip", b"x" * 100)
    client = azurite.account("cloud").container(container).get_blob_client("bergen/bergen-00000002.zip")
    client.upload_blob(b"damaged", metadata={"sha256": "0" * 64})
    put(azurite, container, "bergen/bergen-00000003.zip", b"good")
    done = sync(azurite.account("cloud"), container, tmp_path, max_bytes=50)
    assert done.fetched == ["bergen/bergen-00000003.zip"]
    assert [name for name, _ in done.left] == ["bergen/bergen-00000001.zip", "bergen/bergen-00000002.zip"]
    assert not (tmp_path / "bergen/bergen-00000002.zip").exists()
    assert len(sync(azurite.account("cloud"), container, tmp_path).fetched) == 1


def test_no_more_than_the_limit_at_once(azurite, container, tmp_path):
    for number in range(1, 6):
        put(azurite, container, f"bergen/bergen-{number:08}.zip", b"x")
    account = azurite.account("cloud")
    counts = [len(sync(account, container, tmp_path, limit=2).fetched) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


def test_a_cut_keeps_what_came(azurite, container, tmp_path):
    data = random.Random(1).randbytes(3 * PART + 5)
    put(azurite, container, "bergen/bergen-00000001.zip", data)
    with Proxy(azurite.blobs) as proxy:
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        proxy.back_after = 2 * PART + 50_000
        with pytest.raises(LinkDown):
            sync(account, container, tmp_path)
        (partial,) = (tmp_path / "bergen/.arriving").iterdir()
        assert partial.stat().st_size >= PART
        assert not list((tmp_path / "bergen").glob("*.zip"))
        came = partial.stat().st_size
        proxy.back_after, before = None, proxy.came
        assert sync(account, container, tmp_path).fetched == ["bergen/bergen-00000001.zip"]
        assert proxy.came - before < len(data) - came + 100_000
    assert (tmp_path / "bergen/bergen-00000001.zip").read_bytes() == data


def test_acknowledgements_go_up_when_they_change(azurite, container, tmp_path):
    account = azurite.account("cloud")
    uplink = BlobUplink(account, container, "bergen")
    (tmp_path / "bergen").mkdir()
    for data in (b"first", b"second"):
        (tmp_path / "bergen" / acks.NAME).write_bytes(data)
        assert sync(account, container, tmp_path).acknowledged == ["bergen"]
        assert sync(account, container, tmp_path).acknowledged == []
        assert uplink.acknowledgement() == data
