"""One serving process as its supervisor sees it: started, ready, dead, or asked to end.

When to start or end one is `keeper`'s decision. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from edge_ai_assets.scoring.folder import OUTBOX, Release, append_log, sentence
from edge_ai_assets.scoring.options import Exposed

TAIL_LINES = 8
DRAIN_SECONDS = 12.0
"""A serving process ends within 10 s of SIGTERM; one that does not is killed."""
HANDOVER_SECONDS = 20.0
"""The same when it is told that another one took over: it then waits for its connections first."""
ROOT = Path(__file__).resolve().parents[2]

Command = Callable[[Release, Sequence[str]], list[str]]


class NotReady(RuntimeError):
    """A serving process that died, or was not ready in time; the message says what it said last."""


class Child:
    """A serving process that is ready, until `exited` is done. Made by `start`.

    What it writes to standard error goes through the supervisor into the site's log, so that the log can be
    rotated and its last lines can be told.
    """

    def __init__(self, folder: Path, release: Release, process: asyncio.subprocess.Process) -> None:
        self.release = release
        self._folder = folder
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.exited = asyncio.create_task(self._follow())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def tail(self) -> str:
        """What it said last."""
        return sentence(list(self._tail)) or "it said nothing"

    @classmethod
    async def start(
        cls,
        folder: Path,
        site: str,
        release: Release,
        *,
        socket_fds: Sequence[int],
        exposed: Exposed | None,
        also: Release | None,
        alive_fd: int,
        deadline: float,
        command: Command,
    ) -> Self:
        """Start a process on a release and wait until it is ready.

        Args:
            socket_fds: the listening sockets, which it inherits; on the second one `exposed` holds.
            also: the release before, which the Open Inference Protocol still serves by its number.
            alive_fd: read end of a pipe whose other end this process holds; it ends when that is closed.
            deadline: seconds in which it must be ready.
            command: makes the command line.

        Raises:
            NotReady: it died or took too long, and is gone.
        """
        ready, ready_fd = os.pipe()
        try:
            options = ["--site", site, "--release", release.path, "--release-id", release.release_id]
            options += ["--version", str(release.version), "--outbox", str(folder / OUTBOX)]
            options += ["--fd", str(socket_fds[0]), "--ready-fd", str(ready_fd), "--alive-fd", str(alive_fd)]
            if release.quota is not None:
                options += ["--quota", str(release.quota)]
            if also is not None:
                options += ["--also", also.path, also.release_id, str(also.version)]
            if exposed is not None:
                options += ["--exposed-fd", str(socket_fds[1]), "--workers", str(exposed.workers)]
                options += exposed.arguments()
            process = await asyncio.create_subprocess_exec(
                *command(release, options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(*socket_fds, ready_fd, alive_fd),
                cwd=folder,
                env=environment(),
                limit=1024 * 1024,
            )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(ready_fd)
        child = cls(folder, release, process)
        try:
            await child._until_ready(ready, deadline)
        except BaseException:
            await child.kill()
            raise
        return child

    async def drain(self) -> None:
        """Ask it to finish its requests and end; returns when it is gone."""
        await self._end(signal.SIGTERM, DRAIN_SECONDS)

    async def hand_over(self) -> None:
        """Tell it that another one serves on the socket now; returns when it is gone."""
        await self._end(signal.SIGUSR1, HANDOVER_SECONDS)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL, None)

    async def _end(self, number: signal.Signals, seconds: float | None) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)
        done, _ = await asyncio.wait([self.exited], timeout=seconds)
        if not done:
            await self.kill()

    async def _until_ready(self, descriptor: int, deadline: float) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        try:
            async with asyncio.timeout(deadline):
                if await reader.readline():
                    return
                code = await asyncio.shield(self.exited)
        except TimeoutError:
            raise NotReady(f"it was not ready within {deadline:g} s; it said: {self.tail}") from None
        finally:
            transport.close()
        raise NotReady(f"it ended with {ending(code)} before it was ready; it said: {self.tail}")

    async def _follow(self) -> int:
        """Copy what it says into the log until it ends; its exit code."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line longer than the reader's limit; what was read of it is dropped
                continue
            if not line:
                return await self._process.wait()
            self._tail.append(line.decode("utf-8", "replace").rstrip()[:2000])
            with contextlib.suppress(
                OSError
            ):  # a full disk costs lines of the log; not reading on would stop the process
                append_log(self._folder, line)


def serve_command(release: Release, options: Sequence[str]) -> list[str]:
    """The command line of a serving process. `-P`: nothing in the site's folder is imported."""
    return [sys.executable, "-P", "-m", "edge_ai_assets.scoring.serve", *options]


def environment() -> dict[str, str]:
    """The environment of a process of ours: it finds this package wherever its caller found it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
