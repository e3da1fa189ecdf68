"""Folders for work under way: gone when it ends, and with the next work of the kind when it was killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".making-"


@contextmanager
def scratch(into: Path) -> Iterator[Path]:
    """A folder inside `into`, which must be there, so that what is made is moved out and not copied.

    Whoever works holds the lock file beside `into`, together with the others; the kernel lets go of it for
    one that is killed. Who finds nobody else at work clears what was left.
    """
    with into.with_name(f".{into.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody is at work: nothing is to be cleared now
        else:
            for left in into.glob(f"{PREFIX}*"):
                shutil.rmtree(left)
        fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=into) as folder:
            yield Path(folder)
