"""One listening socket and its connections: taken, swept once a second, told to end."""

from __future__ import annotations

import asyncio
import math
import resource
import select
import socket
import ssl
import time
import weakref
from email.utils import formatdate
from typing import Any, NamedTuple

from edge_ai_assets.scoring.http import HEAD_SECONDS, Connection
from edge_ai_assets.scoring.messages import Application
from edge_ai_assets.scoring.options import BACKLOG

MAX_CONNECTIONS = 16_384
SPARE_FILES = 64
"""Of those that the process may have open, what is left for all but connections."""
SWEEP_SECONDS = 1.0
LAST_CALL_SECONDS = 0.2
"""In which a server that ends accepts what waits for it, however fast more comes."""


class Patience(NamedTuple):
    """How long a server that stops waits for its clients; it may be changed meanwhile."""

    seconds: float
    """After which nothing is waited for."""
    quiet_seconds: float
    """Without a request, after which idle connections are closed."""


ENDING = Patience(4.0, 0.3)
HANDING_OVER = Patience(8.0, math.inf)
"""When a successor serves already: there is time for every connection to be told with its next answer."""


class Server:
    """Serves an application on one listening socket; used on one event loop.

    Args:
        app: see Application.
        ssl: for TLS.
        tokens, local: what the application asks of those who come in here, and whether all of them are on
            this machine; the server only hands it on.
    """

    def __init__(
        self,
        app: Application,
        *,
        ssl: ssl.SSLContext | None = None,
        tokens: Any = None,
        local: bool = False,
    ) -> None:
        self.app = app
        self.tokens, self.local = tokens, local
        self.connections: set[Connection] = set()
        self.arriving: weakref.WeakSet[Connection] = weakref.WeakSet()
        """Accepted, but not made yet: mostly in a TLS handshake. One that fails is told to nobody."""
        self.buffered = 0
        self.draining = False
        self.patience = ENDING
        self.now = time.monotonic()
        self.last_request = self.now
        self.always = b""
        self.ssl = ssl
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most_connections = min(MAX_CONNECTIONS, max(files - SPARE_FILES, 1))
        self._listening: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._sweep()
        self._listening = await self._loop.create_server(
            self._arrive,
            sock=listener,
            ssl=self.ssl,
            ssl_handshake_timeout=None if self.ssl is None else HEAD_SECONDS,
            backlog=BACKLOG,
        )

    def _arrive(self) -> Connection:
        connection = Connection(self)
        self.arriving.add(connection)
        return connection

    async def stop(self) -> None:
        """Accept no more, answer each connection once more, then close what is left: see `Patience`."""
        self.draining = True
        began = time.monotonic()
        if self._listening is not None:
            # Those that the kernel has let in already: it would reset them when the listener is closed.
            queue = select.poll()
            queue.register(self._listener, select.POLLIN)
            while queue.poll(0) and time.monotonic() < began + LAST_CALL_SECONDS:
                await asyncio.sleep(0)
            self._listening.close()
            self._listening = None
        while (self.connections or self.arriving) and (
            now := time.monotonic()
        ) < began + self.patience.seconds:
            idle = not any(connection.busy for connection in self.connections)
            if idle and now > max(began, self.last_request) + self.patience.quiet_seconds:
                break
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        self._sweeper.cancel()

    def _sweep(self) -> None:
        """Once a second, so that a connection costs no timer of its own."""
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self.now = time.monotonic()
        date = formatdate(usegmt=True).encode()
        self.always = b"date: %b\r\nx-content-type-options: nosniff\r\n" % date
        for connection in [each for each in self.connections if each.deadline < self.now]:
            connection.expire()
        self.app.connected(self, len(self.connections))
