"""The service's application behind granian, by RSGI; `behind_granian.py PORT RELEASE OUTBOX`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from behind import Asked, ask, build, headers
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops


class Rsgi:
    def __init__(self, release: Path, outbox: Path) -> None:
        self._app = build(release, outbox)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        given = {name.encode("latin-1"): value.encode("latin-1") for name, value in scope.headers.items()}
        request = Asked(scope.method, scope.path, scope.query_string, given)
        response = await ask(self._app, request, protocol)
        texts = [(name.decode(), value.decode("latin-1")) for name, value in headers(request, response)]
        protocol.response_bytes(response.status, texts, response.body)


def make() -> Rsgi:
    """In granian's worker, which is a process of its own."""
    return Rsgi(Path(sys.argv[2]), Path(sys.argv[3]))


if __name__ == "__main__":
    Granian(
        "behind_granian:make",
        factory=True,
        port=int(sys.argv[1]),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    ).serve()
