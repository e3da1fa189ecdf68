"""A workspace of Azure Machine Learning as we talk to it: jobs by name, model versions, errors as sentences.

What a job does is `command_job`'s, when one is needed `training`'s. The SDK takes seconds to import: only
what talks to a workspace pays for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import dagster as dg

from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Job, Model
    from azure.core.credentials import TokenCredential

T = TypeVar("T")
ARM = "https://management.azure.com"
CLOUDS = {
    "management.azure.com": "AzureCloud",
    "management.chinacloudapi.cn": "AzureChinaCloud",
    "management.usgovcloudapi.net": "AzureUSGovernment",
}
"""Clouds that the SDK knows, by their Resource Manager; of another one it is told."""
BUSY = frozenset({408, 429})
WHY_SECONDS = 60.0
ENDED = frozenset({"Completed", "Failed", "Canceled"})


@dataclass(frozen=True)
class Workspace:
    """One workspace.

    Args:
        credential: gives tokens for Azure Resource Manager; never shown.
        endpoint: Azure Resource Manager's.
        ca: certificates that are trusted there instead of the system's.
        patience: with outages. What is asked for here may be asked for twice.
        connect_seconds: before a server that takes no connection is out of reach.
        read_seconds: before one that does not answer is.
    """

    subscription: str
    resource_group: str
    name: str
    credential: TokenCredential = field(repr=False)
    endpoint: str = ARM
    ca: Path | None = None
    patience: Patience = field(default_factory=lambda: Patience(seconds=3600.0), repr=False)
    connect_seconds: float = 10.0
    read_seconds: float = 60.0

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    def find(self, name: str) -> Job | None:
        """The job of this name; None if there is none."""
        return self._persist(f"asking for job {name}", lambda: self._client.jobs.get(name))

    def start(self, name: str, make: Callable[[], Job]) -> Job:
        """Submit a job, unless there is one of its name already: of a request that got no answer nobody knows
        whether it was heard."""

        def submit() -> Job:
            return self._there(name) or self._client.jobs.create_or_update(make())

        started = self._persist(f"submitting job {name}", submit)
        if started is None:
            raise Refused(
                f"submitting job {name}: {self.host} knows no such workspace or compute target: check the "
                "names"
            )
        return started

    def cancel(self, name: str) -> None:
        """Ask for the end of a job; it is not waited for."""
        doing = f"cancelling job {name}"
        self._persist(doing, lambda: self._client.jobs.begin_cancel(name, polling=False), self._short)

    def why(self, name: str) -> str:
        """What a failed job failed of, in Azure Machine Learning's words, as far as they can be had."""
        told: list[str] = []
        # The client follows a run until its history shows its end, which may be late, or never.
        thread = threading.Thread(target=lambda: told.append(self._told(name)), daemon=True)
        thread.start()
        thread.join(WHY_SECONDS)
        return told[0] if told else f"its reason was not there within {WHY_SECONDS:g} seconds"

    def register(self, model: Model) -> None:
        """Make a version of a model, or replace its tags."""
        doing = f"registering model {model.name}:{model.version}"
        if self._persist(doing, lambda: self._client.models.create_or_update(model)) is None:
            raise Refused(f"{doing}: {self.host} knows no such workspace: check the names")

    def tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Add tags to a version of a model.

        Raises:
            Refused: there is no such version.
        """

        def add() -> bool:
            found = self._client.models.get(name, version)
            found.tags = {**found.tags, **tags}
            self._client.models.create_or_update(found)
            return True

        if self._persist(f"tagging model {name}:{version}", add) is None:
            raise Refused(f"{self.host}: workspace {self.name} has no model {name}:{version}: train it again")

    @property
    def _short(self) -> Patience:
        """As long as somebody waits who wants to be gone."""
        return Patience(30.0, 1.0, 5.0, self.patience.sleep, self.patience.clock)

    @cached_property
    def _client(self) -> MLClient:
        from azure.ai.ml import MLClient

        cloud: dict[str, Any] = {"cloud": CLOUDS.get(self.host, self.host)}
        if self.host not in CLOUDS:
            places = ("azure_portal", "resource_manager", "active_directory", "aml_resource_id")
            cloud["cloud_metadata"] = {
                **dict.fromkeys((*places, "registry_discovery_endpoint"), self.endpoint),
                "storage_endpoint": self.host,
            }
        trusted = {"connection_verify": str(self.ca)} if self.ca else {}
        return MLClient(
            self.credential,
            self.subscription,
            self.resource_group,
            self.name,
            enable_telemetry=False,
            # Our own patience knows what may be asked for twice, and says what it waits for.
            retry_total=0,
            connection_timeout=self.connect_seconds,
            read_timeout=self.read_seconds,
            **cloud,
            **trusted,
        )

    def _told(self, name: str) -> str:
        from azure.ai.ml.exceptions import JobException

        def ask() -> str:
            try:
                self._client.jobs.stream(name)
            except JobException as error:
                return _innermost(str(error.message))
            except (KeyError, ValueError) as error:
                # The client takes what answers for the workspace's addresses.
                raise Unavailable(f"something else than a workspace answers ({error!r})") from error
            return ""

        try:
            return self._persist(f"asking why job {name} failed", ask, self._short) or "no reason given"
        except (Unavailable, Refused) as error:
            return f"its reason could not be fetched: {error}"

    def _there(self, name: str) -> Job | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found: Job = self._client.jobs.get(name)
        except ResourceNotFoundError:
            return None
        return found

    def _persist(self, doing: str, ask: Callable[[], T], patience: Patience | None = None) -> T | None:
        """What `ask` gives; None when there is no such thing.

        Raises:
            Unavailable: an outage lasted for longer than there is patience.
            Refused: trying again does not help.
        """
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        renewed = False

        def attempt() -> T | None:
            nonlocal renewed
            try:
                return ask()
            except ResourceNotFoundError:
                return None
            except AzureError as error:
                outage = self._understood(doing, error, renewed)
                renewed = getattr(error, "status_code", None) == 401
            if isinstance(outage, Unavailable):
                dg.get_dagster_logger().warning(f"{outage}; trying again")
            raise outage

        return (patience or self.patience).persist(attempt)

    def _understood(self, doing: str, error: Exception, renewed: bool) -> Unavailable | Refused:
        status, said = getattr(error, "status_code", None), _line(error)
        where = f"{doing}: {self.host}"
        if status is None:
            # A login service that is out of reach is one of these too.
            return Unavailable(f"{where} is out of reach ({type(error).__name__}: {said})")
        if status >= 500 or status in BUSY:
            wait = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
            return Unavailable(
                f"{where} is too busy or out of order ({status})",
                wait=float(wait) if wait.isdigit() else None,
            )
        if status == 401 and not renewed:
            return Unavailable(f"{where} takes the token for expired (401)")
        if status in (401, 403):
            return Refused(
                f"{where} refuses the credential ({status}): {said}; check that it belongs to this tenant, "
                "has the role AzureML Data Scientist in the workspace, and that the clock here is right",
                status,
            )
        return Refused(f"{where} refuses ({status}): {said}", status)


def state(job: Job) -> str:
    """What a job says of itself; those in ENDED are its last."""
    return str(getattr(job.status, "value", job.status))


def studio(job: Job) -> str:
    """Where people look at a job; '' when the workspace does not say."""
    services = job.services or {}
    return str(services["Studio"].endpoint or "") if "Studio" in services else ""


def _innermost(said: str) -> str:
    """The message of the innermost error in what the SDK makes of a failed run."""
    try:
        error = json.loads(said[said.index("{") :])["error"]
    except (ValueError, KeyError):
        return " ".join(said.split())
    return str(error.get("message") or error.get("code") or "")


def _line(error: Exception) -> str:
    return (str(getattr(error, "message", "") or error).strip().splitlines() or [""])[0][:300]
