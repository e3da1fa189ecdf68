"""What a supervisor leaves in a site's folder for others to read: its lock, its state, the links, the log.

Only files: starting and stopping processes is `child`'s and `keeper`'s work. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DESIRED = "desired.json"
SERVICE = "service.json"
LOG = "service.log"
LOCK = "service.lock"
OUTBOX = "outbox.db"
LEASE = "lease.json"
"""Written by others, see `lease`: it names the releases that were withdrawn."""
LOG_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True)
class Release:
    """A release that can be served: its digest, its number, and the folder with its model."""

    release_id: str
    version: int
    path: str
    quota: int | None = None
    """Bytes that the outbox may hold while it serves; None for no bound."""


@dataclass(frozen=True)
class Wish:
    """What `desired.json` says: serve this release. `request` tells apart two wishes for the same release."""

    release: Release
    request: str | None = None
    deadline: float = 30.0
    """Seconds in which the release must be ready."""


@dataclass(frozen=True)
class Failure:
    """A release that could not be served, or could not be kept serving."""

    release_id: str
    reason: str
    at: str


@dataclass(frozen=True)
class Status:
    """What `service.json` says. A `pid` there is only believed while the lock is held."""

    site: str
    pid: int
    pid_started: str | None
    """When the supervisor's process started, in the kernel's count; a later process has another."""
    url: str | None = None
    child_pid: int | None = None
    """None while the serving process is being restarted; connections then wait."""
    current: Release | None = None
    since: str | None = None
    """When the current release began to serve, ISO 8601, UTC."""
    previous: Release | None = None
    failed: Failure | None = None
    """The last release that failed, until another one succeeds."""
    restarts: int = 0
    """Restarts after a crash since the supervisor started."""
    request: str | None = None
    """The last wish that was dealt with, well or badly."""

    @property
    def release_id(self) -> str | None:
        return self.current.release_id if self.current else None

    @property
    def version(self) -> int | None:
        return self.current.version if self.current else None


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_status(folder: Path) -> Status | None:
    """The state that was last written, by a supervisor that may be long dead; None when there is none.

    Raises:
        ValueError: the file is not what a supervisor writes.
    """
    data = _read(folder / SERVICE)
    if data is None:
        return None
    try:
        for name, kind in (("current", Release), ("previous", Release), ("failed", Failure)):
            data[name] = kind(**data[name]) if data[name] else None
        for derived in ("release_id", "version"):
            data.pop(derived, None)
        return Status(**data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / SERVICE} is not what a supervisor writes: {error}; remove it") from error


def write_status(folder: Path, status: Status) -> None:
    data = asdict(status) | {"release_id": status.release_id, "version": status.version}
    _write(folder / SERVICE, data)


def read_wish(folder: Path) -> Wish | None:
    """What is wanted; None when nothing is.

    Raises:
        ValueError: the file cannot be understood.
    """
    data = _read(folder / DESIRED)
    if data is None:
        return None
    try:
        quota = data.get("quota")
        release = Release(
            str(data["release_id"]), int(data["version"]), str(data["path"]), quota and int(quota)
        )
        return Wish(release, data.get("request"), float(data.get("deadline", 30.0)))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / DESIRED} needs release_id, version and path: {error!r}") from error


def write_wish(folder: Path, wish: Wish) -> None:
    _write(folder / DESIRED, asdict(wish.release) | {"request": wish.request, "deadline": wish.deadline})


def withdrawn(folder: Path) -> frozenset[str]:
    """Releases that are not to be gone back to. A note that cannot be read names none, as none would."""
    try:
        found = (_read(folder / LEASE) or {}).get("withdrawn", {})
    except (OSError, ValueError):
        return frozenset()
    return frozenset(found) if isinstance(found, dict) else frozenset()


def link(folder: Path, name: str, release: Release | None) -> None:
    """Let `name` point to a release's folder, from one moment to the next; None removes it."""
    path = folder / name
    if release is None:
        path.unlink(missing_ok=True)
        return
    fresh = folder / f".{name}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(release.path)
    fresh.replace(path)


@contextlib.contextmanager
def hold(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold a lock file alone, as long as this process lives or the context lasts.

    Raises:
        TimeoutError: another process holds it for all that time.
    """
    with path.open("a") as file:
        until = time.monotonic() + seconds
        while not _lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise TimeoutError(f"{path} is held by another process")
            time.sleep(0.01)
        yield


def supervised(folder: Path) -> bool:
    """Whether a supervisor lives. Asked by a shared lock, held for an instant: two who ask do not meet."""
    try:
        with (folder / LOCK).open() as file:
            return not _lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def process_started(pid: int) -> str | None:
    """When a process started, in the kernel's own count; None when there is no such process or no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def append_log(folder: Path, line: bytes) -> None:
    """Add a line to the log; a log that has become large is kept once, as `service.log.1`."""
    path = folder / LOG
    with path.open("ab") as file:
        file.write(line)
        full = file.tell() > LOG_BYTES
    if full:
        path.replace(folder / f"{LOG}.1")


def log(folder: Path, text: str, level: str = "info") -> None:
    """Add a line of the supervisor's own to the log."""
    line = {"time": now_text(), "level": level, "message": text, "from": "supervisor"}
    append_log(folder, json.dumps(line, ensure_ascii=False).encode() + b"\n")


def log_tail(folder: Path, lines: int = 5) -> list[str]:
    """The last lines of the log."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def sentence(lines: list[str]) -> str:
    """Log lines as one text: of JSON lines the message only."""
    texts = []
    for line in lines:
        try:
            texts.append(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            texts.append(line.strip())
    return "; ".join(text for text in texts if text)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds {type(data).__name__}")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    """Replace a file by another, whole also after a power cut."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
