"""What a supervisor does: keeps one release serving on one socket, changes it, goes back from a bad one.

Processes are `child`'s, files `folder`'s. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring.child import Child, Command, NotReady, ending, serve_command
from edge_ai_assets.scoring.folder import Failure, Release, Status, Wish
from edge_ai_assets.scoring.options import Exposed

CRASHES = 3
CRASH_SECONDS = 30.0
"""So many crashes in so many seconds, and a release is given up for the one before."""
BACKOFF_SECONDS = 0.1
BACKOFF_LIMIT_SECONDS = 5.0


class Keeper:
    """Supervises one site. The caller holds the folder's lock and has bound the socket.

    Args:
        folder: the site's folder.
        listeners: the listening sockets, on loopback and perhaps the one that is exposed; they outlive every
            serving process, so connections wait and are kept.
        url: where this machine's own clients reach it.
        exposed: what guards the second socket.
        command: makes a serving process's command line.
        patient: wait for a release when there is none that can be served, rather than end.
    """

    def __init__(
        self,
        folder: Path,
        site: str,
        listeners: Sequence[socket.socket],
        url: str,
        *,
        exposed: Exposed | None = None,
        command: Command = serve_command,
        patient: bool = False,
    ) -> None:
        self._patient = patient
        self._folder, self._site, self._listeners = folder, site, listeners
        self._exposed, self._command = exposed, command
        before = files.read_status(folder)
        pid = os.getpid()
        self._before = before.current if before else None
        self.status = Status(
            site=site,
            pid=pid,
            pid_started=files.process_started(pid),
            url=url,
            previous=before.previous if before else None,
            failed=before.failed if before else None,
            request=before.request if before else None,
        )
        # Children read from this pipe; the kernel closes our end whatever this process dies of.
        self._alive, self._alive_ours = os.pipe()
        self._child: Child | None = None
        self._former: set[Child] = set()
        self._crashes: list[float] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._drains: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until SIGTERM; SIGHUP reads the wish again. The exit code: 1 if nothing could be served."""
        loop = asyncio.get_running_loop()
        wanted, ended = asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, wanted.set)
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGINT, ended.set)
        self._record()  # from here on a caller may send signals
        stop = asyncio.create_task(ended.wait())
        work = asyncio.create_task(self._work(wanted))
        try:
            await asyncio.wait([stop, work], return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            stop.cancel()
            await self._end()
        return 0 if ended.is_set() else 1

    async def _work(self, wanted: asyncio.Event) -> None:
        """Serve what is wanted, each time it is asked for; returns when nothing can, unless it is patient."""
        wish = self._wish()
        if wish and not (self._before and self._given_up(wish)):
            await self._fulfil(wish)
        if self.status.current is None and self._before is not None:
            # What is wanted was given up before, or has failed now: what served last serves again.
            await self._switch(Wish(self._before), failed=self.status.failed)
        while self._patient or self.status.current is not None:
            await wanted.wait()
            wanted.clear()
            wish = self._wish()
            if wish and (wish.request is None or wish.request != self.status.request):
                await self._fulfil(wish)
        self._record(current=self._before)  # remembered for the next supervisor

    def _given_up(self, wish: Wish) -> bool:
        """Whether a supervisor before this one dealt with the wish, and its release failed then or later."""
        failed = self.status.failed
        return wish.request == self.status.request and bool(
            failed and failed.release_id == wish.release.release_id
        )

    def _wish(self) -> Wish | None:
        try:
            return files.read_wish(self._folder)
        except (OSError, ValueError) as error:
            self._log(str(error))
            return None

    async def _fulfil(self, wish: Wish) -> None:
        if self._child is None or self._child.exited.done() or wish.release != self.status.current:
            await self._switch(wish, failed=None)
        self._record(request=wish.request)

    async def _switch(self, wish: Wish, *, failed: Failure | None) -> None:
        """Start the wanted release beside the current one; only when it is ready, it takes over."""
        try:
            child = await self._start(wish.release, wish.deadline)
        except NotReady as error:
            self._fail(wish.release, str(error))
            return
        former, self._child = self._child, child
        left = self.status.current or self._before
        previous = left if left and left != wish.release else self.status.previous
        self._crashes.clear()
        self._serve(child, previous, failed)
        if former is not None:
            self._former.add(former)
            former.exited.add_done_callback(lambda _: self._former.discard(former))
            self._keep(self._drains, former.hand_over())

    def _serve(self, child: Child, previous: Release | None, failed: Failure | None) -> None:
        with _unless_disk_full():
            files.link(self._folder, "previous", previous)
            files.link(self._folder, "current", child.release)
        since = files.now_text()
        self._record(
            current=child.release, since=since, previous=previous, failed=failed, child_pid=child.pid
        )
        self._log(f"release {child.release.release_id} (version {child.release.version}) serves")
        self._keep(self._watches, self._watch(child))

    async def _watch(self, child: Child) -> None:
        """Bring the current release back when its process dies; the one before, if it keeps dying."""
        code = await asyncio.shield(child.exited)
        if self._child is not child:
            return
        reason = f"its process ended with {ending(code)}; it said: {child.tail}"
        while self._child is child:
            release = self.status.current
            assert release is not None
            self._log(f"release {release.release_id}: {reason}")
            now = time.monotonic()
            self._crashes = [*(crash for crash in self._crashes if now - crash < CRASH_SECONDS), now]
            if len(self._crashes) >= CRASHES and (back := self._way_back()):
                self._crashes.clear()
                self._fail(release, f"it crashed {CRASHES} times within {CRASH_SECONDS:g} s: {reason}")
                self._record(current=back, previous=None)
                release = back
            self._record(child_pid=None)
            await asyncio.sleep(min(BACKOFF_SECONDS * 2 ** len(self._crashes), BACKOFF_LIMIT_SECONDS))
            try:
                fresh = await self._start(release, Wish(release).deadline)
            except NotReady as error:
                reason = str(error)
                continue
            if self._child is not child:  # a switch took over meanwhile
                await fresh.drain()
                return
            self._child = fresh
            self._record(restarts=self.status.restarts + 1)
            self._serve(fresh, self.status.previous, self.status.failed)

    def _way_back(self) -> Release | None:
        """The release before the current one, unless it was withdrawn since."""
        former = self.status.previous
        return None if former and former.release_id in files.withdrawn(self._folder) else former

    async def _start(self, release: Release, deadline: float) -> Child:
        return await Child.start(
            self._folder,
            self._site,
            release,
            socket_fds=[listener.fileno() for listener in self._listeners],
            exposed=self._exposed,
            also=self.status.previous if self.status.current in (None, release) else self.status.current,
            alive_fd=self._alive,
            deadline=deadline,
            command=self._command,
        )

    async def _end(self) -> None:
        """Nobody restarts anything any more; then whoever serves finishes and ends."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for child in [*self._former, *([self._child] if self._child else [])]:
            self._keep(self._drains, child.drain())
        await asyncio.gather(*self._drains)
        self._record(child_pid=None)
        self._log("the supervisor ends")

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        """Run in the background; the event loop itself keeps no reference to a task."""
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _fail(self, release: Release, reason: str) -> None:
        self._log(f"release {release.release_id} failed: {reason}")
        self._record(failed=Failure(release.release_id, reason, files.now_text()))

    def _record(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        with _unless_disk_full():
            files.write_status(self._folder, self.status)

    def _log(self, text: str) -> None:
        with _unless_disk_full():
            files.log(self._folder, text)


def _unless_disk_full() -> contextlib.AbstractContextManager[None]:
    """What is written for people must not end what serves them: a full disk costs a line or a link only."""
    return contextlib.suppress(OSError)
