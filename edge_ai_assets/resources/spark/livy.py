"""Spark behind Apache Livy, as on HDInsight: scripts as batches, by plain HTTPS.

What a batch is to do is `engine`'s. Livy knows a batch by its number, we by its name: after a restart,
or an answer that never came, it is looked for in the list. Livy before 0.7 lists no names; there, such a
batch is started a second time.
Source: https://livy.apache.org/docs/latest/rest-api.html; HDInsight asks for X-Requested-By with every
request that changes something (https://learn.microsoft.com/azure/hdinsight/spark/apache-spark-livy-rest-interface).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import msgspec

from edge_ai_assets.resources.calling.control_plane import Answer, ControlPlane, Login
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.spark.engine import Look

T = TypeVar("T")
ENDED = frozenset({"success", "dead", "error", "killed"})
ASKED_BY = {"X-Requested-By": "edge_ai_assets"}
PAGE = 100
LINES = 20
"""Of a batch's log, told when it failed."""
CANCELLING = 30.0
"""Seconds for which cancelling is tried: whoever interrupted us waits for it."""


class Batch(msgspec.Struct, frozen=True):
    """A batch, as Livy tells it."""

    id: int
    state: str
    name: str | None = None


class Page(msgspec.Struct, frozen=True):
    """A piece of the list of batches."""

    total: int
    sessions: tuple[Batch, ...]


class Log(msgspec.Struct, frozen=True):
    """A piece of a batch's log."""

    log: tuple[str, ...]


@dataclass(frozen=True)
class Livy:
    """A cluster, see `engine.Cluster`.

    Args:
        endpoint: of Livy, https://CLUSTER.azurehdinsight.net/livy.
        user, password: of the cluster's login; None where Livy asks for none.
        ca: certificates that are trusted instead of the system's.
        patience: with outages.
    """

    endpoint: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    patience: Patience = field(default_factory=lambda: Patience(seconds=3600.0), repr=False)
    _numbers: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    """Of batches that were started by us, by name."""

    def look(self, name: str) -> Look | None:
        batch = self._persist(lambda: self._find(name))
        return Look(batch.state, batch.state in ENDED, batch.state == "success") if batch else None

    def start(self, name: str, script: str, arguments: Sequence[str]) -> None:
        # YARN's second attempt would write over what the first is still writing.
        conf = {"spark.yarn.maxAppAttempts": "1"}
        body = {"name": name, "file": script, "args": list(arguments), "conf": conf}

        def submit() -> Batch:
            # Of a request that got no answer nobody knows whether it was heard.
            found = self._find(name)
            return found or self._call(f"starting batch {name}", "POST", "/batches", body=body).read(Batch)

        self._numbers[name] = self._persist(submit).id

    def cancel(self, name: str) -> None:
        def end() -> None:
            batch = self._find(name)
            if batch is not None and batch.state not in ENDED:
                self._call(f"cancelling batch {name}", "DELETE", f"/batches/{batch.id}")

        self._persist(end, Patience(CANCELLING, 1.0, 5.0, self.patience.sleep, self.patience.clock))

    def why(self, name: str) -> str:
        def ask() -> str:
            batch = self._find(name)
            if batch is None:
                return ""
            query = {"from": "-1", "size": str(LINES)}  # the last ones
            doing = f"reading the log of batch {name}"
            lines = self._call(doing, "GET", f"/batches/{batch.id}/log", query=query).read(Log).log
            return "\n".join(line.rstrip() for line in lines[-LINES:])

        return self._persist(ask) or "its log is empty"

    def _find(self, name: str) -> Batch | None:
        """The newest batch of this name."""
        doing, first, found = f"looking for batch {name}", 0, None
        if (number := self._numbers.get(name)) is not None:
            try:
                return self._call(doing, "GET", f"/batches/{number}").read(Batch)
            except Refused as error:
                if error.status != 404:
                    raise
                return None
        while True:
            query = {"from": str(first), "size": str(PAGE)}
            page = self._call(doing, "GET", "/batches", query=query).read(Page)
            found = max(
                (batch for batch in (found, *page.sessions) if batch is not None and batch.name == name),
                key=lambda batch: batch.id,
                default=None,
            )
            first += PAGE
            if first >= page.total or not page.sessions:
                return found

    def _call(self, doing: str, method: str, path: str, **options: Any) -> Answer:
        return self._plane.call(doing, method, path, **options)

    def _persist(self, ask: Callable[[], T], patience: Patience | None = None) -> T:
        def attempt() -> T:
            try:
                return ask()
            except Unavailable as outage:
                dg.get_dagster_logger().warning(f"{outage}; trying again")
                raise

        return (patience or self.patience).persist(attempt)

    @cached_property
    def _plane(self) -> ControlPlane:
        login = (
            Login(self.user, self.password) if self.user is not None and self.password is not None else None
        )
        return ControlPlane(self.endpoint.rstrip("/"), login, ca=self.ca, headers=ASKED_BY)
