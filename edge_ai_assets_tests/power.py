"""What a power cut may leave of a folder: a model of a disk that keeps no more than it was told to.

POSIX promises little without fsync: what was written to a file may be there or not until the file is synced,
and names that were made, replaced or removed until their folder is. Nothing here cuts anything: while code
under test runs, `watched` asks before each of its steps which states a cut could leave then, and shows them
to a check. SQLite syncs by itself, out of sight: `returns/test_power_loss.py` has a disk for it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest import mock

STEPS = ("fsync", "replace", "rename", "link", "unlink", "mkdir")


class Disk:
    """A folder, and what of it is durable: the content of files, and the names in folders, by inode.

    What is in it at first is durable.

    Args:
        root: the folder.
        states: where states are laid out to be looked at; outside of `root`.
        careless: names of functions whose own fsync is left out, of a file (`append`) or of a folder
            (`append/`): what their tests must notice.
    """

    def __init__(self, root: Path, states: Path, careless: Collection[str] = ()) -> None:
        self.root, self._states, self._careless = root, states, careless
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._pinned: list[int] = []
        for path in [root, *root.rglob("*")]:
            self._sync(path)

    def unsync(self, folder: Path) -> None:
        """Its names are there, and would not survive: whoever made them was killed before he synced it."""
        self._names[folder.stat().st_ino] = {}

    @contextmanager
    def watched(self, check: Callable[[Path], None]) -> Iterator[None]:
        """Within it, check what each step could leave: given is a folder in the place of `root`."""

        def stepping(name: str, true: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                self.check(check)
                if name == "fsync":
                    self._synced(arguments[0])
                return true(*arguments, **options)

            return step

        with mock.patch.multiple(os, **{name: stepping(name, getattr(os, name)) for name in STEPS}):
            yield
        self.check(check)

    def check(self, check: Callable[[Path], None]) -> None:
        """Look at what a cut could leave at this moment."""
        with mock.patch.multiple(os, **TRUE):
            for kept, written in itertools.product((False, True), (0.0, 0.5, 1.0)):
                state = self._states / "state"
                shutil.rmtree(state, ignore_errors=True)
                self._lay_out(self.root.stat().st_ino, self.root, state, kept, written)
                check(state)

    def _lay_out(self, inode: int, now: Path | None, into: Path, kept: bool, written: float) -> None:
        """A folder as a cut leaves it.

        Args:
            now: where it is at this moment, if it has a name.
            kept: whether changes to names that were not synced are there all the same.
            written: how much is there of what was written to files and not synced.
        """
        into.mkdir()
        places = {path.lstat().st_ino: path for path in self.root.rglob("*")}
        if kept and now is not None:
            names = {path.name: path.lstat().st_ino for path in now.iterdir()}
        else:
            names = self._names.get(inode, {})
        for name, child in names.items():
            place = places.get(child)
            if child in self._names or (place is not None and place.is_dir()):
                self._lay_out(child, place, into / name, kept, written)
                continue
            durable = self._content.get(child, b"")
            new = place.read_bytes() if place is not None else durable
            if written == 0 or new == durable:
                (into / name).write_bytes(durable)
            else:
                old = len(durable) if new.startswith(durable) else 0
                (into / name).write_bytes(new[: old + round((len(new) - old) * written)])

    def _synced(self, handle: int) -> None:
        inode = os.fstat(handle).st_ino
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if _caller() + "/" * folder in self._careless:
            return
        for path in [self.root, *self.root.rglob("*")]:
            if path.lstat().st_ino == inode:
                self._sync(path)
                return

    def _sync(self, path: Path) -> None:
        inode = path.lstat().st_ino
        # An inode that is open is not given to another file.
        self._pinned.append(os.open(path, os.O_RDONLY))
        if path.is_dir():
            self._names[inode] = {each.name: each.lstat().st_ino for each in path.iterdir()}
            self._pinned += [os.open(each, os.O_RDONLY) for each in path.iterdir()]
        else:
            self._content[inode] = path.read_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._pinned:
            os.close(handle)


TRUE = {name: getattr(os, name) for name in STEPS}


def _caller() -> str:
    """The function of the project on whose behalf something is synced."""
    frame = sys._getframe(2)
    while frame and (
        frame.f_code.co_name in ("sync_folder", "step") or "edge_ai_assets/" not in frame.f_code.co_filename
    ):
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_code.co_name
