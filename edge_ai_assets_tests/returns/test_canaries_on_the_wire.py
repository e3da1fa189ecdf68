"""What may not leave is in no byte that a site sends to an account: addresses, headers, what it put there."""

from __future__ import annotations

import random
import struct
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.egress.ledger import Ledger
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.returns.road.uplink import upload
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets_tests.integration.azurite import Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.returns import canaries
from edge_ai_assets_tests.returns.test_canaries import AT, filled

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("counting")]
__all__ = ["azurite"]


def sent(
    azurite: Azurite, folder: Path, policy: Policy, contract: Contract, key: Ed25519PrivateKey
) -> tuple[bytes, list[str]]:
    """All bytes of the uplink's connections, and where a canary is in what the account has now."""
    container = azurite.container(f"c{random.randrange(10**12)}")
    with Outbox(folder / "o.db") as outbox, Proxy(azurite.blobs) as proxy:
        filled(outbox, random.Random(1), 2_000)
        while insights.derive(outbox):
            pass
        spool = folder / "spool"
        step = partial(pack, outbox, "bergen", policy, {"r1": contract}, key, spool, at=AT)
        while step(limit=500, events=canaries.events):
            pass
        account = azurite.account("cloud", endpoint=f"http://127.0.0.1:{proxy.port}/cloud")
        done = upload(outbox, spool, BlobUplink(account, container, "bergen"), Ledger(folder / "ledger"))
        assert done.packages > 2 and done.waiting == 0 and outbox.counts().conserved
        there = azurite.account("cloud").container(container)
        found = [there.download_blob(blob.name).readall() for blob in there.list_blobs()]
        assert len(found) == done.packages
        leaks = []
        for data in found:
            assert data in bytes(proxy.sent), "it came by this wire, whole"
            (folder / "came.zip").write_bytes(data)
            leaks += canaries.leaks(folder / "came.zip")
        return bytes(proxy.sent), leaks


def test_no_canary_is_in_any_byte_of_the_wire(azurite, tmp_path, with_kinds, contract, key):
    wire, leaks = sent(azurite, tmp_path, with_kinds(*canaries.KINDS), contract, key)
    assert leaks == []
    assert canaries.TEXT.encode() not in wire and struct.pack("<d", canaries.NUMBER) not in wire


def test_a_leak_would_be_found(azurite, tmp_path, with_kinds, contract, key):
    policy = with_kinds(*canaries.KINDS, Secret="as_is")
    _, leaks = sent(azurite, tmp_path, policy, contract, key)
    assert leaks
