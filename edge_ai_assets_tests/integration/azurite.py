"""Azurite, Microsoft's emulator of Azure Storage, as a fixture: an account in the cloud and one on a hub.

Installed once into the user's cache by npm, in the exact version below: Node 20 would get an older one.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_ai_assets.resources.storage.account import HUB_API_VERSION, Account
from edge_ai_assets_tests.ports import free_ports

VERSION = "3.37.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge_ai_assets"
KEYS = {name: base64.b64encode(name.encode() * 8).decode() for name in ("cloud", "hub")}


@dataclass
class Azurite:
    """A running one, with all it holds in memory."""

    blobs: int
    """Port."""
    queues: int
    process: subprocess.Popen[bytes]

    def account(self, name: str, service: str = "blob", **changes: Any) -> Account:
        """The account `cloud`, or `hub` as old as a hub is; its endpoint may be another, say of a proxy."""
        from azure.core.credentials import AzureNamedKeyCredential

        port = self.blobs if service == "blob" else self.queues
        version = HUB_API_VERSION if name == "hub" else None
        credential = AzureNamedKeyCredential(name, KEYS[name])
        options = {"endpoint": f"http://127.0.0.1:{port}/{name}", "credential": credential, **changes}
        return Account(**{"api_version": version, "connect_seconds": 10.0, "read_seconds": 60.0, **options})

    def container(self, name: str, account: str = "cloud") -> str:
        self.account(account).container(name).create_container()
        return name

    def pause(self) -> None:
        """From now on it takes connections and never answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


def program() -> Path:
    """The installed program; without npm or a registry the test is skipped, in CI it fails."""
    folder = CACHE / f"azurite-{VERSION}"
    found = folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            missing = "Azurite is not here: it needs node and npm"
            if shutil.which("npm") and shutil.which("node"):
                command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
                done = subprocess.run([*command, f"azurite@{VERSION}"], capture_output=True, timeout=300)
                missing = f"npm could not install Azurite: {done.stderr.decode()[-300:]}"
            if not found.exists():
                pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


def started() -> Azurite:
    blobs, queues, tables = free_ports(3)
    command = ["node", str(program()), "--inMemoryPersistence", "--skipApiVersionCheck"]
    for service, port in (("blob", blobs), ("queue", queues), ("table", tables)):
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    accounts = ";".join(f"{name}:{key}" for name, key in KEYS.items())
    process = subprocess.Popen(
        [*command, "--disableTelemetry", "--silent"], env={**os.environ, "AZURITE_ACCOUNTS": accounts}
    )
    for port in (blobs, queues):
        _await(port, process)
    return Azurite(blobs, queues, process)


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    running = started()
    yield running
    running.process.kill()
    running.process.wait(60)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"Azurite does not answer on port {port}, its exit code is {process.poll()}")
