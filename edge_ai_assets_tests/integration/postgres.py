"""PostgreSQL as a fixture: a server of its own in a folder of its own, on loopback, run by no root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_ai_assets_tests.ports import free_port

FAST = ("fsync=off", "full_page_writes=off", "unix_socket_directories=")
"""What was committed survives a killed server, not a machine that loses power; no test here does that."""


@dataclass
class Server:
    """A running one."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] = field(init=False)
    made: int = 0

    def start(self) -> None:
        """Until it answers. After `kill` its predecessor's helpers may be about: tried again."""
        until = time.monotonic() + 60
        self._spawn()
        while self._ask("postgres", "SELECT 1", check=False):
            if time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
            if self.process.poll() is not None:
                self._spawn()

    def _spawn(self) -> None:
        options = [part for each in FAST for part in ("-c", each)]
        command = [_program("postgres"), "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=log, cwd="/", user=_user()
            )

    def database(self, like: str = "template1") -> str:
        """A new one, empty or like one of these that nobody uses, as Dagster's `postgres_url`."""
        self.made += 1
        name = f"dagster_{self.made}"
        self._ask("postgres", f"CREATE DATABASE {name} TEMPLATE {like.rpartition('/')[2]}")
        return f"postgresql://dagster:{self.password}@127.0.0.1:{self.port}/{name}"

    def kill(self) -> None:
        """The server is gone from one moment to the next."""
        self.process.kill()
        self.process.wait()

    def _ask(self, database: str, query: str, *, check: bool = True) -> int:
        command = [
            "psql",
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "dagster",
            "-d",
            database,
        ]
        environment = os.environ | {"PGPASSWORD": self.password}
        done = subprocess.run(
            [*command, "-c", query], env=environment, capture_output=True, timeout=60, check=check
        )
        return done.returncode


def _program(name: str) -> str:
    """Debian keeps the server's programs out of the way, by version."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        told = f"{name} is not here: it is PostgreSQL's server (Debian: postgresql)"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    return str(found)


def _user() -> str | None:
    """Who runs it: PostgreSQL refuses root."""
    if os.geteuid():
        return None
    return next(user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))


@contextmanager
def server() -> Iterator[Server]:
    """One until the block ends."""
    made = Server(Path(tempfile.mkdtemp(prefix="edge-ai-")), free_port(), secrets.token_urlsafe(12))
    user = _user()
    try:
        secret = made.folder / "password"
        secret.write_text(made.password)
        if user:
            for path in (made.folder, secret):
                shutil.chown(path, user)
        initdb = [_program("initdb"), "-D", made.folder / "data", "-U", "dagster", "-A", "scram-sha-256"]
        initdb += ["-E", "UTF8", "--locale=C", "--no-sync", f"--pwfile={secret}"]
        subprocess.run(initdb, user=user, cwd="/", capture_output=True, timeout=120, check=True)
        made.start()
        try:
            yield made
        finally:
            made.process.send_signal(signal.SIGQUIT)  # killed, it would leave its shared memory behind
            made.process.wait(timeout=60)
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)
