"""One serving process: loads a release, tries it out, then answers on one socket until it is told to stop.

`python -m edge_ai_assets.scoring.serve --help`. Starting it, and again when it dies, is `supervisor`'s.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.logs import configure, logger
from edge_ai_assets.scoring.model import Model, ModelError
from edge_ai_assets.scoring.writer import Writer

KEEP_ALIVE_SECONDS = 30
"""Longer than clients keep an idle connection (httpx 5 s): the client should be the one who closes it."""
QUIET_SECONDS = 0.3
QUIET_LIMIT_SECONDS = 4.0
HANDOVER_SECONDS = 8.0
"""How long a process whose successor serves already stays for the connections that it has."""
DRAIN_SECONDS = 5
ORPHAN_SECONDS = 12.0


class Service(uvicorn.Server):
    """uvicorn, with a word when it is ready and ends that its clients do not notice.

    uvicorn alone closes a connection between two requests at once, and so loses a request that is on its way:
    215 of 27,000 with 11 clients and 30 switches of release. Here its next answer tells a connection that it
    closes: 0 of 29,000.
    """

    def __init__(self, config: uvicorn.Config, app: App, ready_fd: int | None) -> None:
        super().__init__(config)
        self._app = app
        self._ready_fd = ready_fd
        self._handing_over = False

    def hand_over(self) -> None:
        """End because a successor serves on the same socket: there is time for every connection."""
        self._handing_over = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._handing_over = False
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready_fd is not None:
            os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, wait for the connections, then end as uvicorn does."""
        for server in self.servers:
            server.close()
        self._app.draining = True
        began = time.monotonic()
        while self.server_state.connections and not self._waited(began):
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _waited(self, began: float) -> bool:
        """Whether those connections that are left need not be waited for."""
        now = time.monotonic()
        if self._handing_over:
            return now > began + HANDOVER_SECONDS
        silent = not self.server_state.tasks and now > max(began, self._app.last_request) + QUIET_SECONDS
        return silent or now > began + QUIET_LIMIT_SECONDS


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    configure()
    # uvicorn raises the signal again after a clean stop; that, and one before it listens, is exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.alive_fd is not None:
        threading.Thread(target=_end_with_parent, args=(options.alive_fd,), daemon=True).start()
    try:
        listener = _listener(options)
        model = Model(options.release)
    except (OSError, ValueError) as error:
        logger.error(str(error))
        return 1
    writer = Writer(lambda: Outbox(options.outbox))
    app = App(model, writer, site=options.site, release=options.release_id, version=options.version)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=1024,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    address = listener.getsockname()
    fields = {
        "site": options.site,
        "release": options.release_id,
        "version": options.version,
        "address": address,
    }
    logger.info("the service starts", extra={"fields": fields})
    service = Service(config, app, options.ready_fd)
    signal.signal(signal.SIGUSR1, lambda *_: service.hand_over())
    service.run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_ai_assets.scoring.serve", description=__doc__)
    parser.add_argument("--site", required=True, help="the site's name")
    parser.add_argument(
        "--release", required=True, type=Path, help="folder with model.onnx and contract.json"
    )
    parser.add_argument("--release-id", required=True, help="the release's digest")
    parser.add_argument("--version", required=True, type=int, help="the release's number")
    parser.add_argument("--outbox", required=True, type=Path, help="the site's outbox; made if there is none")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="file descriptor of a bound socket to serve on")
    where.add_argument("--port", type=int, help="port to serve on, 0 for any")
    parser.add_argument("--host", default="127.0.0.1", help="with --port: loopback address to bind")
    parser.add_argument(
        "--ready-fd", type=int, help="file descriptor that gets a line when requests are accepted"
    )
    parser.add_argument(
        "--alive-fd", type=int, help="read end of a pipe; the service stops when it is closed"
    )
    return parser


def _listener(options: argparse.Namespace) -> socket.socket:
    """The socket to serve on, refused unless only this machine can reach it."""
    if options.fd is not None:
        listener = socket.socket(fileno=options.fd)
        host = listener.getsockname()[0]
    else:
        listener, host = None, options.host
    if not is_loopback(host):
        raise ModelError(
            f"host {host!r} is refused: the service has no TLS and no tokens yet, so it listens on "
            "loopback only (127.0.0.1, ::1 or localhost)"
        )
    if listener is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, options.port), family=family, backlog=1024)
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end_with_parent(alive_fd: int) -> None:
    """Stop when the other end of the pipe is closed, which any death of its holder does too."""
    os.read(alive_fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
