"""Contract stub: an HTTPS server of a private authority, with answers made up by the test.

What is answered stands in the tests, with the page of documentation that it is from.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any

import trustme


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Where it is, what to trust, and what it was asked."""

    port: int
    ca: Path
    asked: list[Request]

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"


@contextmanager
def serving(
    folder: Path,
    answer: Callable[[Request], Answer],
    *,
    names: tuple[str, ...] = ("localhost",),
    ahead: float = 0,
    until: datetime | None = None,
) -> Iterator[Server]:
    """A server until the block ends.

    Args:
        names: whose the certificate is.
        ahead: seconds by which its clock is ahead.
        until: when its certificate ends; long from now when absent.
    """
    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    asked: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time() + ahead, usegmt=True)

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            one = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            asked.append(one)
            said = answer(one)
            data = b"" if self.command == "HEAD" else said.body
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):  # whatever the method
                return self._serve
            raise AttributeError(name)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_after=until).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Server(server.server_address[1], ca, asked)
    finally:
        server.shutdown()
        server.server_close()
