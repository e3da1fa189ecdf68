"""What goes between the HTTP server and the application: requests, answers, and who answers."""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from edge_ai_assets.scoring.logs import logger

if TYPE_CHECKING:
    from edge_ai_assets.scoring.http import Connection


class Response(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further headers, names in lower case."""


def error(status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
    """The answer to a request that cannot be served."""
    return Response(status, msgspec.json.encode({"error": message}), headers=headers)


class Request:
    """One request. The application answers it with `respond`, at once or later, exactly once.

    Attributes:
        method, path (percent-decoded), query (as it came).
        headers: names in lower case; repeated ones joined by a comma.
        body: whole, at most MAX_BODY bytes, as it was sent.
        id: for logs and the answer's x-request-id; the client's own if it sent one.
        began: when it had come whole, `time.perf_counter()`.
        route, caller: what the application found out of it in `admit`.
    """

    route: Any = None
    caller: Any = None
    began = 0.0
    _size = 0
    _keep = True
    _old = False
    _answer: Response | None = None
    _id: bytes | None = None
    _kind: bytes | None = None

    def __init__(
        self, connection: Connection, method: str, path: str, query: str, headers: dict[bytes, bytes]
    ) -> None:
        self._connection = connection
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.body = b""

    @property
    def id(self) -> bytes:
        if self._id is None:
            given = self.headers.get(b"x-request-id")
            self._id = given if given and _is_id(given) else b"%b-%x" % (_process, next(_ids))
        return self._id

    @property
    def kind(self) -> bytes:
        """Content type of the body, without parameters, in lower case; empty if there is none."""
        if self._kind is None:
            self._kind = _without_parameters(self.headers.get(b"content-type", b"")[:200])  # it is kept
        return self._kind

    @property
    def tokens(self) -> Any:
        """Of the server that it came to."""
        return self._connection.server.tokens

    @property
    def local(self) -> bool:
        """Of the server that it came to."""
        return self._connection.server.local

    def respond(self, response: Response) -> None:
        """Answer; a second answer, or one to a client that went away, is dropped."""
        self._connection.answer(self, response)


class Application(Protocol):
    """What a server serves. Its methods are called on the event loop; what they raise is answered 500."""

    def admit(self, request: Request) -> Response | None:
        """Look at a request before its body is read; an answer ends it."""

    def handle(self, request: Request) -> None:
        """See that the request is answered."""

    def answered(self, request: Request | None, response: Response) -> None:
        """Told of every answer that was sent; the request is None if it could not be parsed."""

    def connected(self, server: object, connections: int) -> None:
        """Told now and then how many connections a server has."""


def failed(request: Request, problem: Exception) -> Response:
    """The answer to a request that met an error of ours, which is logged."""
    number = request.id.decode()
    fields = {"request": number, "path": request.path[:200], "method": request.method}
    logger.error("a request failed", extra={"fields": fields}, exc_info=problem)
    return Response(500, msgspec.json.encode({"error": "internal error", "request": number}))


def unserved(request: Request, response: Response) -> None:
    """Log an answer from 501 on, so that its request id can be found; `failed` has logged those of 500."""
    fields = {
        "request": request.id.decode(),
        "path": request.path[:200],
        "method": request.method,
        "answer": response.body.decode("utf-8", "replace")[:500],
    }
    logger.warning(f"a request was answered {response.status}", extra={"fields": fields})


def _name_process() -> None:
    """So that no two requests have one id, also those of processes that were forked from one."""
    global _process
    _process = f"{os.getpid():x}-{secrets.token_hex(4)}".encode()


_ids = count(1)
_process = b""
_name_process()
os.register_at_fork(after_in_child=_name_process)


@lru_cache(256)
def _without_parameters(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _is_id(given: bytes) -> bool:
    return len(given) <= 128 and given.isascii() and given.replace(b"-", b"").replace(b"_", b"").isalnum()
