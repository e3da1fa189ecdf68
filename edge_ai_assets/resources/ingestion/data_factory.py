"""Data Factory: the routes about runs of one pipeline, and what they answer.

When a run is started and how it is followed is `pipeline_run`'s work; what Dagster shows of it that of the
asset `lake/landing` and its sensor.

By plain HTTP: five routes in JSON. The client library for them would bring 7 MB and its own retries, which
repeat a POST after a 500, and here that is a second run of the pipeline.
Source: https://learn.microsoft.com/rest/api/datafactory, API version 2018-06-01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from edge_ai_assets.profiles import Ingestion
from edge_ai_assets.resources.calling.control_plane import Answer, ControlPlane
from edge_ai_assets.resources.calling.patience import Patience, Unavailable
from edge_ai_assets.resources.identity import credentials

T = TypeVar("T")
API_VERSION = {"api-version": "2018-06-01"}
MARK = "dagster_run"
"""Parameter of the pipeline that says which Dagster run asked for the pipeline's run. The pipeline declares
it (a string, empty by default); its activities need not use it. It is the only thing about a run that we give
and the service gives back, so it is how a run is found again whose number was never heard."""
UNDER_WAY = frozenset({"Queued", "InProgress", "Canceling"})
CANCELLING = 30.0
"""Seconds for which cancelling is tried: whoever interrupted us waits for it."""
SAID = 500
"""Characters of what a run or an activity says of itself that people are shown: it may be megabytes."""
SETTLES = 30.0
"""Seconds after which a run whose start had no answer is looked for."""


class PipelineRun(msgspec.Struct, frozen=True, rename="camel"):
    """A run of a pipeline, as the service tells it."""

    run_id: str
    pipeline_name: str
    status: str
    """Queued, InProgress, Canceling; Succeeded, Failed, Cancelled."""
    message: str | None = None
    parameters: dict[str, Any] | None = None
    invoked_by: dict[str, Any] | None = None
    run_start: datetime | None = None
    run_end: datetime | None = None
    last_updated: datetime | None = None
    duration_in_ms: int | None = None

    @property
    def says(self) -> str:
        """Its message; '' without one."""
        return (self.message or "")[:SAID]

    @property
    def under_way(self) -> bool:
        return self.status in UNDER_WAY

    @property
    def mark(self) -> str:
        """Id of the Dagster run that asked for it; '' when somebody else did."""
        return str((self.parameters or {}).get(MARK) or "")


class ActivityRun(msgspec.Struct, frozen=True, rename="camel"):
    """What one activity of a run did."""

    activity_name: str
    activity_type: str | None = None
    status: str | None = None
    duration_in_ms: int | None = None
    output: Any = None
    error: dict[str, Any] | None = None

    def number(self, *names: str) -> int | None:
        """The first of these numbers that the output has; activities of other kinds than copies have none."""
        told = self.output if isinstance(self.output, dict) else {}
        return next((told[name] for name in names if isinstance(told.get(name), int)), None)

    @property
    def problem(self) -> str:
        """Code and message of its error; '' without one."""
        told = self.error or {}
        said = ": ".join(str(told[name])[: 2 * SAID] for name in ("errorCode", "message") if told.get(name))
        return " ".join(said.split())[:SAID]


class _Page(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    value: list[T]
    continuation_token: str | None = None


class _Created(msgspec.Struct, frozen=True, rename="camel"):
    run_id: str


@dataclass(frozen=True)
class DataFactory:
    """One pipeline of one factory.

    Args:
        service: Azure Resource Manager.
        subscription, resource_group, factory, pipeline: by name.
        parameters: of the pipeline, given to each run that we start.
        patience: with outages of the service.
    """

    service: ControlPlane
    subscription: str
    resource_group: str
    factory: str
    pipeline: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)

    def start(self, mark: str) -> str:
        """Start a run that carries a mark; its id. Tried once.

        Raises:
            Unavailable: there was no answer. The run may have been started: whoever tries again looks for it
                first. Should the list not show it by then it is started twice: the same files are landed
                again, and the lake takes each content once.
        """
        body = {**self.parameters, MARK: mark}
        try:
            answer = self._call(
                f"starting pipeline {self.pipeline}", "POST", f"{self._pipeline}/createRun", body=body
            )
        except Unavailable as outage:
            if not outage.done:
                raise
            raise Unavailable(str(outage), done=True, wait=max(SETTLES, outage.wait or 0)) from None
        return answer.read(_Created).run_id

    def state(self, run_id: str) -> PipelineRun:
        """How a run stands. Tried once."""
        return self._call(f"following run {run_id}", "GET", f"pipelineruns/{run_id}").read(PipelineRun)

    def activities(self, run: PipelineRun) -> list[ActivityRun]:
        """What the activities of a run did, in the order they began."""
        now = datetime.now(UTC)
        body = {
            "lastUpdatedAfter": _said((run.run_start or now) - timedelta(days=1)),
            "lastUpdatedBefore": _said(now + timedelta(days=1)),
            "orderBy": [{"orderBy": "ActivityRunStart", "order": "ASC"}],
        }
        path = f"pipelineruns/{run.run_id}/queryActivityruns"
        doing = f"asking for the activities of run {run.run_id}"
        return self.patience.persist(lambda: self._pages(doing, path, body, ActivityRun))

    def updated(self, after: datetime, before: datetime) -> list[PipelineRun]:
        """Runs of the pipeline, whoever started them, that were updated in this time; the oldest first.

        Tried once.

        Raises:
            Unavailable, Refused: see the module `calling.control_plane`.
        """
        body = {
            "lastUpdatedAfter": _said(after),
            "lastUpdatedBefore": _said(before),
            "filters": [{"operand": "PipelineName", "operator": "Equals", "values": [self.pipeline]}],
        }
        doing = f"asking for runs of pipeline {self.pipeline}"
        found = self._pages(doing, "queryPipelineRuns", body, PipelineRun)
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(found, key=lambda run: (run.last_updated or oldest, run.run_id))

    def cancel(self, run_id: str) -> None:
        """Cancel a run, and those it started; tried for half a minute.

        Raises:
            Unavailable, Refused: it was not cancelled, or had ended before.
        """
        doing, path = f"cancelling run {run_id}", f"pipelineruns/{run_id}/cancel"
        query = {"isRecursive": "true"}
        patience = replace(self.patience, seconds=min(CANCELLING, self.patience.seconds))
        patience.persist(lambda: self._call(doing, "POST", path, query=query))

    def look(self) -> None:
        """Ask whether the pipeline is there; Unavailable or Refused when not."""
        self._call(f"looking for pipeline {self.pipeline}", "GET", self._pipeline)

    def _pages(self, doing: str, path: str, body: Mapping[str, Any], kind: type[T]) -> list[T]:
        """What a query gives, all pages of it."""
        found: list[T] = []
        token: str | None = None
        while True:
            asked = {**body, **({"continuationToken": token} if token else {})}
            page = self._call(doing, "POST", path, body=asked).read(_Page[kind])  # type: ignore[valid-type]
            found += page.value
            token = page.continuation_token
            if not token:
                return found

    @property
    def _pipeline(self) -> str:
        return f"pipelines/{quote(self.pipeline, safe='')}"

    def _call(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        names = [quote(name, safe="") for name in (self.subscription, self.resource_group, self.factory)]
        factory = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.DataFactory/factories/{}".format(
            *names
        )
        query = {**API_VERSION, **(query or {})}
        return self.service.call(doing, method, f"{factory}/{path}", query=query, body=body)


def configured(section: Ingestion) -> DataFactory:
    """The pipeline of the settings.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    credential = credentials.token(section.credential, section.ca)
    service = ControlPlane(section.endpoint, credential, f"{section.endpoint}/.default", section.ca)
    return DataFactory(
        service,
        section.subscription,
        section.resource_group,
        section.factory,
        section.pipeline,
        section.parameters,
    )


def _said(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
