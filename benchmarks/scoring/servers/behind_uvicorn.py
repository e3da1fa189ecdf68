"""The service's application behind uvicorn, by ASGI; `behind_uvicorn.py PORT RELEASE OUTBOX`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import uvicorn
from behind import Asked, ask, build, headers


class Asgi:
    def __init__(self, release: Path, outbox: Path) -> None:
        self._app = build(release, outbox)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def body() -> bytes:
            message = await receive()
            found: bytes = message["body"]
            while message.get("more_body"):
                message = await receive()
                found += message["body"]
            return found

        query = scope["query_string"].decode("latin-1")
        request = Asked(scope["method"], scope["path"], query, dict(scope["headers"]))
        response = await ask(self._app, request, body)
        start = {"status": response.status, "headers": headers(request, response)}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": response.body})


if __name__ == "__main__":
    app = Asgi(Path(sys.argv[2]), Path(sys.argv[3]))
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
