"""Supervising a site's scoring service: what other programs call, and the command that supervises.

`deploy`, `status` and `stop` are called on the site's machine, by Dagster or the command line.
`python -m edge_ai_assets.scoring.supervisor` runs a supervisor in the foreground, as systemd wants it. What
it does is `keeper`'s work, what it leaves on disk is `folder`'s. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring.child import ROOT, environment
from edge_ai_assets.scoring.folder import Failure, Release, Status, Wish
from edge_ai_assets.scoring.keeper import Keeper
from edge_ai_assets.scoring.options import Exposed, listen, read

__all__ = ["DeploymentFailed", "Failure", "Release", "Status", "deploy", "status", "stop"]

DEPLOY_LOCK = "deploy.lock"
STARTS = 3
GRACE_SECONDS = 10.0
"""What a deployment may take beyond the release's own deadline: starting the supervisor, ending a process."""
STOP_SECONDS = 20.0
PORT_SECONDS = 2.0
POLL_SECONDS = 0.02


class DeploymentFailed(RuntimeError):
    """A release was not taken into service; the message says why, and which one serves instead."""


def status(folder: Path) -> Status | None:
    """What a site's supervisor says; None when the site has no supervisor, or it serves no release yet.

    Two small file operations, no process is asked.
    """
    found = files.read_status(folder) if files.supervised(folder) else None
    return found if found and found.current else None


def deploy(
    folder: Path,
    *,
    site: str,
    release_id: str,
    version: int,
    path: Path,
    quota: int | None = None,
    timeout: float = 30.0,
) -> Status:
    """Take a release into service on a site; start the site's supervisor if there is none.

    The release that serves until now goes on until the new one is ready, and no connection is refused. On
    connections that are open it may still answer for a moment; each answer says which release it is from.

    Args:
        folder: the site's folder; made if there is none.
        site: the site's name.
        release_id: the release's digest; version: its number.
        path: folder with model.onnx and contract.json; it must stay.
        quota: bytes that the outbox may hold; scoring is refused beyond.
        timeout: seconds in which the release must be ready.

    Raises:
        DeploymentFailed: it was not ready in time, refused its model or died; the former release serves on.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wish = Wish(Release(release_id, version, str(path.resolve()), quota), secrets.token_hex(8), timeout)
    try:
        with files.hold(folder / DEPLOY_LOCK, seconds=timeout):
            files.write_wish(folder, wish)
            return _outcome(folder, site, wish)
    except TimeoutError as error:
        raise DeploymentFailed(f"site {site!r}: release {release_id} was not deployed: {error}") from error


def stop(folder: Path) -> None:
    """End a site's service: requests in flight are finished, then supervisor and service are gone.

    Raises:
        TimeoutError: it did not end in time.
    """
    until = time.monotonic() + STOP_SECONDS
    while files.supervised(folder):
        _signal(folder, signal.SIGTERM)
        if time.monotonic() > until:
            raise TimeoutError(f"{folder}: the supervisor did not end within {STOP_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _outcome(folder: Path, site: str, wish: Wish) -> Status:
    """Wake the supervisor, or start one, and wait until it has dealt with the wish."""
    until = time.monotonic() + wish.deadline + GRACE_SECONDS
    starts, woken = 0, False
    while time.monotonic() < until:
        alive = files.supervised(folder)
        found = files.read_status(folder)
        if found and found.request == wish.request:
            return _judged(found, alive, site, wish)
        if not alive:
            if starts == STARTS:
                break
            starts += 1
            _start(folder, site)
            woken = True  # a supervisor reads the wish when it starts
        elif not woken:
            woken = _signal(folder, signal.SIGHUP)
        time.sleep(POLL_SECONDS)
    said = files.sentence(files.log_tail(folder)) or "nothing"
    reason = f"its supervisor did not answer; {folder / files.LOG} says last: {said}"
    raise DeploymentFailed(f"site {site!r}: release {wish.release.release_id} was not deployed: {reason}")


def _judged(found: Status, alive: bool, site: str, wish: Wish) -> Status:
    if alive and found.current == wish.release and found.child_pid is not None:
        return found
    reason = found.failed.reason if found.failed else "its process has ended"
    serving = f"release {found.release_id} still serves" if alive and found.current else "no release serves"
    raise DeploymentFailed(f"site {site!r}: release {wish.release.release_id} failed: {reason} ({serving})")


def _signal(folder: Path, number: signal.Signals) -> bool:
    """Send a signal to the supervisor if its process surely wrote the state; whether it was sent."""
    found = files.read_status(folder)
    if found is None or files.process_started(found.pid) != found.pid_started:
        return False  # a supervisor that is about to write its state, or to release its lock
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, number)
        return True
    return False


def _start(folder: Path, site: str) -> None:
    """Start a supervisor that is tied to nothing of this process: no pipe, session or child to wait for."""
    command = [sys.executable, "-P", "-m", __spec__.name, "--folder", str(folder), "--site", site, "--detach"]
    with (folder / files.LOG).open("ab") as log:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,
            check=False,  # why it failed stands in the log; whether it serves is seen by its lock
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge_ai_assets.scoring.supervisor", description=__doc__)
    parser.add_argument(
        "--folder", required=True, type=Path, help="the site's folder; desired.json in it says what to serve"
    )
    parser.add_argument("--site", required=True, help="the site's name")
    parser.add_argument("--detach", action="store_true", help="go to the background once the socket is bound")
    parser.add_argument(
        "--wait", action="store_true", help="wait for a release if there is none, as systemd's services do"
    )
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # until it has a meaning: by default it would end this process
    try:
        with _held(folder), contextlib.ExitStack() as sockets:
            exposed = read(folder)
            listeners = [sockets.enter_context(_listener(folder))]
            if exposed is not None:
                listeners.append(sockets.enter_context(_patiently(exposed)))
            if options.detach and os.fork():
                os._exit(0)  # the lock and the sockets are the other process's now
            host, port = listeners[0].getsockname()
            url, patient = f"http://{host}:{port}", options.wait
            keeper = Keeper(folder, options.site, listeners, url, exposed=exposed, patient=patient)
            return asyncio.run(keeper.run())
    except (OSError, ValueError) as error:
        files.log(folder, f"the supervisor of site {options.site!r} failed: {error}", "error")
        print(f"site {options.site!r}: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    # Those who only ask hold the lock for an instant; a second supervisor holds it for good.
    with files.hold(folder / files.LOCK, seconds=0.5):
        yield


def _listener(folder: Path) -> socket.socket:
    """The loopback socket for this machine's own programs, on the port of last time if it is free.

    Their addresses should outlive a supervisor.
    """
    before = files.read_status(folder)
    former = urlsplit(before.url).port if before and before.url else None
    try:
        return _patiently(Exposed(port=former or 0))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return listen(Exposed())


def _patiently(exposed: Exposed) -> socket.socket:
    """As `listen`; a serving process whose supervisor was killed may hold the port for a moment yet."""
    until = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return listen(exposed)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
