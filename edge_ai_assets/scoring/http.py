"""HTTP/1.1 on one event loop: connections, their limits and time-outs, the order of answers.

httptools parses; what a request means is the application's work. Here instead of a server library because the
path from a socket to a durable answer is what this service is measured by (docs/adr/0004). Requests of one
connection are answered one after the other (RFC 9112, 9.3.2); no more of them is read while one waits.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import httptools

from edge_ai_assets.scoring.messages import Request, Response, error, failed, unserved

if TYPE_CHECKING:
    from edge_ai_assets.scoring.server import Server

MAX_HEAD = 32 * 1024
MAX_HEADERS = 100
MAX_BODY = 32 * 1024 * 1024
MAX_BUFFERED = 256 * 1024 * 1024
"""Bytes of bodies, and of answers that are not read, in memory, of all connections together."""
MAX_PIPELINED = 256
"""Requests of one connection that wait for the answers before theirs."""
HEAD_SECONDS = 10.0
IDLE_SECONDS = 30.0
"""Longer than clients keep an idle connection (httpx 5 s): the client should be the one who closes it."""
BODY_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 8 * 1024
"""A body has BODY_SECONDS, and a second more for each so many bytes that came."""
WRITE_SECONDS = 30.0
"""In which a client must have read something of its answer."""
LINGER_SECONDS = 2.0
"""How long what a refused client still sends is read and thrown away, so that it can read why."""

_STATUS = {code.value: f"HTTP/1.1 {code.value} {code.phrase}\r\n".encode() for code in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "__weakref__",
        "_active",
        "_app",
        "_body",
        "_closing",
        "_discard",
        "_head",
        "_headers",
        "_incoming",
        "_parser",
        "_paused",
        "_queue",
        "_size",
        "_stuck",
        "_transport",
        "_unread",
        "_url",
        "deadline",
        "server",
    )

    def __init__(self, server: Server) -> None:
        self.server, self._app = server, server.app
        self._transport: Any = None
        # Made with the first byte: an idle connection should cost little.
        self._parser: httptools.HttpRequestParser | None = None
        self._head = self._unread = 0
        self._incoming: Request | None = None
        self._active: Request | None = None
        self._queue: deque[Request] | None = None
        self._discard = self._closing = self._paused = self._stuck = False
        self._start()
        self.deadline = server.now + HEAD_SECONDS

    def _start(self) -> None:
        """Be ready for a message."""
        self._url, self._size = b"", 0
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._active is not None or self._incoming is not None or bool(self._queue)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        server = self.server
        server.arriving.discard(self)
        if len(server.connections) >= server.most_connections:
            self._discard = self._closing = True
            busy = error(503, "too many connections", (b"retry-after", b"1"))
            self._write(busy, Request(self, "", "", "", {}), close=True)
            self._transport.close()
            return
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self._closing = True
        for request in (self._incoming, self._active, *(self._queue or ())):
            if request is not None:
                self._release(request)
        self._incoming = self._active = self._parser = self._queue = None
        self._unread_is(0)

    def data_received(self, data: bytes) -> None:
        if self._discard:
            return
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        if self._incoming is None and not self._head and self._active is None:
            self.deadline = self.server.now + HEAD_SECONDS
        self._head += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._decline(offer, data)
        except httptools.HttpParserCallbackError as problem:
            if not self._discard:
                request = self._incoming or Request(self, "", "", "", {})
                self._refuse(failed(request, problem))
        except httptools.HttpParserError as problem:
            if not self._discard:
                self._refuse(error(400, f"this is no HTTP/1.1 request: {str(problem)[:200]}"))
        if self._head > MAX_HEAD and not self._discard:
            self._refuse(error(431, f"the head or the trailer of a request may have {MAX_HEAD} bytes"))
        if self._queue:
            self._pump()

    def _decline(self, offer: httptools.HttpParserUpgrade | None, data: bytes | memoryview) -> None:
        """Go on in HTTP/1.1 though the client offered another protocol, as Java's does by default.

        httptools then skips the body. So the head is fed once more, without the offer, and then what is
        behind it.
        """
        parser = self._parser
        assert parser is not None
        while offer is not None and not self._discard:
            if parser.get_method() == b"CONNECT":
                self._refuse(error(405, "CONNECT is not possible here"))
                return
            if self._size > MAX_HEAD:
                self._refuse(error(431, f"the head of a request may have {MAX_HEAD} bytes"))
                return
            lines = [b"%b: %b\r\n" % each for each in self._headers.items() if each[0] != b"upgrade"]
            start = parser.get_method(), self._url, parser.get_http_version().encode()
            self._start()
            parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (*start, b"".join(lines)))
            data, offer = memoryview(data)[offer.args[0] :], None
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                offer = another

    def eof_received(self) -> bool:
        """A client may close its half and still read its answers; a request that is cut off is dropped."""
        self._discard = True
        if self._incoming is not None:
            self._release(self._incoming)
            self._incoming = None
            self._start()
        return self.busy and self.server.ssl is None

    def pause_writing(self) -> None:
        self._stuck = True
        self._unread_is(self._transport.get_write_buffer_size())
        self.deadline = self.server.now + WRITE_SECONDS

    def resume_writing(self) -> None:
        self._stuck = False
        self._unread_is(0)
        if not self._closing:
            self.deadline = self.server.now + IDLE_SECONDS
            self._pump()

    # What httptools calls.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        self._size += len(name) + len(value) + 4
        if name in headers:
            if self._size > MAX_HEAD:
                return  # it is refused at its end; joining them would take the square of their number
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        parser, headers, url = self._parser, self._headers, self._url
        assert parser is not None
        if self._discard or parser.should_upgrade():  # see _decline
            return
        if self._size + len(url) > MAX_HEAD or len(headers) > MAX_HEADERS:
            text = f"the head of a request may have {MAX_HEAD} bytes and {MAX_HEADERS} headers"
            self._refuse(error(431, text))
            return
        path, query = _target(url) if len(url) < 200 else _target.__wrapped__(url)
        request = Request(self, parser.get_method().decode(), path, query, headers)
        self._incoming, self._head = request, 0
        self._headers = {}  # what comes behind the body is no part of the head (RFC 9110, 6.5.1)
        server = self.server
        self.deadline = server.now + BODY_SECONDS
        if server.draining:
            server.last_request = time.monotonic()
        answer = self._check(request)
        if answer is not None:
            if b"content-length" in headers or b"transfer-encoding" in headers:
                self._refuse(answer)
            else:
                request._answer = answer  # there is no body to be spared
        elif b"expect" in headers and self._active is None and not self._queue:
            # Not before the answers to earlier requests; a client sends its body unasked after a while.
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        request = self._incoming
        if request is None or self._discard:
            return
        size = len(body)
        if not self._body:
            self._body = body
        else:
            # Not a list of parts: of two bytes each, as chunks may be, it would take thirty times their room.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        self._head = 0
        request._size += size
        server = self.server
        server.buffered += size
        self.deadline += size / BODY_BYTES_PER_SECOND
        if request._size > MAX_BODY:
            self._refuse(_too_large())
        elif server.buffered > MAX_BUFFERED:
            text = "too much is being received, try again later"
            self._refuse(error(503, text, (b"retry-after", b"1")))

    def on_message_complete(self) -> None:
        request = self._incoming
        if request is None or self._discard:
            return
        assert self._parser is not None
        if self._queue is not None and len(self._queue) >= MAX_PIPELINED:
            text = f"{MAX_PIPELINED} requests wait on this connection, read their answers first"
            self._refuse(error(503, text, (b"retry-after", b"1")))
            return
        self._incoming, self._head = None, 0
        body = self._body
        request.body = body if isinstance(body, bytes) else bytes(body)
        request._keep = self._parser.should_keep_alive()
        self._url, self._body, self._size = b"", b"", 0
        if self._headers:  # from behind the body
            self._headers = {}
        if self._active is None and not self._queue and not self._stuck:
            self._give(request)
        else:
            self._wait(request)

    # What is done with requests.

    def _check(self, request: Request) -> Response | None:
        """Why a request is not read on."""
        headers = request.headers
        assert self._parser is not None
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            return error(400, "an HTTP/1.1 request needs a Host header")
        if b"connection" in headers:
            request._old = self._parser.get_http_version() == "1.0"
            if request._old and b"transfer-encoding" in headers:
                return error(400, "HTTP/1.0 knows no Transfer-Encoding")
        coding, _, last = headers.get(b"transfer-encoding", b"").rpartition(b",")
        if coding and last.strip().lower() == b"chunked":  # RFC 9112, 6.1; any other end httptools refuses
            return error(501, "the only Transfer-Encoding that is taken is chunked")
        length = headers.get(b"content-length", b"")
        if len(length) > 7 and int(length[:20]) > MAX_BODY:  # httptools has seen that it is a number
            return _too_large()
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                return error(417, "the only expectation that can be met is 100-continue")
            if self._parser.get_http_version() == "1.0":
                del headers[b"expect"]  # such a client does not know what it would be told (RFC 9110, 10.1.1)
        return self._app.admit(request)

    def _refuse(self, answer: Response) -> None:
        """Answer what is being read without reading on, and close; the answers before it go first."""
        request = self._incoming or Request(self, "", "", "", {})
        self._incoming = None
        self._release(request)
        self._start()
        request._keep, request._answer = False, answer
        self._discard = True
        self._wait(request)

    def _wait(self, request: Request) -> None:
        """Keep a request until those before it are answered; no more is read meanwhile."""
        if self._queue is None:
            self._queue = deque()
        self._queue.append(request)
        if not self._paused and not self._discard:
            self._paused = True
            self._transport.pause_reading()

    def _give(self, request: Request) -> None:
        """Let the application answer a request, now or later."""
        self._active = request
        self.deadline = math.inf  # how long an answer takes is the application's matter
        request.began = time.perf_counter()
        if request._answer is not None:
            self.answer(request, request._answer)
            return
        try:
            self._app.handle(request)
        except Exception as problem:
            self.answer(request, failed(request, problem))

    def _pump(self) -> None:
        """Give what waits to the application, as long as answers come at once."""
        while self._queue and self._active is None and not self._stuck:
            self._give(self._queue.popleft())
        if self._paused and not self._queue and not self._closing:
            self._paused = False
            self._transport.resume_reading()

    def answer(self, request: Request, response: Response) -> None:
        if request is not self._active:
            return
        self._active = None
        if request._size:
            self._release(request)
        close = not request._keep or self.server.draining or (self._discard and not self._queue)
        self._write(response, request, close=close)
        try:
            self._app.answered(request if request.method else None, response)
        except Exception as problem:
            failed(request, problem)  # it is in the log, and the answer has gone
        if close:
            self._end()
            return
        self.deadline = self.server.now + IDLE_SECONDS
        if self._queue:
            asyncio.get_running_loop().call_soon(self._pump)  # not at once: answers would nest

    def _write(self, response: Response, request: Request, *, close: bool) -> None:
        status, body, kind, headers = response
        if status > 500:
            unserved(request, response)
        more = b""
        if headers:
            more = b"".join([b"%b: %b\r\n" % header for header in headers])
        if b"cache-control: " not in more:
            more += b"cache-control: no-store\r\n"
        if close:
            more += b"connection: close\r\n"
        elif request._old:
            more += b"connection: keep-alive\r\n"
        if request.method == "HEAD" or status == 304:
            length, body = len(body), b""
        else:
            length = len(body)
        self._transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%bx-request-id: %b\r\n%b\r\n%b"
            % (_STATUS[status], kind, length, self.server.always, request.id, more, body)
        )

    def _unread_is(self, size: int) -> None:
        """Count what a client does not read, too, in what is buffered."""
        self.server.buffered += size - self._unread
        self._unread = size

    def _release(self, request: Request) -> None:
        self.server.buffered -= request._size
        request._size = 0

    def _end(self) -> None:
        """Close after what was written has gone; what still comes in is thrown away for a moment first.

        Closed at once, the kernel would answer it with a reset, and the client might not read our answer.
        """
        self._queue = None
        self._closing = True
        if self._discard and not self._stuck and self._transport.can_write_eof():
            self._transport.write_eof()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            self.deadline = self.server.now + LINGER_SECONDS
        else:
            self._discard = True  # of what was pipelined behind it
            self.deadline = self.server.now + WRITE_SECONDS
            self._transport.close()

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._stuck and (left := self._transport.get_write_buffer_size()) < self._unread:
            self._unread_is(left)  # slow, but it reads
            self.deadline = self.server.now + WRITE_SECONDS
        elif self._closing or self._stuck:
            self._closing = True
            self._transport.abort()
        elif self._incoming is not None or self._head:
            self._refuse(error(408, "the request did not come in time"))
            self._pump()
        elif self.busy:  # a request that came behind it had set a deadline
            self.deadline = math.inf
        else:
            self.close()
            self.deadline = self.server.now + WRITE_SECONDS


def _too_large() -> Response:
    return error(413, f"the body is too large, at most {MAX_BODY} bytes are taken; send several requests")


@lru_cache(1024)  # of short ones: what strangers send must not stay in memory
def _target(url: bytes) -> tuple[str, str]:
    """Path, percent-decoded, and query of a request target."""
    if not url.startswith(b"/") and b"://" in url[:10]:  # the absolute form, as to a proxy
        url = b"/" + url.split(b"://", 1)[1].partition(b"/")[2]
    path, _, query = url.partition(b"?")
    if b"%" in path:
        path = unquote_to_bytes(path)
    return path.decode("utf-8", "replace"), query.decode("latin-1")
