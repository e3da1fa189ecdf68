"""Containers for tests: the runtime image, built once for this code, and an engine with its own storage."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from edge_ai_assets.delivery.layout import Layout

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "edge_ai_assets" / "runtime-base"
CONF = Path(__file__).with_name("containers.conf")
KEPT = 3
IN_IT = ("deploy/runtime", "constraints.txt", "edge_ai_assets/scoring", "edge_ai_assets/returns")
PACKAGES = "buildah catatonit containerd mmdebstrap podman runc skopeo"


def need(*tools: str) -> None:
    """Skip a test for a tool that is not here; where CI is set, fail it."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    if os.geteuid():
        missing.append("root")
    if missing:
        told = f"containers need {', '.join(missing)} (Debian: {PACKAGES})"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)


def run(*command: str | Path, seconds: float = 300, check: bool = True) -> str:
    """What a command says; it is told what crun and systemd's cgroups would need."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    environment = os.environ | {"CONTAINERS_CONF": str(CONF), "PATH": path, "PYTHON": sys.executable}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
    )
    assert not check or done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


@cache
def runtime_base() -> Layout:
    """The runtime image of this very code, tagged `runtime`; half a minute when it is not in the cache."""
    found = hashlib.sha256(sys.version.encode())
    for name in IN_IT:
        path = CHECKOUT / name
        for file in sorted([path] if path.is_file() else path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(file.relative_to(CHECKOUT).as_posix().encode() + b"\0" + file.read_bytes())
    folder = CACHE / found.hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of pytest may be at it
        if not folder.exists():
            partial = CACHE / ".partial"
            shutil.rmtree(partial, ignore_errors=True)
            run(CHECKOUT / "deploy" / "runtime" / "build.sh", f"{partial}:runtime", seconds=900)
            partial.rename(folder)
        os.utime(folder)
        for old in sorted(CACHE.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old)
    return Layout(folder)


class Engine:
    """podman on a storage of its own."""

    def __init__(self) -> None:
        # Not in pytest's folders: podman takes at most 50 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="edge-ai-"))
        self.root, self.runroot = self.folder / "storage", self.folder / "run"

    def podman(self, *arguments: str | Path, check: bool = True) -> str:
        return run("podman", "--root", self.root, "--runroot", self.runroot, *arguments, check=check).strip()

    def load(self, source: str, name: str) -> None:
        """Take an image, in skopeo's words, under a name."""
        storage = f"containers-storage:[overlay@{self.root}+{self.runroot}]{name}"
        run("skopeo", "copy", "--quiet", "--preserve-digests", source, storage)

    def volume(self, name: str) -> Path:
        return Path(self.podman("volume", "inspect", name, "--format", "{{.Mountpoint}}"))

    def gone(self) -> None:
        self.podman("pod", "rm", "--all", "--force", check=False)
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        self.podman("rmi", "--all", "--force", check=False)
        run("umount", self.root / "overlay", check=False)  # podman mounts it onto itself, and leaves it so
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine until the block ends."""
    need("buildah", "catatonit", "mmdebstrap", "podman", "runc", "skopeo")
    made = Engine()
    try:
        yield made
    finally:
        made.gone()


def answers(ask: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something that is called no longer raises OSError."""
    until = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
