"""`edge-ai doctor` against a real storage server: each injected misconfiguration gets its own cause."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from edge_ai_assets.doctor import storage
from edge_ai_assets.doctor.finding import Cause, Finding
from edge_ai_assets.profiles import AzureProfile, StackHubProfile
from edge_ai_assets.resources import configured
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, azurite

pytestmark = pytest.mark.integration
__all__ = ["azurite"]


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CLOUD_KEY", KEYS["cloud"])
    monkeypatch.setenv("HUB_KEY", KEYS["hub"])
    monkeypatch.setenv("OTHER_KEY", "b3RoZXI=")
    return azurite.container(f"c{random.randrange(10**12)}")


def signed(container: str, permission: str, hours: float = 1) -> str:
    from azure.storage.blob import generate_container_sas

    expiry = datetime.now(UTC) + timedelta(hours=hours)
    return generate_container_sas(
        "cloud", container, account_key=KEYS["cloud"], permission=permission, expiry=expiry
    )


def uplink(azurite: Azurite, container: str, credential: dict[str, object] | None = None) -> Finding:
    section = {"endpoint": f"http://127.0.0.1:{azurite.blobs}/cloud", "container": container}
    who = credential or {"key": {"env": "CLOUD_KEY"}}
    return storage.uplink(StackHubProfile.model_validate({"uplink": {**section, "credential": who}}))


def test_all_is_well_and_nothing_is_left_there(azurite, container):
    found = uplink(azurite, container)
    assert (found.cause, found.detail) == (None, "answers, 2 calls")
    assert list(azurite.account("cloud").container(container).list_blob_names()) == []


@pytest.mark.parametrize(
    ("permission", "hours", "cause", "step"),
    [
        ("rcw", 1, None, ""),
        ("rc", 1, Cause.PERMISSION, "writing"),
        ("cw", 1, Cause.PERMISSION, "reading"),
        ("rcw", -1, Cause.EXPIRED, "writing"),
    ],
)
def test_signatures(azurite, container, monkeypatch, permission, hours, cause, step):
    monkeypatch.setenv("A_SAS", signed(container, permission, hours))
    found = uplink(azurite, container, {"sas": {"env": "A_SAS"}})
    assert found.cause is cause and found.where.endswith(step)


def test_a_wrong_key_a_missing_container_another_account(azurite, container):
    assert uplink(azurite, container, {"key": {"env": "OTHER_KEY"}}).cause is Cause.CREDENTIAL
    assert uplink(azurite, "elsewhere").cause is Cause.MISSING
    who = {"key": {"env": "CLOUD_KEY"}, "account": "hub"}
    assert uplink(azurite, container, who).cause in (Cause.CREDENTIAL, Cause.MISSING)


def test_azure_s_account(azurite, container):
    section = {
        "endpoint": f"http://127.0.0.1:{azurite.blobs}/cloud",
        "credential": {"key": {"env": "CLOUD_KEY"}},
    }
    names = dict.fromkeys(("lake", "landing", "uplink", "site"), container)
    assert storage.storage(AzureProfile.model_validate({"storage": {**section, **names}})).cause is None
    names["landing"] = "elsewhere"
    found = storage.storage(AzureProfile.model_validate({"storage": {**section, **names}}))
    assert found.cause is Cause.MISSING and "elsewhere" in found.where


def test_a_hub(azurite, container):
    notes = azurite.container(f"n{random.randrange(10**12)}", "hub")
    section = {
        "queues": f"http://127.0.0.1:{azurite.queues}/hub",
        "blobs": f"http://127.0.0.1:{azurite.blobs}/hub",
        "credential": {"key": {"env": "HUB_KEY"}},
        "notes": notes,
    }
    profile = StackHubProfile.model_validate({"queue": section})
    queues = azurite.account("hub", "queue")
    for name in (configured.LETTERS, configured.RECEIPTS, configured.DEAD):
        found = storage.queue(profile)
        assert found.cause is Cause.MISSING and found.where.endswith(f"queue {name}")
        queues.queue(name).create_queue()
    assert storage.queue(profile).cause is None
    for name in (configured.LETTERS, configured.RECEIPTS, configured.DEAD):
        queues.queue(name).delete_queue()


def test_a_server_that_hangs(azurite, container, monkeypatch):
    monkeypatch.setattr(storage, "READ_SECONDS", 0.7)
    azurite.pause()
    try:
        assert uplink(azurite, container).cause is Cause.TIMEOUT
    finally:
        azurite.resume()
