"""The service's application behind granian, by RSGI; `behind_granian.py PORT RELEASE OUTBOX`."""

from __future__ import annotations

import sys
from typing import Any

from behind_uvicorn import Asked, Front
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops


class Rsgi(Front):
    """Made in granian's worker, which is a process of its own."""

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        given = {name.encode("latin-1"): value.encode("latin-1") for name, value in scope.headers.items()}
        response, headers = await self.ask(Asked(scope.method, scope.path, "", given), protocol)
        texts = [(name.decode(), value.decode("latin-1")) for name, value in headers]
        protocol.response_bytes(response.status, texts, response.body)


if __name__ == "__main__":
    quick: Any = {"loop": Loops.uvloop, "http": HTTPModes.http1, "websockets": False, "log_enabled": False}
    port, rsgi = int(sys.argv[1]), Interfaces.RSGI
    Granian("behind_granian:Rsgi", factory=True, port=port, interface=rsgi, **quick).serve()
