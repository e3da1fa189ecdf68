"""The connected form with real queues, blobs and the real worker library: from the outbox to Azure's tables.

The host around the function is a contract stub, `functions_host`.
"""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_ai_assets.resources.storage.account import HUB_API_VERSION
from edge_ai_assets.resources.storage.blob_notes import BlobNotes
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.resources.uplink.blob_arrivals import sync
from edge_ai_assets.returns.egress import ledger
from edge_ai_assets.returns.hub import enqueuing, letters, rulebook, settling
from edge_ai_assets.returns.hub.rulebook import Rulebook
from edge_ai_assets.returns.inbox import inbox, tables
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.returns.conftest import SITE_KEY, batch, contract, key, record, small

pytestmark = pytest.mark.integration
__all__ = ["azurite", "batch", "contract", "key", "record", "small"]
CHECKOUT = Path(__file__).resolve().parents[2]
KILLS = 12


class Plant:
    """A site with its hub in Azurite, seen through proxies that note every request, and Azure."""

    def __init__(self, folder: Path, server: Azurite, blobs: Proxy, queues: Proxy, rules: Rulebook, key: Any):
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        self.folder, self.server, self.key, self.hub = folder, server, key, (blobs, queues)
        self.outbox = Outbox(folder / "outbox.db")
        self.container = server.container(f"c{random.randrange(10**12)}")
        hub = server.account("hub", endpoint=f"http://127.0.0.1:{blobs.port}/hub")
        self.notes = BlobNotes(hub, "egress")
        self.notes.create()
        self.queues = f"http://127.0.0.1:{queues.port}/hub"
        for name in ("insights", "receipts", "insights-poison"):
            self.queue(name).create()
            server.account("hub", "queue").queue(name).clear_messages()
        self.site = f"site{random.randrange(10**9)}"
        rulebook.publish(self.notes, self.site, rules, key)
        self.environment = {
            "HUB_ACCOUNT": "hub",
            "HUB_KEY": KEYS["hub"],
            "HUB_BLOBS": hub.endpoint,
            "HUB_QUEUES": self.queues,
            "CLOUD_BLOBS": server.account("cloud").endpoint,
            "CLOUD_CONTAINER": self.container,
            "CLOUD_SAS": self._signature(),
            "EDGE_AI_SITE": self.site,
            "EDGE_AI_PSEUDONYM_KEY": base64.b64encode(SITE_KEY).decode(),
            "EDGE_AI_SIGNING_KEY": key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ).decode(),
        }

    def _signature(self) -> str:
        from datetime import UTC, datetime, timedelta

        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(UTC) + timedelta(hours=1)
        return generate_container_sas(
            "cloud", self.container, account_key=KEYS["cloud"], permission="rcw", expiry=expiry
        )

    def queue(self, name: str) -> StorageQueue:
        return StorageQueue(self.server.account("hub", "queue", endpoint=self.queues), name)

    def fill(self, batch: Any, rows: int) -> None:
        self.outbox.append([batch(rows)])
        self.outbox.add_feedback([Feedback(self.outbox.counts().scored, True, "confirmed", "operator", 7)])
        insights.derive(self.outbox)

    def enqueue(self) -> enqueuing.Sent:
        return enqueuing.enqueue(self.outbox, self.site, self.queue("insights"), self.folder)

    def settle(self) -> settling.Settled:
        return settling.settle(
            self.outbox,
            self.queue("receipts"),
            self.notes,
            ledger.Ledger(self.folder / "ledger.jsonl"),
            self.folder / "spool",
            site=self.site,
            dead=self.queue("insights-poison"),
        )

    def retry(self) -> int:
        return settling.retry(self.queue("insights-poison"), self.queue("insights"), self.queue("receipts"))

    def check(self, anomalies: int, words: int, withheld: int) -> None:
        """Exactly what complies is in Azure's tables, once, and the outbox says so."""
        sync(self.server.account("cloud"), self.container, self.folder / "arrived")
        keys = {self.site: [self.key.public_key()]}
        received = inbox.receive(
            self.folder / "arrived", self.folder / "tables", keys, self.folder / "refused"
        )
        assert received.refused == [] and received.waiting == [] and received.repeated == 0
        assert tables.count(self.folder / "tables", "insights") == anomalies
        assert tables.count(self.folder / "tables", "feedback") == words
        counts = self.outbox.counts()
        assert counts.conserved and counts == self.outbox.recount()
        assert (counts.uploaded, counts.withheld, counts.pending) == (anomalies, withheld, 0)
        assert len(self.outbox.packages()) == received.packages
        for proxy in self.hub:
            assert set(proxy.versions()) == {HUB_API_VERSION}


