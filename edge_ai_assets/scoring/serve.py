"""The service as a command, `edge-ai serve`: opens its sockets, loads its releases, ends when it is told.

Several processes on the same sockets are `workers`'. Starting it, and again when it dies, is `supervisor`'s.
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
PORT = 8080


class Door(NamedTuple):
    """A socket to serve on, and what is asked of those who come in by it."""

    listener: socket.socket
    tls: ssl.SSLContext | None = None
    tokens: Tokens | None = None
    local: bool = False
    """Whether only this machine reaches it, and not through a proxy."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    configure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the service has its own way to end
    if options.alive_fd is not None:
        threading.Thread(target=end_with_parent, args=(options.alive_fd,), daemon=True).start()
    try:
        doors = _doors(options)
        if options.workers == 1:
            return _serve(options, doors, options.ready_fd, None)
        with tempfile.TemporaryDirectory(prefix="edge-ai-counters-") as counters:
            serving = Workers(lambda ready_fd: _serve(options, doors, ready_fd, Path(counters)))
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
            releases.append(Release(Model(Path(path)), other, int(number)))
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-ai serve",
        description="Scores over HTTP, each on disk before it is answered, and a page for people.",
        epilog="On another address than loopback it starts only with a certificate and tokens "
        "(`edge-ai tokens add`), or if a proxy before it sees to both.",
        fromfile_prefix_chars="@",  # @FILE: an option a line, as a container gets them from what is mounted
    )
    what = parser.add_argument_group("what is served")
    what.add_argument(
        "--release", required=True, type=Path, metavar="FOLDER", help=f"folder with {MODEL} and {CONTRACT}"
    )
    what.add_argument(
        "--release-id", metavar="DIGEST", help="the release's digest; default: of its two files"
    )
    what.add_argument("--version", type=int, default=1, help="the release's number; default: %(default)s")
    what.add_argument(
        "--also",
        nargs=3,
        action="append",
        default=[],
        metavar=("FOLDER", "DIGEST", "VERSION"),
        help="another release, which the Open Inference Protocol serves by its number",
    )
    what.add_argument(
        "--site", default="local", help="its name is in the ids of scores; default: %(default)s"
    )
    what.add_argument(
        "--outbox",
        type=Path,
        default=Path("outbox.db"),
        metavar="FILE",
        help="the site's outbox; made if there is none; default: %(default)s",
    )
    what.add_argument(
        "--quota", type=_positive, metavar="BYTES", help="what the outbox may hold before scoring is refused"
    )
    where = parser.add_argument_group("where and to whom")
    where.add_argument("--host", default="127.0.0.1", help="address to serve on; default: %(default)s")
    where.add_argument("--port", type=int, default=PORT, help="0 for any free one; default: %(default)s")
    where.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM; renewed files are taken up")
    where.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM, not encrypted")
    where.add_argument("--tokens", type=Path, metavar="FILE", help="made by `edge-ai tokens add`")
    where.add_argument(
        "--behind-proxy", action="store_true", help="a proxy before the service does TLS and asks who comes"
    )
    where.add_argument("--workers", type=_positive, default=1, help="processes; default: %(default)s")
    by_supervisor = parser.add_argument_group("for a supervisor")
    by_supervisor.add_argument("--fd", type=int, help="bound loopback socket, instead of an address")
    by_supervisor.add_argument("--exposed-fd", type=int, help="a second one, for which TLS and tokens hold")
    by_supervisor.add_argument("--ready-fd", type=int, help="gets a line when requests are accepted")
    by_supervisor.add_argument(
        "--alive-fd", type=int, help="read end of a pipe; serving ends when it is closed"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, it is {number}")
    return number


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
