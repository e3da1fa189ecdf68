"""The service over HTTP: an ASGI application without a framework, bytes in, bytes out.

Paths, methods, limits and errors are here; what a body means is `requests`' work, sockets and signals are
`serve`'s.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from edge_ai_assets.returns.outbox import OutboxError
from edge_ai_assets.scoring import requests
from edge_ai_assets.scoring.logs import logger
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.requests import Refused
from edge_ai_assets.scoring.writer import Busy, DiskFull, Stopped, Writer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 32 * 1024 * 1024
MAX_KEY = 200
LARGE_BODY = 64 * 1024
"""Bodies from this size on are scored in a thread, so that a large one does not keep small ones waiting."""


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _ClientGone(Exception):
    """The client went away before its request was complete; there is nobody to answer."""


Handler = Callable[[Message, Receive], Awaitable[_Answer]]


class App:
    """The ASGI application of one release on one site.

    Args:
        model: what scores.
        writer: writes before an answer goes out; started and stopped with the application's lifespan.
        site: its name stands in the ids of scores.
        release: digest of the release; version: its number, for people.
    """

    def __init__(self, model: Model, writer: Writer, *, site: str, release: str, version: int) -> None:
        self._model, self._writer = model, writer
        self._site, self._release, self._version = site, release, version
        self._started = time.monotonic()
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")
        self._contract = _json({"release": release, **_described(model)})
        get: Callable[[Handler], dict[str, Handler]] = lambda handler: {"GET": handler, "HEAD": handler}  # noqa: E731
        self._routes: dict[str, dict[str, Handler]] = {
            "/v1/score": {"POST": self._score},
            "/v1/feedback": {"POST": self._feedback},
            "/v1/contract": get(self._get_contract),
            "/v1/status": get(self._status),
            "/health/live": get(self._live),
            "/health/ready": get(self._ready),
        }
        self.draining = False
        """Set when the service stops: each connection is then closed with its next answer."""
        self.last_request = self._started
        """When a request came last, on the monotonic clock."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self.last_request = time.monotonic()
        try:
            answer = await self._answer(scope, receive)
        except _ClientGone:
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
            *answer.headers,
        ]
        if self.draining and answer.status != 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, receive: Receive) -> _Answer:
        methods = self._routes.get(scope["path"])
        if methods is None:
            return _error(404, f"there is nothing at {scope['path'][:200]!r}")
        handler = methods.get(scope["method"])
        if handler is None:
            allow = ", ".join(methods)
            return _error(
                405, f"{scope['method']} is not possible here, only {allow}", (b"allow", allow.encode())
            )
        try:
            return await handler(scope, receive)
        except Refused as error:
            # The rest of a body that is too large is not read: the connection cannot be used again.
            headers = [(b"connection", b"close")] if error.status == 413 else []
            return _error(error.status, str(error), *headers)
        except (Busy, Stopped) as error:
            return _error(503, str(error), (b"retry-after", b"1"))
        except DiskFull as error:
            return _error(507, str(error))
        except _ClientGone:
            raise
        except Exception:
            request = secrets.token_hex(8)
            fields = {"request": request, "path": scope["path"][:200], "method": scope["method"]}
            logger.exception("a request failed", extra={"fields": fields})
            return _Answer(500, _json({"error": "internal error", "request": request}))

    async def _score(self, scope: Message, receive: Receive) -> _Answer:
        key = _key(scope)
        body = await _read(scope, receive)
        arguments = self._model, self._release, body, key, time.time_ns() // 1000
        if len(body) < LARGE_BODY:
            scored = requests.score(*arguments)
        else:
            scored = await asyncio.get_running_loop().run_in_executor(self._large, requests.score, *arguments)
        receipt = await self._writer.write(scored.batch)
        threshold = self._model.contract.threshold
        if not receipt.repeated:
            return _Answer(200, requests.answer(self._site, threshold, scored, receipt))
        last = receipt.first + receipt.rows - 1
        rows = await self._writer.run(lambda outbox: outbox.rows(receipt.first, last), rows=receipt.rows)
        return _Answer(200, requests.repeat(self._site, self._release, threshold, scored, receipt, rows))

    async def _feedback(self, scope: Message, receive: Receive) -> _Answer:
        items = requests.feedback(self._site, await _read(scope, receive), time.time_ns() // 1000)
        try:
            await self._writer.run(lambda outbox: outbox.add_feedback(items), rows=len(items))
        except OutboxError as error:  # the only thing it refuses is a score that is not there
            raise Refused(404, f"site {self._site}: {error}") from error
        return _Answer(200, _json({"accepted": len(items)}))

    async def _get_contract(self, scope: Message, receive: Receive) -> _Answer:
        return _Answer(200, self._contract)

    async def _status(self, scope: Message, receive: Receive) -> _Answer:
        counts = await self._writer.run(lambda outbox: outbox.counts())
        status = {
            "site": self._site,
            "release": self._release,
            "version": self._version,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "pid": os.getpid(),
            "outbox": counts,
        }
        return _Answer(200, _json(status))

    async def _live(self, scope: Message, receive: Receive) -> _Answer:
        return _Answer(200, b'{"status":"live"}')

    async def _ready(self, scope: Message, receive: Receive) -> _Answer:
        if self._writer.failure is not None:
            return _error(503, self._writer.failure, (b"retry-after", b"1"))
        return _Answer(200, b'{"status":"ready"}')

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._writer.start()
        except Exception as error:
            await send(
                {"type": "lifespan.startup.failed", "message": f"the outbox cannot be opened: {error}"}
            )
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._writer.stop()
        self._large.shutdown()
        await send({"type": "lifespan.shutdown.complete"})


async def _read(scope: Message, receive: Receive) -> bytes:
    """The whole body, never more of it in memory than is allowed, whatever its length was said to be."""
    too_large = Refused(
        413, f"the body is too large, at most {MAX_BODY} bytes are taken; send several requests"
    )
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise too_large
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _key(scope: Message) -> str | None:
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            if not 0 < len(value) <= MAX_KEY or not all(32 <= byte < 127 for byte in value):
                raise Refused(422, f"Idempotency-Key must have 1 to {MAX_KEY} printable ASCII characters")
            return str(value, "ascii")
    return None


def _described(model: Model) -> dict[str, Any]:
    contract = model.contract
    return {
        "usecase": contract.usecase,
        "label": contract.label,
        "threshold": contract.threshold,
        "inputs": contract.inputs,
    }


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _error(status: int, message: str, *headers: tuple[bytes, bytes]) -> _Answer:
    return _Answer(status, _json({"error": message}), headers)