@pytest.fixture
def plant(tmp_path: Path, azurite: Azurite, small: Any, contract: Any, key: Any) -> Iterator[Plant]:
    with Proxy(azurite.blobs) as blobs, Proxy(azurite.queues) as queues:
        yield Plant(tmp_path, azurite, blobs, queues, Rulebook(small, {"r1": contract}), key)


@pytest.fixture
def host(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Any:
    from edge_ai_assets_tests.integration.functions_host import Host

    for name, value in plant.environment.items():
        monkeypatch.setenv(name, value)
    return Host()


def test_from_the_outbox_to_the_tables(plant, host, batch):
    plant.fill(batch, 300)
    sent = plant.enqueue()
    while host.turn():
        pass
    assert host.errors == []
    settled = plant.settle()
    assert settled.receipts == sent.letters and settled.waiting == 0
    plant.check(150, 1, 150)


def test_what_azure_refuses_ends_with_its_reason(plant, host, batch, monkeypatch):
    plant.fill(batch, 2)
    plant.enqueue()
    monkeypatch.setenv("CLOUD_CONTAINER", "elsewhere")
    deadline = time.monotonic() + 120
    while plant.queue("insights").count() and time.monotonic() < deadline:
        host.turn()
    assert len(host.errors) == 3 * 4, "the fifth try is the last, and notes why"
    dead = [letters.exhume(m.body, m.tries, m.sent_at) for m in plant.queue("insights-poison").peek(32)]
    assert len(dead) == 3 and all("403" in each.reason or "no such place" in each.reason for each in dead)
    assert all("sig=" not in each.reason for each in dead)
    assert plant.outbox.counts().pending == 2
    monkeypatch.setenv("CLOUD_CONTAINER", plant.container)
    assert plant.retry() == 3
    while host.turn():
        pass
    plant.settle()
    plant.check(1, 1, 1)


@pytest.mark.slow
def test_hosts_that_are_killed_anywhere(plant, batch):
    """Kill -9, again and again, while the site goes on scoring."""
    chance = random.Random(7)
    environment = {**os.environ, **plant.environment, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_ai_assets_tests.integration.functions_host"]
    server = subprocess.Popen(
        command, env=environment, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin and server.stdout
    scored = words = 0

    def life(seconds: float) -> None:
        server.stdin.write("\n")
        server.stdin.flush()
        child = int(server.stdout.readline())
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert int(server.stdout.readline()) == signal.SIGKILL

    try:
        for _ in range(KILLS):
            rows = 2 * chance.randint(1, 4)
            plant.fill(batch, rows)
            scored, words = scored + rows, words + 1
            plant.enqueue()
            life(chance.uniform(0.02, 0.5))
            if chance.random() < 0.3:
                plant.settle()
        deadline, seconds = time.monotonic() + 240, 1.0
        while plant.outbox.counts().pending or plant.outbox.waiting_feedback(1):
            assert time.monotonic() < deadline, f"{plant.outbox.counts()}, {plant.queue('insights').count()}"
            seconds *= 1.2  # a busy machine may need longer for one letter
            life(seconds)
            plant.retry()
            plant.settle()
    finally:
        server.stdin.close()
        server.kill()
        server.wait(60)
    plant.check(scored // 2, words, scored // 2)
    assert len(plant.outbox.packages()) == len({p.digest for p in plant.outbox.packages()}) <= 2 * KILLS
