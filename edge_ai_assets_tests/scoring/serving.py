"""Clients for tests of the HTTP server: a transport that is none, and a real socket; and a site to ask.

What is sent is bytes, so that a test can send anything; what comes back is parsed strictly, here and not by
the code under test.
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.http import Connection
from edge_ai_assets.scoring.messages import Application
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.server import Patience, Server
from edge_ai_assets.scoring.standing import Release
from edge_ai_assets.scoring.tokens import Tokens
from edge_ai_assets.scoring.writer import Writer
from edge_ai_assets_tests.tiny_model import INPUTS

RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
COLUMNS = {"Pressure [bar]": [2.0, 21.0], "Temperature": [10, None], "Pump type": ["screw", None]}
NAMES = [item.name for item in INPUTS]
SECONDS = 60.0
"""What no test should need."""


class Reply(NamedTuple):
    """One answer, as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def replies(data: bytes, methods: Iterable[str] = ()) -> list[Reply]:
    """All answers in `data`, which must hold nothing else.

    Args:
        methods: of the requests they answer, since those to HEAD have no body; GET for those not given.
    """
    asked, found = iter(methods), []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, f"no whole head: {head[:200]!r}"
        start, *lines = head.decode("latin-1").split("\r\n")
        version, status, phrase = start.split(" ", 2)
        assert version == "HTTP/1.1" and phrase
        pairs = [line.split(": ", 1) for line in lines]
        headers = dict(pairs)
        assert len(headers) == len(pairs), f"a header twice: {lines}"
        length = 0
        if status != "100":
            bare = next(asked, "GET") == "HEAD" or status == "304"
            length = 0 if bare else int(headers["content-length"])
        assert len(data) >= length, "the body is cut off"
        found.append(Reply(int(status), headers, data[:length]))
        data = data[length:]
    return found


def request(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """A request; with Content-Length if it has a body, or is one that should."""
    lines = {"Host": "localhost"} | dict(headers or {})
    if body or method == "POST":
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode("latin-1") + body


def chunked(
    method: str, path: str, chunks: Sequence[bytes], extension: bytes = b"", trailer: bytes = b""
) -> bytes:
    """A request whose body comes in chunks."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return head + b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """An `async def` test, run on the loop that the service has."""

    @functools.wraps(test)
    def run(*args: Any, **more: Any) -> None:
        async def within() -> None:
            await asyncio.wait_for(test(*args, **more), SECONDS)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(within())

    return run


class FakeTransport:
    """What a Connection writes to, as strict as uvloop's; `full` makes its client one that does not read."""

    def __init__(self) -> None:
        self.written = b""
        self.unread = 0
        self.closed = self.aborted = self.eof = self.reading_paused = False

    def write(self, data: bytes) -> None:
        if self.eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self.closed:
            self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unread

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        assert not self.reading_paused
        self.reading_paused = True

    def resume_reading(self) -> None:
        assert self.reading_paused
        self.reading_paused = False


class FakeClient:
    """One connection to a server without a socket; used on a running loop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport = FakeTransport()
        self.connection = Connection(server)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    async def send(self, *parts: bytes) -> None:
        """Send, not while reading is paused, and let the loop do what can be done at once."""
        for part in parts:
            for _ in range(1000):
                if not self.transport.reading_paused:
                    break
                await asyncio.sleep(0)
            if self.transport.closed:
                return
            self.connection.data_received(part)
        await settle()

    def end(self) -> bool:
        """The client has closed its half; whether the connection stays."""
        stays = bool(self.connection.eof_received())
        if not stays:
            self.transport.close()
        return stays

    def lost(self) -> None:
        self.connection.connection_lost(None)

    def replies(self, *methods: str) -> list[Reply]:
        return replies(self.transport.written, methods)

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection, for its part."""
        return self.transport.closed or self.transport.eof


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def fake_server(app: Application, tokens: Tokens | None = None) -> Server:
    """A server that nothing listens for, and whose time only passes when a test says so."""
    server = Server(app, tokens=tokens)
    server._loop = asyncio.get_running_loop()
    server._sweep()
    server._sweeper.cancel()
    return server


class Client:
    """A real connection; used on a running loop."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._address = address
        self._data = b""

    async def __aenter__(self) -> Client:
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def send_end(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def reply(self, method: str = "GET") -> Reply:
        """The next answer."""
        while True:
            head, mark, rest = self._data.partition(b"\r\n\r\n")
            if mark:
                fields = head.decode("latin-1").lower().split("\r\n")
                length = next(
                    (int(f.partition(":")[2]) for f in fields if f.startswith("content-length:")), 0
                )
                length = 0 if method == "HEAD" else length
                if len(rest) >= length:
                    whole, self._data = head + mark + rest[:length], rest[length:]
                    return replies(whole, [method])[0]
            more = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 18)
            assert more, f"closed in the middle of an answer: {self._data[:200]!r}"
            self._data += more

    async def ask(self, data: bytes, method: str = "GET") -> Reply:
        await self.send(data)
        return await self.reply(method)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        while more := await asyncio.get_running_loop().sock_recv(self._socket, 1 << 18):
            self._data += more
        data, self._data = self._data, b""
        return data


class Running:
    """A server on a loopback socket, on the running loop."""

    def __init__(self, app: Application, tls: ssl.SSLContext | None = None) -> None:
        self.server = Server(app, ssl=tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()

    async def __aenter__(self) -> Running:
        await self.server.start(self._listener)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.server.patience = Patience(0.0, 0.0)
        await self.server.stop()
        await asyncio.sleep(0.01)

    def client(self) -> Client:
        return Client(self.address)


class Site:
    """A site's application, asked as over a connection, on an event loop of its own."""

    def __init__(
        self,
        model: Model,
        path: Path,
        *,
        tokens: Tokens | None = None,
        digest: str = "sha256:aa",
        version: int = 3,
        quota: int | None = None,
        more: Sequence[Release] = (),
    ) -> None:
        self.loop = uvloop.new_event_loop()
        self.path = path
        self.writer = Writer(path, quota=quota)
        self.metrics = Metrics(None, model.contract)
        releases = [Release(model, digest, version), *more]
        self.app = App(releases, self.writer, site="bergen", metrics=self.metrics, guarded=tokens is not None)
        self.server = self.loop.run_until_complete(self._server(tokens))

    async def _server(self, tokens: Tokens | None) -> Server:
        return fake_server(self.app, tokens)

    def close(self) -> None:
        self.app.close()
        self.writer.close()
        self.loop.close()

    def call(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        return self.calls(request(method, path, _bytes(body), headers), method=method)[0]

    def calls(self, *sent: bytes, method: str = "GET") -> list[Reply]:
        """Requests that come at the same time, each on a connection of its own; their answers."""

        async def ask() -> list[Reply]:
            clients = [FakeClient(self.server) for _ in sent]
            for client, data in zip(clients, sent, strict=True):
                client.connection.data_received(data)
            found = [await self._reply(client, method) for client in clients]
            for client in clients:
                client.lost()
            assert self.server.buffered == 0 and not self.server.connections
            return found

        return self.loop.run_until_complete(asyncio.wait_for(ask(), SECONDS))

    async def _reply(self, client: FakeClient, method: str) -> Reply:
        while not client.transport.written:
            await asyncio.sleep(0.0002)
        (reply,) = client.replies(method)
        return reply

    def score(self, body: Any, key: str | None = None, **headers: str) -> Reply:
        more = {} if key is None else {"Idempotency-Key": key}
        return self.call("POST", "/v1/score", body, headers | more)


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()
