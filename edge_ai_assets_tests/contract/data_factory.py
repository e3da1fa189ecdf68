"""Contract stub: Data Factory, the routes about runs of a pipeline.

Source: https://learn.microsoft.com/rest/api/datafactory, API version 2018-06-01.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_ai_assets_tests.contract.control_plane_stub import Asked, Reply, Stub

SUBSCRIPTION = "00000000-0000-4000-8000-00000000abcd"
FACTORY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf"
PAGE = 2
"""Rows of a page of a list: small, so that every test reads more than one."""
COPIED = {
    "activityName": "Copy readings",
    "activityType": "Copy",
    "status": "Succeeded",
    "durationInMs": 61_000,
    "output": {
        "dataRead": 2048,
        "dataWritten": 1024,
        "filesRead": 3,
        "filesWritten": 2,
        "rowsRead": 500,
        "rowsCopied": 499,
        "copyDuration": 60,
        "errors": [],
    },
    "error": {"errorCode": "", "message": "", "failureType": "", "target": "Copy readings"},
}
BROKEN = {
    **COPIED,
    "status": "Failed",
    "output": {"errors": [{"Code": 9011}]},
    "error": {
        "errorCode": "2200",
        "message": "The source\r\n is gone",
        "failureType": "UserError",
        "target": "Copy readings",
    },
}


class DataFactoryStub:
    """A factory with one pipeline, `land readings`."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.runs: dict[str, dict[str, Any]] = {}
        self.activities: list[dict[str, Any]] = [{"activityName": "Look", "status": "Succeeded"}, COPIED]
        self.course = ["InProgress", "InProgress", "Succeeded"]
        """States that a new run shows, one a look; the last stays."""
        self.hidden: set[str] = set()
        """Runs that the list does not show yet."""
        self.looked: Callable[[], None] = lambda: None
        """Called when somebody asks how a run stands."""
        self.now = datetime.now(UTC)
        pipeline, run = rf"{FACTORY}/pipelines/land readings", rf"{FACTORY}/pipelineruns/([^/]+)"
        stub.route("GET", pipeline, self._pipeline)
        stub.route("POST", rf"{pipeline}/createRun", self._create)
        stub.route("GET", run, self._get)
        stub.route("POST", rf"{run}/queryActivityruns", self._activities)
        stub.route("POST", rf"{run}/cancel", self._cancel)
        stub.route("POST", rf"{FACTORY}/queryPipelineRuns", self._query)

    def add(self, status: str, minutes_ago: float = 0.0, **parameters: Any) -> str:
        """A run that somebody started; its id."""
        return self._add([status], parameters, self.now - timedelta(minutes=minutes_ago), "Manual")

    def _add(self, course: list[str], parameters: dict[str, Any], at: datetime, by: str) -> str:
        run_id = f"00000000-0000-0000-0000-{len(self.runs) + 1:012}"
        self.runs[run_id] = {
            "id": f"{FACTORY}/pipelineruns/{run_id}",
            "runId": run_id,
            "runGroupId": run_id,
            "isLatest": True,
            "debugRunId": None,
            "pipelineName": "land readings",
            "parameters": parameters,
            "runDimensions": {},
            "invokedBy": {"id": "1", "name": by, "invokedByType": by, "pipelineName": None},
            "runStart": _said(at - timedelta(seconds=90)),
            "runEnd": None if course[0] in ("InProgress", "Queued") else _said(at),
            "durationInMs": 90_000,
            "status": course[0],
            "message": "Operation on target Copy readings failed" if course[0] == "Failed" else "",
            "lastUpdated": _said(at),
            "annotations": [],
            "_course": course,
        }
        return run_id

    def _pipeline(self, asked: Asked, _: re.Match[str]) -> Reply:
        return _checked(asked) or Reply(body={"name": "land readings", "properties": {"activities": []}})

    def _create(self, asked: Asked, _: re.Match[str]) -> Reply:
        if wrong := _checked(asked):
            return wrong
        return Reply(body={"runId": self._add(list(self.course), asked.body, self.now, "Manual")})

    def _get(self, asked: Asked, match: re.Match[str]) -> Reply:
        if wrong := _checked(asked):
            return wrong
        self.looked()
        run = self.runs.get(match[1])
        if run is None:
            return Reply(404, {"error": {"code": "RunNotFound", "message": f"No run {match[1]}."}})
        run["status"] = run["_course"].pop(0) if len(run["_course"]) > 1 else run["_course"][0]
        return Reply(body=_shown(run))

    def _activities(self, asked: Asked, match: re.Match[str]) -> Reply:
        if wrong := _checked(asked) or _window(asked):
            return wrong
        rows = [
            {"pipelineRunId": match[1], "pipelineName": "land readings", "activityRunId": str(place), **row}
            for place, row in enumerate(self.activities)
        ]
        return _page(asked, rows)

    def _query(self, asked: Asked, _: re.Match[str]) -> Reply:
        if wrong := _checked(asked) or _window(asked):
            return wrong
        after, before = asked.body["lastUpdatedAfter"], asked.body["lastUpdatedBefore"]
        names = {
            name
            for each in asked.body.get("filters", [])
            if (each["operand"], each["operator"]) == ("PipelineName", "Equals")
            for name in each["values"]
        }
        rows = [
            _shown(run)
            for run in self.runs.values()
            if run["runId"] not in self.hidden
            and after <= run["lastUpdated"] <= before
            and (not names or run["pipelineName"] in names)
        ]
        return _page(asked, rows[::-1])

    def _cancel(self, asked: Asked, match: re.Match[str]) -> Reply:
        if wrong := _checked(asked):
            return wrong
        self.runs[match[1]]["_course"] = ["Cancelled"]
        return Reply()


def _checked(asked: Asked) -> Reply | None:
    """What Azure Resource Manager says of a request without a version that it knows."""
    if asked.query.get("api-version") == "2018-06-01":
        return None
    return Reply(400, {"error": {"code": "MissingApiVersionParameter", "message": "No api-version."}})


def _window(asked: Asked) -> Reply | None:
    """What the service says of a query without its two required fields, or with ones it does not know."""
    known = {"lastUpdatedAfter", "lastUpdatedBefore", "filters", "orderBy", "continuationToken"}
    body = asked.body or {}
    if {"lastUpdatedAfter", "lastUpdatedBefore"} <= body.keys() <= known:
        return None
    return Reply(400, {"error": {"code": "BadRequest", "message": f"Fields: {sorted(body)}."}})


def _page(asked: Asked, rows: list[dict[str, Any]]) -> Reply:
    first = int(asked.body.get("continuationToken") or 0)
    more = {"continuationToken": str(first + PAGE)} if first + PAGE < len(rows) else {}
    return Reply(body={"value": rows[first : first + PAGE], **more})


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if not name.startswith("_")}


def _said(moment: datetime) -> str:
    """As the service writes it: seven digits of a second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
