"""What a section of the settings makes: one thin function a service, None where it stays embedded.

Nothing is asked of a service here, and no secret is fetched before a function is called.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_ai_assets import profiles
from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile, HubQueue, StackHubProfile, Storage, Uplink
from edge_ai_assets.resources.identity import credentials
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.blob_notes import BlobNotes
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.hub.notes import Notes
from edge_ai_assets.returns.hub.queue import Queue
from edge_ai_assets.returns.road.pace import UNBOUNDED, Pace

if TYPE_CHECKING:
    from edge_ai_assets.resources.azure_ml.workspace import Workspace
    from edge_ai_assets.resources.training import Training

RENEW_SECONDS = 300
"""So long an account keeps its credential: then a renewed secret is taken up, and a token asked for anew."""
MEBIBYTE = 1024 * 1024
LETTERS, RECEIPTS, DEAD = "insights", "receipts", "insights-poison"
"""Queues. The host of Azure's functions moves what it gives up to the last one, whose name it makes."""


class Hub(NamedTuple):
    """A hub's own storage, as site and function share it."""

    letters: Queue
    receipts: Queue
    dead: Queue
    notes: Notes


def storage(profile: AzureProfile) -> Account | None:
    """Azure's storage account.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    return _storage(profile.storage, _turn()) if profile.storage else None


def uplink(profile: StackHubProfile, site: str, pace: Pace = UNBOUNDED) -> BlobUplink | None:
    """The road from a site to Azure's storage.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    account = uplink_account(profile)
    if profile.uplink is None or account is None:
        return None
    under_way = profile.uplink.mebibytes_under_way * MEBIBYTE
    return BlobUplink(account, profile.uplink.container, site, pace, under_way)


def uplink_account(profile: StackHubProfile) -> Account | None:
    """Azure's storage account, as a site sees it. SecretError when its secret cannot be fetched."""
    return _uplink(profile.uplink, _turn()) if profile.uplink else None


def hub(profile: StackHubProfile) -> Hub | None:
    """Queues and notes on the hub.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    if profile.queue is None:
        return None
    queues, blobs = hub_accounts(profile.queue)
    letters, receipts, dead = (StorageQueue(queues, name) for name in (LETTERS, RECEIPTS, DEAD))
    return Hub(letters, receipts, dead, BlobNotes(blobs, profile.queue.notes))


def hub_accounts(section: HubQueue) -> tuple[Account, Account]:
    """A hub's queues and its blobs. SecretError when their secret cannot be fetched."""
    return _hub(section, _turn())


def workspace(section: profiles.Training) -> Workspace:
    """The workspace that trains, and computes on Spark. SecretError when its secret cannot be fetched."""
    from edge_ai_assets.resources.azure_ml.workspace import Workspace

    return Workspace(
        section.subscription,
        section.resource_group,
        section.workspace,
        credentials.token(section.credential, section.ca),
        section.endpoint,
        section.ca,
    )


def training(profile: AzureProfile, home: Home) -> Training:
    """Where candidates are trained: jobs of the workspace, or here."""
    from edge_ai_assets.resources.training import TrainingHere

    if (section := profile.training) is None or profile.storage is None:
        return TrainingHere()
    from edge_ai_assets.resources.azure_ml.command_job import Target
    from edge_ai_assets.resources.azure_ml.training import TrainingOnAzure

    def reach() -> tuple[Workspace, Account]:
        account = storage(profile)
        assert account is not None
        return workspace(section), account

    given: dict[str, Any] = {"identity": section.identity, "hours": section.hours}
    given |= {"image": section.image} if section.image else {}
    target = Target(section.compute, section.datastore, section.experiment, **given)
    return TrainingOnAzure(reach, target, home, profile.storage.lake)


def _turn() -> int:
    return int(time.monotonic() // RENEW_SECONDS)


@lru_cache(maxsize=4)
def _storage(section: Storage, turn: int) -> Account:
    credential = credentials.credential(section.credential, section.endpoint, section.ca)
    return Account(section.endpoint, credential, ca=section.ca)


@lru_cache(maxsize=4)
def _uplink(section: Uplink, turn: int) -> Account:
    credential = credentials.credential(section.credential, section.endpoint, section.ca)
    return Account(section.endpoint, credential, section.api_version, ca=section.ca)


@lru_cache(maxsize=4)
def _hub(section: HubQueue, turn: int) -> tuple[Account, Account]:
    credential = credentials.credential(section.credential, section.blobs, section.ca)
    queues, blobs = (
        Account(endpoint, credential, section.api_version, ca=section.ca)
        for endpoint in (section.queues, section.blobs)
    )
    return queues, blobs
