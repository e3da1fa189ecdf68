"""The service's application without its server: what another server hands requests to."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from scoring.candidates import RELEASE, SITE

from edge_ai_assets.scoring.app import App, Release
from edge_ai_assets.scoring.http import Request, Response
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.serve import SWITCH_SECONDS
from edge_ai_assets.scoring.writer import Writer


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


def build(folder: Path, outbox: Path) -> App:
    """The application as `edge-ai serve` makes it of a release's folder; in the thread that will serve."""
    model = Model(folder)
    releases = [Release(model, RELEASE, 1)]
    app = App(releases, Writer(outbox), site=SITE, metrics=Metrics(None, model.contract))
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    return app


async def ask(app: App, request: Asked, receive: Callable[[], Awaitable[bytes]]) -> Response:
    """What the application answers; `receive` gives the whole body."""
    response = app.admit(request)
    if response is None:
        request.body = await receive()
        request.began = time.perf_counter()
        app.handle(request)
        response = await request.answer
    app.answered(request, response)
    return response


def headers(request: Request, response: Response) -> list[tuple[bytes, bytes]]:
    """Those that our server sends too; the date is the other server's work."""
    return [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request.id),
        (b"cache-control", b"no-store"),
        *response.headers,
    ]
