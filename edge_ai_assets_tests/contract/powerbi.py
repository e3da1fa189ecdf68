"""Contract stub: Power BI, the routes about refreshing a semantic model.

Source: https://learn.microsoft.com/rest/api/power-bi/datasets.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_ai_assets_tests.contract.control_plane_stub import Asked, Reply, Stub

WORKSPACE = "f089354e-8366-4e18-aea3-4cb4a3a50b48"
MODEL = "cfafbeb1-8037-4d0c-896e-a46fb27ff229"
PATH = f"/v1.0/myorg/groups/{WORKSPACE}/datasets/{MODEL}"
WHY = '{"errorCode":"ModelRefreshFailed_CredentialsNotSpecified"}'


class PowerBiStub:
    """A workspace with one semantic model on a shared capacity."""

    def __init__(self, stub: Stub) -> None:
        self.endpoint = stub.endpoint
        self.refreshes: list[dict[str, Any]] = []
        """The newest first, as the service lists them."""
        self.course = ["Unknown", "Unknown", "Completed"]
        """States that a new refresh shows, one a look; the last stays."""
        self.headers = {"Location", "x-ms-request-id"}
        """Those of the answer to a request: not every capacity sends both."""
        stub.route("GET", PATH, lambda asked, match: Reply(body={"id": MODEL, "name": "fleet"}))
        stub.route("POST", f"{PATH}/refreshes", self._refresh)
        stub.route("GET", f"{PATH}/refreshes", self._list)

    def add(self, *course: str) -> str:
        """A refresh that somebody asked for; its id."""
        request = f"00000000-0000-0000-0000-{len(self.refreshes) + 1:012}"
        self.refreshes.insert(0, {"requestId": request, "_course": list(course)})
        return request

    def _refresh(self, asked: Asked, _: re.Match[str]) -> Reply:
        if (asked.body or {}).keys() != {"notifyOption"}:
            return _wrong("Only notifyOption can be given on a shared capacity.")
        if asked.body["notifyOption"] != "NoNotification":
            return _wrong("A service principal cannot be notified.")
        if any(one["_course"][0] == "Unknown" for one in self.refreshes):
            return _wrong("Another refresh request is already executing")
        request = self.add(*self.course)
        told = {
            "Location": f"{self.endpoint}{PATH}/refreshes/{request}",
            "x-ms-request-id": request,
        }
        return Reply(202, None, {name: told[name] for name in self.headers})

    def _list(self, asked: Asked, _: re.Match[str]) -> Reply:
        rows = [self._shown(one) for one in self.refreshes][: int(asked.query["$top"])]
        return Reply(body={"value": rows})

    def _shown(self, one: dict[str, Any]) -> dict[str, Any]:
        course = one["_course"]
        status = course.pop(0) if len(course) > 1 else course[0]
        start = datetime(2026, 11, 20, 12, tzinfo=UTC)
        ended = {"endTime": f"{start + timedelta(seconds=90):%Y-%m-%dT%H:%M:%S.123Z}"}
        return {
            "requestId": one["requestId"],
            "id": 1,
            "refreshType": "ViaApi",
            "startTime": f"{start:%Y-%m-%dT%H:%M:%S.123Z}",
            "status": status,
            **(ended if status != "Unknown" else {}),
            **({"serviceExceptionJson": WHY} if status == "Failed" else {}),
        }


def _wrong(message: str) -> Reply:
    return Reply(400, {"error": {"code": "InvalidRequest", "message": message}})
