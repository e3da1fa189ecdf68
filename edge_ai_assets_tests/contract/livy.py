"""Contract stub: Apache Livy as HDInsight runs it, the routes about batches.

Source: https://livy.apache.org/docs/latest/rest-api.html; a name is taken while a batch that has it is
listed, and a request that changes something is refused without X-Requested-By.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_ai_assets_tests.contract.control_plane_stub import Asked, Reply, Stub, serving

USER, PASSWORD = "admin", "pass word: ø"
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
MISSING = Reply(404, {"msg": "Session '7' not found."})


class LivyStub:
    """One cluster.

    Args:
        run: does what a batch asks for, and says how it ended; None when batches are what a test makes of
            them.
    """

    def __init__(self, stub: Stub, run: Callable[[dict[str, Any]], str] | None = None) -> None:
        self.stub, self.run = stub, run
        stub.tokens = {LOGIN}
        self.endpoint = f"{stub.endpoint}/livy"
        self.batches: dict[int, dict[str, Any]] = {}
        self.names = True
        """Whether it is new enough to tell names."""
        self.log = [f"line {number}" for number in range(500)]
        self.deleted: list[int] = []
        self.threads: list[threading.Thread] = []
        self.next = 0
        for method, path, answer in (
            ("GET", "/livy/batches", self._list),
            ("POST", "/livy/batches", self._submit),
            ("GET", r"/livy/batches/(\d+)", self._one),
            ("GET", r"/livy/batches/(\d+)/log", self._lines),
            ("DELETE", r"/livy/batches/(\d+)", self._delete),
        ):
            stub.route(method, path, answer)

    def add(self, name: str | None, state: str = "running") -> int:
        self.next += 1
        self.batches[self.next] = {"id": self.next, "name": name, "state": state, "asked": {}}
        return self.next

    def _work(self, batch: dict[str, Any]) -> None:
        assert self.run is not None
        batch["state"] = "running"
        batch["state"] = self.run(batch["asked"])

    def _list(self, asked: Asked, match: re.Match[str]) -> Reply:
        first, size = int(asked.query["from"]), int(asked.query["size"])
        page = [self._view(batch) for batch in list(self.batches.values())[first : first + size]]
        return Reply(200, {"from": first, "total": len(self.batches), "sessions": page})

    def _one(self, asked: Asked, match: re.Match[str]) -> Reply:
        found = self.batches.get(int(match[1]))
        return Reply(200, self._view(found)) if found else MISSING

    def _submit(self, asked: Asked, match: re.Match[str]) -> Reply:
        if "x-requested-by" not in asked.headers:
            return Reply(400, "Missing Required Header for CSRF protection.")
        assert set(asked.body) <= {"name", "file", "args", "conf", "files", "pyFiles"}, asked.body
        assert asked.body["file"].endswith(".py") and all(
            isinstance(each, str) for each in asked.body["args"]
        )
        if any(batch["name"] == asked.body["name"] for batch in self.batches.values()):
            return Reply(400, {"msg": f"Duplicate session name: {asked.body['name']}"})
        number = self.add(asked.body["name"], "starting")
        self.batches[number]["asked"] = asked.body
        if self.run:
            thread = threading.Thread(target=self._work, args=(self.batches[number],), daemon=True)
            self.threads.append(thread)
            thread.start()
        return Reply(201, self._view(self.batches[number]))

    def _lines(self, asked: Asked, match: re.Match[str]) -> Reply:
        if int(match[1]) not in self.batches:
            return MISSING
        first, size = int(asked.query["from"]), int(asked.query["size"])
        first = max(0, len(self.log) - size) if first < 0 else first
        lines = self.log[first : first + size]
        return Reply(200, {"id": int(match[1]), "from": first, "total": len(self.log), "log": lines})

    def _delete(self, asked: Asked, match: re.Match[str]) -> Reply:
        if "x-requested-by" not in asked.headers:
            return Reply(400, "Missing Required Header for CSRF protection.")
        if self.batches.pop(int(match[1]), None) is None:
            return MISSING
        self.deleted.append(int(match[1]))
        return Reply(200, {"msg": "deleted"})

    def _view(self, batch: dict[str, Any]) -> dict[str, Any]:
        app = {"driverLogUrl": None, "sparkUiUrl": None}
        own = {name: batch[name] for name in ("id", "name", "state")[:: 1 if self.names else 2]}
        return {**own, "owner": None, "proxyUser": None, "appId": None, "appInfo": app, "log": self.log[-10:]}


@contextmanager
def cluster(folder: Path, run: Callable[[dict[str, Any]], str] | None = None) -> Iterator[LivyStub]:
    """A cluster until the block ends; nothing that it does not know may have been asked."""
    with serving(folder) as stub:
        made = LivyStub(stub, run)
        yield made
        for thread in made.threads:
            thread.join(60)
