"""The service's application behind uvicorn, by ASGI; `behind_uvicorn.py PORT RELEASE OUTBOX`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import Any

from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.messages import Request, Response
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.serve import SWITCH_SECONDS
from edge_ai_assets.scoring.standing import Release
from edge_ai_assets.scoring.writer import Writer

TURNS = 2
"""Of the event loop in which requests are gathered. Others' servers start a task for each, later than the
first one's group is closed: without this some 11 requests share a commit under uvicorn, with it some 22."""


class Asked(Request):
    """A request whose answer is awaited, since it has no connection of ours to be written to."""

    tokens: Any = None
    local = True

    def __init__(self, method: str, path: str, query: str, headers: dict[bytes, bytes]) -> None:
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def respond(self, response: Response) -> None:
        if not self.answer.done():  # whoever asked may have gone away
            self.answer.set_result(response)


class Front:
    """The application as `edge-ai serve` makes it; in the thread that will serve."""

    def __init__(self) -> None:
        model = Model(Path(sys.argv[2]))
        release, writer = Release(model, "sha256:" + "0" * 64, 1), Writer(Path(sys.argv[3]))
        self._app = App([release], writer, site="bench", metrics=Metrics(None, model.contract))
        self._gathered: list[Asked] = []
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()

    async def ask(self, request: Asked, body: Any) -> tuple[Response, list[tuple[bytes, bytes]]]:
        """The answer, and the headers that our server sends with it; `body()` is awaited for the body."""
        response = self._app.admit(request)
        if response is None:
            request.body, request.began = await body(), time.perf_counter()
            if not self._gathered:
                asyncio.get_running_loop().call_soon(self._turn, TURNS)
            self._gathered.append(request)
            response = await request.answer
        self._app.answered(request, response)
        length = (b"content-length", b"%d" % len(response.body))
        always = (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")
        kind, number = (b"content-type", response.content_type), (b"x-request-id", request.id)
        return response, [kind, length, *always, number, *response.headers]

    def _turn(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
            return
        requests, self._gathered = self._gathered, []
        for request in requests:
            self._app.handle(request)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def body() -> bytes:
            parts = [await receive()]
            while parts[-1].get("more_body"):
                parts.append(await receive())
            return b"".join(part["body"] for part in parts)

        request = Asked(scope["method"], scope["path"], "", dict(scope["headers"]))
        response, headers = await self.ask(request, body)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


if __name__ == "__main__":
    import uvicorn

    quiet: Any = {"access_log": False, "log_level": "warning", "lifespan": "off", "server_header": False}
    uvicorn.run(Front(), port=int(sys.argv[1]), http="httptools", loop="uvloop", **quiet)
