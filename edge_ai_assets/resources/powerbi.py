"""Power BI: refreshing a semantic model, by three routes of its REST API.

A basic refresh: the only kind that every capacity has. It is asked for again when one was under way, which
may have read tables from before; one more does no harm, so neither does a lost answer or a restart.
Not by dagster-powerbi: it follows whichever refresh came last, takes only a client secret and no token
credential, and reads the whole workspace to load the code location.
Source: https://learn.microsoft.com/rest/api/power-bi/datasets/refresh-dataset-in-group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from edge_ai_assets.profiles import Publishing
from edge_ai_assets.resources.calling.control_plane import Answer, ControlPlane
from edge_ai_assets.resources.calling.patience import Patience, Refused
from edge_ai_assets.resources.identity import credentials

SCOPE = "https://analysis.windows.net/powerbi/api/.default"
UNDER_WAY = "Unknown"
"""How the service calls a refresh that has not ended."""
LONGEST = 5 * 3600.0
"""Seconds after which nobody waits any more: Power BI itself ends a refresh then, on its largest capacity."""
LATEST = 50
"""Refreshes that are looked at, the last ones."""
POLL = Patience(first=5.0, most=60.0)


class RefreshFailed(Exception):
    """A refresh came to an end and did not succeed."""


class Refresh(msgspec.Struct, frozen=True, rename="camel"):
    """A refresh, as the service tells it."""

    request_id: str
    status: str
    """Unknown while it goes on; Completed, Failed, Disabled, Cancelled."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    service_exception_json: str | None = None

    @property
    def seconds(self) -> float:
        if self.start_time is None or self.end_time is None:
            return 0.0
        return (self.end_time - self.start_time).total_seconds()


class _Refreshes(msgspec.Struct, frozen=True):
    value: list[Refresh]


@dataclass(frozen=True)
class SemanticModel:
    """One model of one workspace.

    Args:
        service: Power BI's REST API.
        workspace, model: their ids.
        patience: with outages of the service.
        longest: seconds that a refresh is waited for.
    """

    service: ControlPlane
    workspace: str
    model: str
    patience: Patience = field(default_factory=Patience)
    longest: float = LONGEST

    def refresh(self, log: Callable[[str], None]) -> Refresh:
        """Refresh the model from its sources as they are now, and wait for it. An interrupt leaves it going
        on: a basic refresh cannot be cancelled.

        Args:
            log: told what happens, in sentences.

        Raises:
            RefreshFailed: it failed, or takes too long.
            Unavailable: the service was out of reach for longer than patience lasts.
            Refused: the service refuses: permission, or more refreshes a day than the capacity has.
        """
        end = self.patience.clock() + self.longest
        asked = ""
        for pause in POLL.pauses():
            if not asked:
                asked = self.patience.persist(lambda: self._ask(log))
            else:
                found = next((one for one in self._refreshes() if one.request_id == asked), None)
                if found is not None and found.status != UNDER_WAY:
                    return self._ended(found)
            if self.patience.clock() + pause > end:
                said = f"refresh {asked}" if asked else "another refresh"
                raise RefreshFailed(
                    f"{said} of semantic model {self.model} takes more than {self.longest / 3600:g} hours"
                )
            self.patience.sleep(pause)
        raise AssertionError("pauses have no end")

    def look(self) -> None:
        """Ask whether the model is there; Unavailable or Refused when not."""
        self._call(f"looking for semantic model {self.model}", "GET", "")

    def _ask(self, log: Callable[[str], None]) -> str:
        """Id of the refresh that was asked for; '' while another goes on: that the service answers by 400."""
        body = {"notifyOption": "NoNotification"}
        try:
            answer = self._call(f"refreshing semantic model {self.model}", "POST", "/refreshes", body)
        except Refused as refused:
            if refused.status != 400:
                raise
            others = [one for one in self._refreshes() if one.status == UNDER_WAY]
            if not others:
                raise
            log(f"refresh {others[0].request_id} goes on and may read older tables: ours comes after it")
            return ""
        asked = answer.headers.get("Location", "").rstrip("/").rpartition("/")[2]
        asked = asked or answer.headers.get("x-ms-request-id", "")
        if not asked:
            raise Refused(f"{answer.doing}: the answer is not as documented: it names no refresh")
        log(f"refresh {asked} of semantic model {self.model} was asked for")
        return asked

    def _refreshes(self) -> list[Refresh]:
        doing, query = f"following the refresh of semantic model {self.model}", {"$top": str(LATEST)}
        answer = self.patience.persist(lambda: self._call(doing, "GET", "/refreshes", query=query))
        return answer.read(_Refreshes).value

    def _ended(self, found: Refresh) -> Refresh:
        if found.status == "Completed":
            return found
        why = " ".join((found.service_exception_json or "no reason given").split())[:1_000]
        raise RefreshFailed(
            f"refresh {found.request_id} of semantic model {self.model}: {found.status}: {why}"
        )

    def _call(
        self,
        doing: str,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        model = f"/v1.0/myorg/groups/{self.workspace}/datasets/{self.model}"
        return self.service.call(doing, method, model + path, query=query, body=body)


def configured(section: Publishing) -> SemanticModel:
    """The model of the settings.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    service = ControlPlane(section.endpoint, credentials.token(section.credential), SCOPE)
    return SemanticModel(service, section.workspace, section.semantic_model)
