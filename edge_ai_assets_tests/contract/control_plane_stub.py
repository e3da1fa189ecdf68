"""Contract stub: the ground that stubs of Azure's control planes stand on. A TLS server with routes, faults
that are asked for in advance, and a record of every request.

Each service's stub is a module of its own. A request that no route knows fails the test.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

RESET, SILENCE = "reset", "silence"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str
    headers: dict[str, str] = field(default_factory=dict)
    """By their names in small letters."""


@dataclass(frozen=True)
class Reply:
    """What is answered; a body that is no JSON is sent as it stands."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Route = Callable[[Asked, "re.Match[str]"], Reply]


@dataclass
class Fault:
    """What happens to the next request that fits, instead of what was asked.

    Args:
        on: found in its method and path.
        what: an answer; or `reset`, a connection that ends without one; or `silence`.
        after: whether it is done nevertheless, and only its answer is lost.
    """

    on: str
    what: Reply | str
    after: bool = False


class Stub:
    """A server at `endpoint`."""

    def __init__(self, folder: Path) -> None:
        self.routes: list[tuple[str, re.Pattern[str], Route]] = []
        self.asked: list[Asked] = []
        self.unknown: list[str] = []
        self.faults: deque[Fault] = deque()
        self.tokens = {"token-1"}
        """Those that are taken."""
        self.released = threading.Event()
        self.ca, chain = _certificates(folder)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):  # whatever the method
                    return lambda: stub._serve(self)
                raise AttributeError(name)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.endpoint = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def route(self, method: str, path: str, answer: Route) -> None:
        """Answer a path, a regular expression."""
        self.routes.append((method, re.compile(path), answer))

    def fail(self, on: str, *whats: Reply | str, after: bool = False) -> None:
        """The next requests that fit fail, each in its way."""
        self.faults += [Fault(on, what, after) for what in whats]

    def count(self, on: str) -> int:
        return sum(on in f"{each.method} {each.path}" for each in self.asked)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        asked = Asked(
            handler.command,
            unquote(parts.path),
            {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()},
            json.loads(data) if data else None,
            (handler.headers.get("Authorization") or "").removeprefix("Bearer "),
            {name.lower(): value for name, value in handler.headers.items()},
        )
        self.asked.append(asked)
        fault = next((each for each in self.faults if each.on in f"{asked.method} {asked.path}"), None)
        if fault:
            self.faults.remove(fault)
        reply = self._answer(asked) if fault is None or fault.after else None
        if fault is not None:
            if fault.what == RESET:
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Nor is anything read from it again: its number may be another connection's by then.
                handler.close_connection = True
                os.close(handler.connection.detach())  # its files would keep it open
                return
            if fault.what == SILENCE:
                self.released.wait(60)
                handler.connection.close()
                return
            assert isinstance(fault.what, Reply)
            reply = fault.what
        assert reply is not None
        self._send(handler, reply)

    def _answer(self, asked: Asked) -> Reply:
        if asked.token not in self.tokens:
            return Reply(401, {"error": {"code": "ExpiredAuthenticationToken", "message": "It has expired."}})
        for method, pattern, answer in self.routes:
            if method == asked.method and (match := pattern.fullmatch(asked.path)):
                return answer(asked, match)
        self.unknown.append(f"{asked.method} {asked.path}")
        return Reply(404, {"error": {"code": "InvalidResourceType", "message": "No such route."}})

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        data = reply.body if isinstance(reply.body, bytes) else b""
        if reply.body is not None and not isinstance(reply.body, bytes):
            data = json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def read_seconds(request: pytest.FixtureRequest) -> float:
    """For how long a test waits for an answer: short if it is about silence, else more than is needed."""
    given = getattr(request.node, "callspec", None)
    return 1.0 if given and SILENCE in given.params.values() else 30.0


class Tokens:
    """A credential that gives token-1, then token-2 and so on; the scopes it was asked for."""

    def __init__(self) -> None:
        self.given = 0
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        self.given += 1
        self.scopes += scopes
        return AccessToken(f"token-{self.given}", 2**33)


class Time:
    """A clock that runs only when somebody sleeps; `then` is called at each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.then: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self.then()


@contextmanager
def serving(folder: Path) -> Iterator[Stub]:
    """A stub until the block ends; nothing that it does not know may have been asked."""
    stub = Stub(folder)
    try:
        yield stub
    finally:
        stub.close()
    if stub.unknown:
        pytest.fail(f"requests without a route: {stub.unknown}")


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that is its own authority: what to trust, and with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "contract stub")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    trusted, chain = folder / "stub-ca.pem", folder / "stub.pem"
    trusted.write_bytes(public)
    chain.write_bytes(private + public)
    return trusted, chain
