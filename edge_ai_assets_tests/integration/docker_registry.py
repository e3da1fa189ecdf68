"""Debian's docker-registry as a server of one test: plain, with a password, with a certificate of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_ai_assets_tests.ports import free_port

USER, PASSWORD = "site-bergen", "letmein"
HASH = "$2y$05$abcdefghijklmnopqrstuuKwWV7ESJpzKzf9FQg57dBvMuv92X9HS"
"""bcrypt of it, the only kind that the server takes."""
CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: same-after-a-restart{tls}}}
{auth}"""


@dataclass
class Server:
    """A running one. What it holds stays in `root`, also while it is stopped."""

    folder: Path
    port: int
    ca: Path | None
    process: subprocess.Popen[bytes]

    @property
    def root(self) -> Path:
        return self.folder / "data"

    @property
    def repository(self) -> str:
        return f"127.0.0.1:{self.port}/edge/pump"

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob."""
        name = digest.removeprefix("sha256:")
        return self.root / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def pause(self) -> None:
        """From now on it takes connections and never answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def start(self) -> None:
        self.process = _process(self.folder)
        _await(self.port, self.process)


def need(*tools: str) -> None:
    """Skip a test for a tool that is not here; where CI is set, fail it."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        told = f"this needs {', '.join(missing)} (Debian: docker-registry skopeo)"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)


@contextmanager
def serving(folder: Path, *, password: bool = False, tls: bool = False) -> Iterator[Server]:
    """A server until the block ends."""
    need("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ca = _certificates(folder) if tls else None
    said = f", tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}" if tls else ""
    (folder / "htpasswd").write_text(f"{USER}:{HASH}\n")
    auth = f"auth: {{htpasswd: {{realm: edge, path: {folder}/htpasswd}}}}\n" if password else ""
    text = CONFIG.format(root=folder / "data", port=port, tls=said, auth=auth)
    (folder / "config.yml").write_text(text)
    server = Server(folder, port, ca, _process(folder))
    try:
        _await(port, server.process)
        yield server
    finally:
        server.kill()


def _process(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        command = ["docker-registry", "serve", str(folder / "config.yml")]
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        )


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"docker-registry does not answer on port {port}, its exit code is {process.poll()}")


def _certificates(folder: Path) -> Path:
    import trustme

    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(folder / "server.key")
    own.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
