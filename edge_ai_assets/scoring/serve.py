"""The service as a command, `edge-ai serve`: opens its sockets, loads its releases, ends when it is told.

What it may be told is `arguments`', several processes on the same sockets are `workers`'. Starting it, and
again when it dies, is `supervisor`'s.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import os
import resource
import signal
import socket
import sqlite3
import ssl
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import uvloop

from edge_ai_assets.returns.outbox.outbox import OutboxError
from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.arguments import parsed
from edge_ai_assets.scoring.logs import configure, logger
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.model import CONTRACT, MODEL, Model, ModelError
from edge_ai_assets.scoring.options import Exposed, OptionsError, listen
from edge_ai_assets.scoring.server import ENDING, HANDING_OVER, Patience, Server
from edge_ai_assets.scoring.standing import Release
from edge_ai_assets.scoring.tls import context
from edge_ai_assets.scoring.tokens import Tokens
from edge_ai_assets.scoring.workers import Workers, end_with_parent
from edge_ai_assets.scoring.writer import Writer

SWITCH_SECONDS = 0.0005
"""After which a thread that wants the interpreter gets it: small requests should not wait for large ones."""


class Door(NamedTuple):
    """A socket to serve on, and what is asked of those who come in by it."""

    listener: socket.socket
    tls: ssl.SSLContext | None = None
    tokens: Tokens | None = None
    local: bool = False
    """Whether only this machine reaches it, and not through a proxy."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    configure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the service has its own way to end
    if options.alive_fd is not None:
        threading.Thread(target=end_with_parent, args=(options.alive_fd,), daemon=True).start()
    try:
        doors = _doors(options)
        if options.workers == 1:
            return _serve(options, doors, options.ready_fd, None)
        with tempfile.TemporaryDirectory(prefix="edge-ai-counters-") as counters:
            serving = Workers(
                lambda ready_fd: _serve(options, doors, ready_fd, Path(counters)),
                [door.listener for door in doors],
                Path(counters),
            )
            return serving.run(options.workers, options.ready_fd)
    except (OSError, ValueError) as error:
        logger.error(str(error))
    except (OutboxError, sqlite3.Error) as error:
        logger.error(f"the outbox cannot be opened: {error}")
    return 1


def _serve(
    options: argparse.Namespace, doors: Sequence[Door], ready_fd: int | None, counters: Path | None
) -> int:
    """One process that serves, until it is told to end."""
    digest = options.release_id or _digest(options.release)
    releases = [Release(Model(options.release), digest, options.version)]
    for path, other, number in options.also:
        try:
            releases.append(Release(Model(path), other, number))
        except ModelError as error:  # what is wanted must not fail for what was
            logger.warning(f"release {other} is not served beside it: {error}")
    metrics = Metrics(counters, releases[0].model.contract)
    writer = Writer(options.outbox, quota=options.quota)
    guarded = any(door.tokens is not None for door in doors)
    app = App(releases, writer, site=options.site, metrics=metrics, guarded=guarded)
    fields = {
        "site": options.site,
        "release": releases[0].digest,
        "version": releases[0].version,
        "addresses": [door.listener.getsockname() for door in doors],
        "pid": os.getpid(),
    }
    logger.info("the service starts", extra={"fields": fields})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a file
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what was made until here stays: no collection need look at it again
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(app, doors, ready_fd))
    app.close()
    writer.close()
    return 0


async def _run(app: App, doors: Sequence[Door], ready_fd: int | None) -> None:
    """Serve until SIGTERM or SIGINT; on SIGUSR1 until every connection has gone to the successor.

    Closing a connection between two requests loses a request that is on its way: 215 of 27,000 with 11
    clients and 30 switches of release. So its next answer tells a connection that it closes: 0 of 29,000.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    servers = [Server(app, ssl=door.tls, tokens=door.tokens, local=door.local) for door in doors]

    def end(patience: Patience) -> None:
        if ended.is_set() and patience == HANDING_OVER:
            return  # both signals were pending, and came in the other order than they were sent
        for server in servers:
            server.patience = patience
        ended.set()

    loop.add_signal_handler(signal.SIGTERM, end, ENDING)
    loop.add_signal_handler(signal.SIGINT, end, ENDING)
    loop.add_signal_handler(signal.SIGUSR1, end, HANDING_OVER)
    for server, door in zip(servers, doors, strict=True):
        await server.start(door.listener)
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    await ended.wait()
    await asyncio.gather(*(server.stop() for server in servers))


def _doors(options: argparse.Namespace) -> list[Door]:
    exposed = Exposed(
        host=options.host,
        port=options.port,
        tls_certificate=options.tls_certificate,
        tls_key=options.tls_key,
        tokens=options.tokens,
        behind_proxy=options.behind_proxy,
    )
    exposed.check()  # before anybody can reach it
    if options.fd is None:
        return [_guarded(listen(exposed), exposed)]
    doors = [Door(socket.socket(fileno=options.fd), local=True)]
    if not Exposed(doors[0].listener.getsockname()[0]).loopback:
        raise OptionsError(
            "--fd takes a socket on loopback only; one on another address goes to --exposed-fd"
        )
    if options.exposed_fd is not None:
        doors.append(_guarded(socket.socket(fileno=options.exposed_fd), exposed))
    return doors


def _guarded(listener: socket.socket, exposed: Exposed) -> Door:
    replace(exposed, host=listener.getsockname()[0]).check()  # a socket that was given may have any address
    tls = None
    if exposed.tls_certificate is not None and exposed.tls_key is not None:
        tls = context(exposed.tls_certificate, exposed.tls_key)
    tokens = None if exposed.tokens is None else Tokens(exposed.tokens)
    return Door(listener, tls, tokens, local=exposed.loopback and not exposed.behind_proxy)


def _digest(folder: Path) -> str:
    """What stands for a release that nobody published: SHA-256 over its two files."""
    found = hashlib.sha256()
    for name in (MODEL, CONTRACT):
        found.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return f"sha256:{found.hexdigest()}"


if __name__ == "__main__":
    sys.exit(main())
