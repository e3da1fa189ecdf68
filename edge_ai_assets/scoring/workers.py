"""Several serving processes on the same sockets, and the one that keeps them.

They are forked before a model is loaded; the one thread there may be only waits for the parent's end. The
kernel gives each connection to one of them; the outbox's sequence is one for all, since each commit takes the
outbox's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_ai_assets.scoring.logs import logger

ORPHAN_SECONDS = 12.0
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Workers:
    """The processes that serve.

    Args:
        serve: serves until a signal, and returns the exit code; it is given the descriptor that gets a line
            when it is ready.
        listeners: what they accept from. This process closes its own copies as soon as it is to end: while
            one is open the kernel takes connections that nobody would serve.
        shared: the folder that they have in common; made and removed by the caller, and by them when this
            process is killed and cannot.
    """

    def __init__(self, serve: Callable[[int], int], listeners: Sequence[socket.socket], shared: Path) -> None:
        self._serve, self._listeners, self._shared = serve, listeners, shared
        self._ready: set[int] = set()
        self._ending: int | None = None
        self._alive, self._ours = os.pipe()  # closed with this process, whatever it dies of

    def run(self, number: int, ready_fd: int | None) -> int:
        """Keep so many processes serving until a signal ends them, or one cannot be made ready.

        A worker that dies after it was ready is replaced. One that dies before ends the service, as it does
        when there is only one: whoever supervises decides what then.

        Args:
            ready_fd: gets a line when all are ready.

        Returns:
            The exit code: 0 after a signal, 1 if a worker was not ready.
        """
        failed = not all(self._start() for _ in range(number))
        for each in PASSED_ON:
            signal.signal(each, lambda received, frame: self._end(received))
        if not failed and ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        while self._ready and not failed:
            pid, status = os.wait()
            if pid not in self._ready:
                continue  # of others: as the first process of a container this one is given its orphans
            self._ready.discard(pid)
            if self._ending is None:
                code = os.waitstatus_to_exitcode(status)
                logger.error(f"worker {pid} ended with {code}; another one takes its place")
                failed = not self._start() and self._ending is None
        if failed:
            self._end(signal.SIGTERM)
        while self._ready:
            self._ready.discard(os.wait()[0])
        return 1 if failed else 0

    def _start(self) -> bool:
        """Fork a worker and wait until it is ready; whether it is."""
        if self._ending is not None:
            return False
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(self._ours)
            self._work(writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if not pipe.readline():
                os.waitpid(pid, 0)
                return False
        self._ready.add(pid)
        if self._ending is not None:  # the signal came while it was started
            os.kill(pid, self._ending)
        return True

    def _work(self, ready_fd: int) -> None:
        """What the forked process does; it does not return."""
        code = 1
        try:
            for each in PASSED_ON:
                signal.signal(each, lambda *_: sys.exit(0))
            threading.Thread(target=end_with_parent, args=(self._alive, self._shared), daemon=True).start()
            code = self._serve(ready_fd)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception as error:
            logger.error(str(error), exc_info=True)
        finally:
            os._exit(code)  # what its parent has open or registered is not for it to end

    def _end(self, number: int) -> None:
        self._ending = number
        for listener in self._listeners:
            listener.close()
        for pid in list(self._ready):
            with contextlib.suppress(ProcessLookupError):  # `run` has just been told that it ended
                os.kill(pid, number)


def end_with_parent(alive_fd: int, shared: Path | None = None) -> None:
    """Stop when the other end of the pipe is closed, which any death of its holder does too.

    Args:
        shared: a folder that the holder would have removed.
    """
    os.read(alive_fd, 1)
    if shared is not None:
        shutil.rmtree(shared, ignore_errors=True)  # others of them do the same
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
